"""The enhancement network makes a bad picture of a face better and leaves a good one alone, at any size."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from networks.enhance import BLOCK, Enhance, EnhanceNet

WEIGHTS = Path(__file__).parents[2] / "weights" / "enhance.safetensors"
U8 = NDArray[np.uint8]


@pytest.fixture(scope="module")
def enhance() -> Enhance:
    return Enhance.load(WEIGHTS)


@pytest.fixture(scope="module")
def face(portraits: dict[str, U8]) -> U8:
    """The face of the portrait that comes with scikit-image, (160, 160, 3)."""
    return np.ascontiguousarray(portraits["astronaut"][40:200, 140:300])


def made(enhance: Enhance, picture: U8) -> U8:
    with torch.no_grad():
        answer = enhance(torch.from_numpy(picture.transpose(2, 0, 1).copy())[None])
    return np.asarray(answer[0].permute(1, 2, 0).numpy(), np.uint8)


def error(a: U8, b: U8) -> float:
    return float(np.square(a.astype(float) - b).mean())


def test_noise_and_compression_become_less(enhance: Enhance, face: U8) -> None:
    grain = np.random.default_rng(0).normal(0, 9, face.shape)
    noisy = np.rint((face + grain).clip(0, 255)).astype(np.uint8)
    assert error(made(enhance, noisy), face) < 0.7 * error(noisy, face)
    data = cv2.imencode(".jpg", face, [cv2.IMWRITE_JPEG_QUALITY, 30])[1]
    packed = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)
    assert error(made(enhance, packed), face) < error(packed, face)


def test_a_good_picture_stays(enhance: Enhance, face: U8) -> None:
    assert np.abs(made(enhance, face).astype(int) - face).mean() < 2


def test_any_size_in_blocks_and_every_row_by_itself(enhance: Enhance, face: U8) -> None:
    part = np.ascontiguousarray(face[: 5 * BLOCK, : 9 * BLOCK])
    assert made(enhance, part).shape == part.shape
    rows = torch.from_numpy(np.stack([face, face[::-1].copy()]).transpose(0, 3, 1, 2).copy())
    with torch.no_grad():
        together = enhance(rows)
    np.testing.assert_allclose(together[0].permute(1, 2, 0).numpy(), made(enhance, face), atol=1)


def test_an_untrained_network_changes_nothing(face: U8) -> None:
    np.testing.assert_array_equal(made(Enhance(EnhanceNet()).eval(), face), face)
