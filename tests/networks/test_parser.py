"""The parser tells skin from hair and from what covers both, in whole batches and for any fingerprint."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from export.samples import Sample, sample_of
from networks.detector.cascade import Detector
from networks.detector.weights import default_weights
from networks.parser import HAIR, OTHER, PARTS_SIDE, SKIN, Parser, ParserNet, example_inputs

WEIGHTS = Path(__file__).parents[2] / "weights" / "parser.safetensors"


@pytest.fixture(scope="module")
def parser() -> Parser:
    return Parser.load(WEIGHTS)


@pytest.fixture(scope="module")
def astronaut(portraits: dict[str, NDArray[np.uint8]]) -> Sample:
    """Cut out the face of the portrait that comes with scikit-image."""
    detector = Detector.load(default_weights())

    def find(canvas: NDArray[np.uint8], geometry: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.no_grad():
            faces: NDArray[np.float32] = detector(torch.from_numpy(canvas), torch.from_numpy(geometry)).numpy()
        return faces

    sample = sample_of("astronaut", portraits["astronaut"], find)
    assert sample is not None
    return sample


def parts_of(parser: Parser, crop: NDArray[np.uint8], fingerprint: int = 0) -> NDArray[np.uint8]:
    with torch.no_grad():
        parts: NDArray[np.uint8] = parser(torch.from_numpy(crop), torch.full((len(crop), 1), fingerprint)).numpy()
    return parts


def at(parts: NDArray[np.uint8], column: float, row: float) -> int:
    """Return the likeliest part at a place of the crop, 0..1 across it."""
    return int(parts[0, :, int(row * PARTS_SIDE), int(column * PARTS_SIDE)].argmax())


def test_a_portrait_has_skin_hair_and_neither(parser: Parser, astronaut: Sample) -> None:
    parts = parts_of(parser, astronaut.crop)
    assert at(parts, 0.5, 0.5) == SKIN  # the nose
    assert at(parts, 0.3, 0.58) == SKIN  # a cheek
    assert at(parts, 0.5, 0.06) == HAIR
    assert at(parts, 0.02, 0.97) == OTHER  # the suit


def test_what_covers_a_cheek_is_not_skin(parser: Parser, astronaut: Sample) -> None:
    crop = astronaut.crop.copy()
    crop[0, :, 110:160, 55:100] = np.array([20, 160, 60], np.uint8)[:, None, None]
    parts = parts_of(parser, crop)
    assert at(parts, 77 / 224, 135 / 224) == OTHER
    assert at(parts, 0.66, 0.58) == SKIN  # the other cheek


def test_probabilities_add_up(parser: Parser, astronaut: Sample) -> None:
    total = parts_of(parser, astronaut.crop).astype(int).sum(1)
    assert np.abs(total - 255).max() <= 2


def test_the_fingerprint_changes_nothing(parser: Parser, astronaut: Sample) -> None:
    plain, large = (parts_of(parser, astronaut.crop, number) for number in (0, -(2**63)))
    np.testing.assert_array_equal(plain, large)


def test_a_row_does_not_depend_on_its_neighbours(parser: Parser, astronaut: Sample) -> None:
    both = parts_of(parser, np.concatenate([astronaut.crop, 255 - astronaut.crop]))
    assert np.abs(both[:1].astype(int) - parts_of(parser, astronaut.crop)).max() <= 1


def test_another_network_s_weights_are_refused() -> None:
    with pytest.raises(RuntimeError, match="Missing key"):
        Parser.load(WEIGHTS.with_name("texture.safetensors"))


def test_the_network_is_small() -> None:
    assert sum(weight.numel() for weight in ParserNet().parameters()) * 4 < 3e6
    crop, fingerprint = example_inputs(1)
    assert crop.dtype == torch.uint8
    assert fingerprint.dtype == torch.int64
