"""The teacher's faults are mended where they are known, and nowhere else; beards of others grow on chins."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from training.evaluate_skin import drawn_parts
from training.parser_beards import MOUTH, Beards, bearded
from training.parser_labels import HAIR, LABEL_SIDE, PERSON, SKIN, UNKNOWN
from training.parser_mending import CHIN, EYE_CORNERS, FOREHEAD, NOSE_BASE, OVAL, mended

F32 = npt.NDArray[np.float32]
CHANNELS = ("skin", "clothes", "hair", "person")


@pytest.fixture
def points() -> F32:
    """MediaPipe's points of an upright face around (128, 130), 140 px high and 100 px wide."""
    found = np.full((478, 2), 128, np.float32)
    angles = np.linspace(0, 2 * np.pi, len(OVAL), endpoint=False)
    found[list(OVAL)] = np.stack([128 + 50 * np.sin(angles), 130 - 70 * np.cos(angles)], 1)
    found[NOSE_BASE] = 128, 145
    found[list(EYE_CORNERS)] = [[100, 115], [156, 115]]
    assert found[FOREHEAD, 1] < found[CHIN, 1]
    return found


def answers_of(**areas: tuple[slice, slice]) -> F32:
    """Skin all over, but for areas of which the teacher says something else."""
    answers = np.zeros((4, LABEL_SIDE, LABEL_SIDE), np.float32)
    answers[0], answers[3] = 1, 1
    for name, area in areas.items():
        answers[:3, area[0], area[1]] = 0
        answers[CHANNELS.index(name), area[0], area[1]] = 1
    return answers


PLAIN = np.full((LABEL_SIDE, LABEL_SIDE, 3), (180, 140, 120), np.uint8)


def test_clothes_on_a_chin_are_a_beard_beside_hair_and_skin_without(points: F32) -> None:
    clothes, hair = (slice(170, 190), slice(110, 146)), (slice(150, 160), slice(100, 156))
    beard = mended(answers_of(clothes=clothes, hair=hair), points, PLAIN)
    lip = mended(answers_of(clothes=clothes), points, PLAIN)
    assert beard[:, 180, 128].tolist() == [0, 255, 255, 0]
    assert lip[:, 180, 128].tolist() == [255, 0, 255, 0]
    collar = (slice(170, 256), slice(0, 256))
    below = mended(answers_of(clothes=collar, hair=hair), points, PLAIN)
    assert below[UNKNOWN, 215, 128] == 255
    assert below[:, 250, 128].tolist() == [0, 0, 255, 0]


def test_in_a_picture_without_colour_what_is_no_skin_is_unknown(points: F32) -> None:
    hair = (slice(150, 190), slice(110, 146))
    found = mended(answers_of(hair=hair), points, np.repeat(PLAIN[..., :1], 3, -1))
    assert found[UNKNOWN, 170, 128] == 255
    assert found[:, 170, 90].tolist() == [255, 0, 255, 0]


def test_dark_hair_above_the_eyes_is_no_skin_and_brows_stay(points: F32) -> None:
    picture = PLAIN.copy()
    picture[:56] = 30  # short hair
    picture[100:106, 105:150] = 30  # brows
    picture[200:] = 30  # a shadow on the throat
    found = mended(answers_of(), points, picture)
    assert found[:, 30, 128].tolist() == [0, 255, 255, 0]
    assert found[:, 103, 128].tolist() == found[:, 230, 128].tolist() == [255, 0, 255, 0]
    assert found[SKIN, 130, 90] == 255


def test_where_no_face_is_seen_the_teacher_is_believed(points: F32) -> None:
    answers = answers_of(clothes=(slice(170, 190), slice(110, 146)))
    found = mended(answers, np.full_like(points, np.nan), PLAIN)
    np.testing.assert_array_equal(found[[SKIN, HAIR, PERSON]], np.rint(answers[[0, 2, 3]] * 255))
    assert not found[UNKNOWN].any()


def test_a_beard_is_put_on_a_person_and_labelled_as_hair() -> None:
    row = int(MOUTH[1]) + 15
    labels = np.zeros((2, 4, LABEL_SIDE, LABEL_SIDE), np.uint8)
    labels[:, PERSON], labels[:, SKIN] = 255, 255
    labels[1, HAIR, row - 25 : row + 60], labels[1, SKIN, row - 25 : row + 60] = 255, 0
    assert bearded(labels)[0] == 0
    assert bearded(labels)[1] > 0.9
    beards = Beards(np.full((1, LABEL_SIDE, LABEL_SIDE, 3), 40, np.uint8), labels[1:])
    crop, with_it = beards.put_on(PLAIN, labels[0].transpose(1, 2, 0), np.random.default_rng(2))
    column = int(MOUTH[0])
    assert with_it[row, column].tolist() == [0, 255, 255, 0]
    assert (crop[row, column] != PLAIN[row, column]).any()
    np.testing.assert_array_equal(crop[:80], PLAIN[:80])
    np.testing.assert_array_equal(with_it[:80], labels[0].transpose(1, 2, 0)[:80])


def test_hand_labels_keep_the_outlines_of_eyes_and_nose_and_know_brows() -> None:
    labels = np.zeros((40, 40, 3), np.uint8)
    labels[:] = 255, 0, 0
    labels[5:35, 5:35] = 255, 255, 0
    labels[:5] = labels[10:12, 10:20] = 127, 0, 0
    labels[15:18, 10:15] = 0, 0, 255
    labels[18] = 130, 130, 120  # a row that a resized label mixed of both
    parts, brows = drawn_parts(labels)
    assert parts[16, 12].tolist() == [255, 0, 255]
    assert parts[2, 12].tolist() == parts[10, 12].tolist() == [0, 255, 255]
    assert brows[10, 12] == 255
    assert not brows[:5].any()
