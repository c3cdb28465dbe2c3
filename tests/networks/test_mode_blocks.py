"""Vertices are multiplied by the modes that move them, and by no more than that where it pays."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from networks.mode_blocks import mode_blocks

RNG = np.random.default_rng(5)


def products(modes: NDArray[np.float32], weights: NDArray[np.float32]) -> NDArray[np.float32]:
    blocks = mode_blocks(modes)
    parts = [np.tensordot(weights[b.modes], modes[b.modes, b.start : b.stop], 1) for b in blocks]
    return np.asarray(np.concatenate(parts))


@pytest.mark.parametrize("vertices", [1, 127, 128, 300, 1500])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 1.0])
def test_the_blocks_together_are_the_whole_sum(vertices: int, share: float) -> None:
    modes = np.asarray(RNG.normal(size=(9, vertices, 3)) * (RNG.random((9, vertices, 1)) < share), np.float32)
    weights = np.asarray(RNG.normal(size=9), np.float32)
    np.testing.assert_allclose(products(modes, weights), np.tensordot(weights, modes, 1), atol=1e-5)


def test_vertices_that_few_modes_move_are_multiplied_by_few() -> None:
    modes = np.zeros((10, 1024, 3), np.float32)
    modes[:, :256] = 1
    modes[3, 512:] = 1
    assert next(iter(mode_blocks(modes)))[:2] == (0, 256)
    assert sum((b.stop - b.start) * len(b.modes) for b in mode_blocks(modes)) == 2560 + 256 + 512


def test_a_dense_model_stays_whole() -> None:
    (block,) = mode_blocks(np.ones((4, 999, 3), np.float32))
    assert (block.start, block.stop, block.modes.tolist()) == (0, 999, [0, 1, 2, 3])
