"""`align`: the bicubic filter is Pillow's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.model_repository.version_folder import load

bicubic = load("align", "bicubic")


def noise(seed: int, rows: int, cols: int) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (rows, cols, 3), np.uint8)


def by_pillow(picture: Any, width: int, height: int, box: tuple[float, float, float, float]) -> Any:
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC, box=box))


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(1, 60),
    cols=st.integers(1, 60),
    width=st.integers(1, 80),
    height=st.integers(1, 80),
    edges=st.tuples(*[st.floats(0, 0.45)] * 4),
)
def test_a_box_of_noise_becomes_what_pillow_makes_of_it(
    seed: int, rows: int, cols: int, width: int, height: int, edges: tuple[float, float, float, float]
) -> None:
    picture = noise(seed, rows, cols)
    left, top, right, bottom = edges
    box = (left * cols, top * rows, cols - right * cols, rows - bottom * rows)
    wanted, result = by_pillow(picture, width, height, box), bicubic.resize(picture, width, height, box)
    assert result.shape == wanted.shape
    assert result.dtype == np.uint8
    # a rounding of the first pass that went the other way can move a sample by one more level
    assert np.abs(result.astype(int) - wanted).max() <= 2


@pytest.mark.parametrize(("width", "height"), [(512, 512), (224, 224), (700, 60)])
def test_hardly_a_sample_differs(width: int, height: int) -> None:
    picture, box = noise(1, 400, 500), (3.7, 10.2, 470.1, 399.0)
    differs = by_pillow(picture, width, height, box) != bicubic.resize(picture, width, height, box)
    assert differs.mean() < 1e-3


def test_every_sample_is_a_mean_of_pixels_in_reach() -> None:
    matrix = bicubic.weights(10.25, 90.5, 224, 120).toarray()
    np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-6)
    samples, pixels = np.nonzero(matrix)
    centres = 10.25 + (samples + 0.5) * (90.5 - 10.25) / 224
    assert np.abs(pixels + 0.5 - centres).max() <= bicubic.SUPPORT
