"""The same photograph is found again, however it was scaled, recoded or mirrored; another person is not."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import skimage
from matplotlib import get_data_path

from training.overlap import SUSPECT, nearest

Grey = npt.NDArray[np.uint8]


def cut(picture: Grey, x: int, y: int, side: int) -> Grey:
    part = picture[y : y + side, x : x + side]
    return np.asarray(cv2.resize(part, (144, 144), interpolation=cv2.INTER_AREA), np.uint8)


@pytest.fixture(scope="module")
def faces() -> Grey:
    """Two portraits and a face of noise, (3, 144, 144)."""
    paths = (
        Path(skimage.__file__).parent / "data" / "astronaut.png",
        Path(get_data_path()) / "sample_data" / "grace_hopper.jpg",
    )
    astronaut, hopper = (np.asarray(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE), np.uint8) for path in paths)
    noise = np.random.default_rng(0).integers(0, 256, (144, 144), np.uint8)
    return np.stack([cut(astronaut, 170, 60, 110), cut(hopper, 190, 90, 170), noise])


def recoded(face: Grey, quality: int) -> Grey:
    half = cv2.resize(face, (72, 72), interpolation=cv2.INTER_AREA)
    code = cv2.imencode(".jpg", half, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.asarray(cv2.resize(cv2.imdecode(code, cv2.IMREAD_GRAYSCALE), (144, 144)), np.uint8)


def test_a_photograph_is_found_again_after_scaling_and_recoding(faces: Grey) -> None:
    which, alike = nearest(faces, np.stack([recoded(face, 60) for face in faces[:2]]))
    assert which.tolist() == [0, 1]
    assert alike.min() > 0.9


def test_a_photograph_is_found_again_when_it_is_mirrored(faces: Grey) -> None:
    which, alike = nearest(faces, np.ascontiguousarray(faces[1:2, :, ::-1]))
    assert which.tolist() == [1]
    assert alike[0] > 0.99


def test_another_person_is_not_taken_for_the_same_photograph(faces: Grey) -> None:
    alike = nearest(faces[1:], faces[:1])[1]
    assert alike[0] < SUSPECT
