"""`align`: which face is meant, which cannot be one, and what is said about doubtful ones."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.model_repository.version_folder import load

faces = load("align", "faces")
face_check = load("align", "face_check")
face_doubts = load("align", "face_doubts")
face_options = load("align", "face_options")
face_rows = load("align", "face_rows")
SOURCE = (640.0, 480.0)


def face(x: float = 320, y: float = 200, size: float = 150, score: float = 0.99) -> NDArray[np.float32]:
    """A frontal face with its box around (x, y), ``size`` pixels wide."""
    box = [x - size / 2, y - size * 0.6, x + size / 2, y + size * 0.6]
    points = [(-0.2, -0.1), (0.2, -0.1), (0, 0.12), (-0.16, 0.3), (0.16, 0.3)]
    return np.array([*box, score, *(c for px, py in points for c in (x + px * size, y + py * size))], np.float32)


def slots(*rows: NDArray[np.float32]) -> NDArray[np.float32]:
    table = np.zeros((64, 15), np.float32)
    for slot, row in zip(table, rows, strict=False):
        slot[:] = row
    return table


def options(**parameters: Any) -> Any:
    return face_options.options_from(json.dumps(parameters))


def refusal(function: Any, *arguments: Any) -> tuple[str, str]:
    with pytest.raises(face_rows.Refused) as caught:
        function(*arguments)
    sentence = str(caught.value)
    assert sentence.endswith(".")
    return caught.value.tag, sentence


# --- choice --------------------------------------------------------------------------------------------------------


def test_the_main_person_is_taken_when_nothing_is_said() -> None:
    poster, person = face(560, 60, size=50, score=0.99), face(250, size=150, score=0.8)
    np.testing.assert_array_equal(faces.choose(slots(poster, person), options(), 0.7, SOURCE), person)


def test_of_like_faces_the_middle_one_is_taken_and_of_like_places_the_better_score() -> None:
    left, middle = face(80, score=0.98), face(330, score=0.97)
    np.testing.assert_array_equal(faces.choose(slots(left, middle), options(), 0.7, SOURCE), middle)
    worse, better = face(220, score=0.75), face(420, score=0.95)
    np.testing.assert_array_equal(faces.choose(slots(worse, better), options(), 0.7, SOURCE), better)


def test_an_upright_face_is_taken_before_a_larger_one_that_is_upside_down() -> None:
    turned = face(220, size=200)
    turned[5:] = (2 * np.array([220, 200]) - turned[5:].reshape(5, 2)).reshape(-1)
    np.testing.assert_array_equal(faces.choose(slots(turned, face(500)), options(), 0.7, SOURCE), face(500))


def test_a_full_list_is_a_doubt_and_one_free_slot_is_none() -> None:
    full = slots(*[face()] * 64)
    assert faces.is_full(full, options(), 0.7)
    assert "64 faces" in face_doubts.crowded(len(full)).sentence
    full[-1] = 0
    assert not faces.is_full(full, options(), 0.7)


@pytest.mark.parametrize("index", [1, "1"])
def test_an_index_counts_in_the_order_of_the_scores(index: Any) -> None:
    table = slots(face(100, score=0.8), face(400, score=0.95))
    np.testing.assert_array_equal(faces.choose(table, options(face=index), 0.7, SOURCE), table[0])


def test_a_box_means_the_face_that_it_overlaps_most() -> None:
    table = slots(face(150, score=0.9), face(450, score=0.95))
    np.testing.assert_array_equal(faces.choose(table, options(box="80, 110, 230, 300"), 0.7, SOURCE), table[0])


def test_no_face_says_the_best_score_and_the_threshold() -> None:
    tag, sentence = refusal(faces.choose, slots(face(score=0.43)), options(), 0.7, SOURCE)
    assert tag == "NoFace"
    assert "0.43" in sentence
    assert "0.7" in sentence


def test_an_empty_table_is_no_face() -> None:
    assert refusal(faces.choose, slots(), options(score_threshold=0), 0.7, SOURCE)[0] == "NoFace"
    assert refusal(faces.choose, slots(np.full(15, np.nan, np.float32)), options(), 0.7, SOURCE)[0] == "NoFace"


def test_a_request_may_lower_the_threshold() -> None:
    table = slots(face(score=0.43))
    np.testing.assert_array_equal(faces.choose(table, options(score_threshold="0.4"), 0.7, SOURCE), table[0])


def test_a_face_that_is_not_there_says_how_many_there_are() -> None:
    tag, sentence = refusal(faces.choose, slots(face(), face(100)), options(face=2), 0.7, SOURCE)
    assert tag == "NoSuchFace"
    assert "2 faces were found" in sentence
    tag, sentence = refusal(faces.choose, slots(face(150)), options(box="400,100,500,200"), 0.7, SOURCE)
    assert tag == "NoSuchFace"
    assert "0.00" in sentence


def test_a_given_row_is_taken_as_it_is_even_with_a_low_score() -> None:
    row = face(score=0.35)
    np.testing.assert_array_equal(faces.validate_choice(row, options()), row)


def test_an_empty_slot_cannot_be_given() -> None:
    assert refusal(faces.validate_choice, np.zeros(15, np.float32), options())[0] == "NoSuchFace"


def test_a_given_row_and_another_choice_contradict() -> None:
    assert refusal(faces.validate_choice, face(), options(face=1))[0] == "BadOption"


@pytest.mark.parametrize(
    "parameters",
    [
        {"score_threshold": "high"},
        {"score_threshold": 1.5},
        {"score_threshold": "nan"},
        {"score_threshold": True},
        {"face": -1},
        {"face": "first"},
        {"face": True},
        {"face": "1.5"},
        {"box": "1,2,3"},
        {"box": "10,10,5,20"},
        {"box": "nan,0,1,1"},
        {"box": "0,0,inf,1"},
        {"box": 7},
        {"face": 0, "box": "0,0,9,9"},
    ],
)
def test_options_out_of_range_are_refused_by_name(parameters: dict[str, Any]) -> None:
    tag, sentence = refusal(face_options.options_from, json.dumps(parameters))
    assert tag == "BadOption"
    assert f"`{next(iter(parameters))}`" in sentence


def test_options_of_other_steps_are_left_alone() -> None:
    assert options(white_balance=True, texture_format="png") == options()
    assert face_options.options_from("") == options()


# --- what cannot be a face -----------------------------------------------------------------------------------------


def test_a_plain_face_is_fine() -> None:
    face_check.check(face(), SOURCE)
    assert face_doubts.quality_warnings(face(), SOURCE, 0.0, sharp()) == []


def edited(**changes: tuple[float, float]) -> NDArray[np.float32]:
    row = face()
    for name, (x, y) in changes.items():
        start = 5 + 2 * ["left_eye", "right_eye", "nose", "left_mouth", "right_mouth"].index(name)
        row[start : start + 2] = (x, y)
    return row


def tilted(degrees: float) -> NDArray[np.float32]:
    row = face()
    a = np.radians(degrees)
    points = (row[5:].reshape(5, 2) - np.array([320, 200])) @ np.array(
        [[np.cos(a), np.sin(a)], [-np.sin(a), np.cos(a)]]
    )
    row[5:] = (points + np.array([320, 200])).reshape(-1)
    return row


@pytest.mark.parametrize(
    ("row", "word"),
    [
        (np.full(15, np.nan, np.float32), "finite"),
        (np.array([*face()[:14], np.inf], np.float32), "finite"),
        (np.full(15, 50.0, np.float32), "too small"),
        (face(size=6), "too small"),
        (edited(left_eye=(320, 185), right_eye=(322, 185)), "too close"),
        (edited(left_mouth=(300, 150), right_mouth=(340, 150)), "turn the picture upright"),
        (edited(nose=(320, 260)), "above"),
        (face(x=630), "outside"),
        (face(x=-4000), "outside"),
        (tilted(90), "about 90 degrees clockwise: turn the picture upright"),
        (tilted(-90), "about 90 degrees counter-clockwise: turn the picture upright"),
        (tilted(180), "about 180 degrees: turn the picture upright"),
        (face()[[0, 1, 2, 3, 4, 7, 8, 5, 6, 9, 10, 13, 14, 11, 12]], "swapped"),
    ],
)
def test_points_that_cannot_be_a_face_are_refused(row: NDArray[np.float32], word: str) -> None:
    tag, sentence = refusal(face_check.check, row, SOURCE)
    assert tag == "BadFace"
    assert word in sentence


def test_a_face_seen_from_the_side_is_still_a_face() -> None:
    face_check.check(edited(left_eye=(340, 185), right_eye=(356, 185), nose=(390, 218), left_mouth=(345, 245)), SOURCE)


# --- doubts --------------------------------------------------------------------------------------------------------


def sharp(level: float = 120) -> NDArray[np.uint8]:
    noise = np.random.default_rng(1).normal(level, level / 4, (224, 224, 1)).clip(0, 255).astype(np.uint8)
    return np.repeat(noise, 3, axis=2)


def smooth() -> NDArray[np.uint8]:
    ramp = np.linspace(60, 200, 224).astype(np.uint8)
    return np.repeat(np.tile(ramp, (224, 1))[..., None], 3, axis=2)


@pytest.mark.parametrize(
    ("row", "yaw", "crop", "kind", "words"),
    [
        (face(), 41.6, sharp(), "turned", "about 42 degrees to the side"),
        (face(), -41.6, sharp(), "turned", "about 42 degrees to the side"),
        (tilted(40), 0.0, sharp(), "tilted", "by about 40 degrees"),
        (face(size=64), 0.0, sharp(), "small", "only 64 pixels"),
        (face(y=85), 0.0, sharp(), "cut", "by the border"),
        (face(), 0.0, sharp(20), "dark", "more light"),
        (face(), 0.0, sharp(48), "dark", "more light"),
        (face(), 0.0, smooth(), "blurred", "sharper"),
    ],
)
def test_each_doubt_has_a_sentence_of_its_own(
    row: NDArray[np.float32], yaw: float, crop: NDArray[np.uint8], kind: str, words: str
) -> None:
    (doubt,) = face_doubts.quality_warnings(row, SOURCE, yaw, crop)
    assert doubt.kind == kind
    assert words in doubt.sentence
    assert doubt.sentence.endswith(".")


def test_faces_are_counted_from_the_threshold_on() -> None:
    table = slots(face(score=0.9), face(score=0.75), face(score=0.4))
    assert faces.count(table, options(), 0.7) == 2
    assert faces.count(table, options(score_threshold=0), 0.7) == 3


def test_how_sharp_a_face_is_does_not_depend_on_its_light() -> None:
    luma = sharp()[..., 0].astype(np.float32)
    assert face_doubts.detail(luma) == pytest.approx(face_doubts.detail(luma * 0.4 + 20), rel=1e-3)
