"""Which face of a picture is meant, whether it can be one, and what is doubtful about it.

A face is a row of 15 numbers: x1 y1 x2 y2 (box), score, then x, y of the left-in-picture eye, the right-in-picture
eye, the tip of the nose, and the left and right corner of the mouth; all in source pixels, y down. A row of zeros is an
empty slot.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Row = NDArray[np.float32]

# From here on something is said about a face although it is used.
YAW_DEGREES = 30.0
ROLL_DEGREES = 35.0
SMALL_PIXELS = 100.0
# Mean luma of the face (0..255) below which the texture is mostly noise; dark skin in good light is above 60.
DARK_LUMA = 40.0
# Variance of the Laplacian over the variance of the luma: how much of the contrast is fine detail. Portraits have 0.05
# to 0.4, amateur photographs from 0.02, frames of compressed video 0.006 to 0.03.
BLURRED = 0.012
# The face without hair and background in a crop of 224: the template's eyes are at row 81, its mouth at row 150.
_FACE_ROWS, _FACE_COLS = slice(56, 176), slice(52, 172)
# A box given by the client means a detected face when they overlap at least this much.
MIN_IOU = 0.3
# Sides of the picture that a face's box may reach beyond it: faces cut by the border do by a part of their own side.
BOX_REACH = 1.0


class Refused(Exception):
    """A face that cannot be served.

    Attributes:
        tag: the name of the client's exception: ``NoFace``, ``NoSuchFace``, ``BadFace`` or ``BadOption``; or
            ``BadTensor`` for what only callers of this model alone can send.
    """

    def __init__(self, tag: str, sentence: str) -> None:
        super().__init__(sentence)
        self.tag = tag


class Doubt(NamedTuple):
    """Something a user should know about a face: a word for counting, and a sentence for reading."""

    kind: str
    sentence: str


@dataclass(frozen=True)
class Options:
    """What a request may say about the choice of a face.

    Attributes:
        score_threshold: faces below it do not count; None for the service's own.
        face: index among the faces that count, best score first; None for the best.
        box: (x1, y1, x2, y2) in source pixels: the face that overlaps most.
    """

    score_threshold: float | None = None
    face: int | None = None
    box: tuple[float, float, float, float] | None = None


def options_from(parameters: str) -> Options:
    """Read the options out of a request's parameters, a JSON object; others' options are left alone.

    Raises:
        Refused: ``BadOption``.
    """
    given: dict[str, Any] = json.loads(parameters or "{}")
    threshold, face, box = given.get("score_threshold"), given.get("face"), given.get("box")
    if face is not None and box is not None:
        raise Refused("BadOption", "`face` and `box` both choose a face: give one of them.")
    return Options(
        None if threshold is None else _threshold(threshold),
        None if face is None else _index(face),
        None if box is None else _box(box),
    )


def choose(faces: NDArray[np.float32], options: Options, default_threshold: float) -> Row:
    """The row of ``faces``, float32 [K, 15], that is meant.

    Raises:
        Refused: ``NoFace`` when none is good enough, ``NoSuchFace`` when the one asked for is not there.
    """
    threshold = default_threshold if options.score_threshold is None else options.score_threshold
    faces = faces[np.isfinite(faces).all(axis=1)]
    faces = faces[np.argsort(-faces[:, 4], kind="stable")]
    good = faces[(faces[:, 4] >= threshold) & (faces[:, 4] > 0)]
    if not len(good):
        best = float(faces[0, 4]) if len(faces) else 0.0
        seen = f"the best score is {best:.2f} and the threshold is {threshold:g}" if best > 0 else "nothing like one"
        raise Refused(
            "NoFace",
            f"no face was found ({seen}): send a picture that shows a face upright and from the front"
            + (", or lower `score_threshold`." if best > 0 else "."),
        )
    if options.box is not None:
        overlaps = _iou(good[:, :4], options.box)
        if overlaps.max() < MIN_IOU:
            raise Refused(
                "NoSuchFace",
                f"no face overlaps the box enough (best overlap {overlaps.max():.2f}, needed {MIN_IOU:g}): "
                "take a box as `detect` returns it.",
            )
        return np.asarray(good[int(overlaps.argmax())])
    index = options.face or 0
    if index >= len(good):
        count = "1 face was" if len(good) == 1 else f"{len(good)} faces were"
        raise Refused("NoSuchFace", f"face {index} was asked for and {count} found: ask for 0 to {len(good) - 1}.")
    return np.asarray(good[index])


def given(choice: Row, options: Options) -> Row:
    """The row that a client chose itself, as `detect` returned it.

    Raises:
        Refused: ``NoSuchFace`` for an empty slot, ``BadOption`` when the options choose as well.
    """
    if options.face is not None or options.box is not None:
        raise Refused("BadOption", "`face` and `box` choose among detected faces: leave them out, or use `face3d`.")
    if not choice.any():
        raise Refused(
            "NoSuchFace", "`choice` is an empty slot (all zeros): take a row of `detect` with a score above 0."
        )
    return choice


def check(face: Row, source: tuple[float, float]) -> None:
    """See that a row can be a face in a picture of ``source`` (width, height) pixels.

    Raises:
        Refused: ``BadFace``.
    """
    if not np.isfinite(face).all():
        raise Refused("BadFace", "the face has values that are not finite numbers: take a row as `detect` returns it.")
    # In float64 no finite float32 overflows on the way.
    wide = face.astype(np.float64)
    _check_points(points_of(wide), source)
    _check_box(wide, source)


def _check_points(points: NDArray[np.float64], source: tuple[float, float]) -> None:
    left_eye, right_eye, nose, left_mouth, right_mouth = points
    eyes, mouth = (left_eye + right_eye) / 2, (left_mouth + right_mouth) / 2
    size = float(np.linalg.norm(mouth - eyes))
    apart = float(np.linalg.norm(right_eye - left_eye))
    if size < 4 or apart < 2:
        raise Refused(
            "BadFace",
            f"the face is too small (its eyes are {apart:.1f} pixels apart): send a picture that shows it larger.",
        )
    # Seen from the side the eyes come as close as a sixth of the way from the eyes to the mouth.
    if apart < 0.08 * size:
        raise Refused("BadFace", "the eyes are too close together for a face: send a picture from the front.")
    if right_eye[0] <= left_eye[0] and right_mouth[0] <= left_mouth[0]:
        raise Refused("BadFace", "the left and right points are swapped: turn the picture upright.")
    if mouth[1] <= nose[1] or mouth[1] <= eyes[1]:
        raise Refused("BadFace", "the mouth is above the nose or the eyes: turn the picture upright.")
    outside = float(np.maximum(-points, points - (np.array(source) - 1)).max())
    if outside > 0.1 * size:
        raise Refused("BadFace", f"a point of the face is {outside:.6g} pixels outside of the picture: show all of it.")


def _check_box(face: NDArray[np.float64], source: tuple[float, float]) -> None:
    """The box and the score are only handed on, but what is handed on has to be true."""
    low, high, middle = face[:2], face[2:4], points_of(face).mean(axis=0)
    if not 0 <= face[4] <= 1:
        raise Refused("BadFace", f"the score is {face[4]:.6g}: take a row as `detect` returns it (0 to 1).")
    if not (high > low).all() or (middle < low).any() or (middle > high).any():
        raise Refused("BadFace", "the box does not surround the five points: take a row as `detect` returns it.")
    reach = BOX_REACH * np.array(source)
    if (low < -reach).any() or (high > np.array(source) + reach).any():
        raise Refused("BadFace", "the box reaches far beyond the picture: take a row as `detect` returns it.")


def doubts(face: Row, source: tuple[float, float], yaw: float, crop: NDArray[np.uint8]) -> list[Doubt]:
    """What a user should know about a face that is used all the same, one sentence each.

    Args:
        face: the row, checked.
        source: (width, height) of the picture.
        yaw: turn to the side in degrees.
        crop: uint8 [224, 224, 3] RGB.
    """
    x1, y1, x2, y2 = (float(value) for value in face[:4])
    found = []

    def say(kind: str, sentence: str) -> None:
        found.append(Doubt(kind, sentence))

    if abs(yaw) > YAW_DEGREES:
        say("turned", f"The face is turned about {abs(yaw):.0f} degrees to the side: its hidden half is a guess.")
    eyes = points_of(face)[:2]
    roll = math.degrees(math.atan2(float(eyes[1, 1] - eyes[0, 1]), float(eyes[1, 0] - eyes[0, 0])))
    if abs(roll) > ROLL_DEGREES:
        say("tilted", f"The head is tilted by about {abs(roll):.0f} degrees: an upright picture gives a better shape.")
    side = side_of(face)
    if side < SMALL_PIXELS:
        say("small", f"The face is only {max(side, 0):.0f} pixels wide: from {SMALL_PIXELS:.0f} on it gets details.")
    if min(x1, y1) < 1 or x2 > source[0] - 2 or y2 > source[1] - 2:
        say("cut", "The face is cut by the border of the picture: what is missing is a guess.")
    luma = cv2.cvtColor(np.ascontiguousarray(crop[_FACE_ROWS, _FACE_COLS]), cv2.COLOR_RGB2GRAY).astype(np.float32)
    if luma.mean() < DARK_LUMA:
        say("dark", "The face is dark: more light gives a better texture.")
    elif side >= SMALL_PIXELS and detail(luma) < BLURRED:  # a small face is blurred by being enlarged
        say("blurred", "The face is blurred: a sharper picture gives a better shape and texture.")
    return found


def detail(luma: NDArray[np.float32]) -> float:
    """Variance of the Laplacian over that of the luma itself, so that neither light nor contrast matter."""
    return float(cv2.Laplacian(luma, cv2.CV_32F).var() / max(float(luma.var()), 1.0))


def count(faces: NDArray[np.float32], options: Options, default_threshold: float) -> int:
    """How many rows of ``faces``, [K, 15], are good enough."""
    threshold = default_threshold if options.score_threshold is None else options.score_threshold
    return int(((faces[:, 4] >= threshold) & (faces[:, 4] > 0)).sum())


def side_of(face: Row) -> float:
    """The shorter side of a face's box in source pixels."""
    return float(min(face[2] - face[0], face[3] - face[1]))


def points_of(face: NDArray[Any]) -> NDArray[Any]:
    """The five points of a row, [5, 2] of its dtype."""
    return face[5:].reshape(5, 2)


def _threshold(value: Any) -> float:
    try:
        number = float("nan") if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if not 0 <= number <= 1:
        raise Refused("BadOption", f"`score_threshold` is {_shown(value)}: give a number from 0 to 1.")
    return number


def _index(value: Any) -> int:
    try:
        number = -1 if isinstance(value, (bool, float)) else int(value)
    except (TypeError, ValueError):
        number = -1
    if number < 0:
        raise Refused("BadOption", f"`face` is {_shown(value)}: give the index of a face, 0 for the best.")
    return number


def _box(value: Any) -> tuple[float, float, float, float]:
    try:
        x1, y1, x2, y2 = (float(part) for part in str(value).split(","))
    except ValueError:
        x1 = y1 = x2 = y2 = float("nan")
    if not (x2 > x1 and y2 > y1 and math.isfinite((x2 - x1) * (y2 - y1))):
        raise Refused("BadOption", f'`box` is {_shown(value)}: give "x1,y1,x2,y2" in pixels of the picture.')
    return x1, y1, x2, y2


def _shown(value: Any) -> str:
    return repr(value)[:40]


def _iou(boxes: NDArray[np.float32], box: tuple[float, float, float, float]) -> NDArray[np.float64]:
    """Intersection over union of float [n, 4] boxes with one box."""
    one = np.array(box, np.float64)
    many = boxes.astype(np.float64)
    sides = np.minimum(many[:, 2:], one[2:]) - np.maximum(many[:, :2], one[:2])
    shared = np.clip(sides, 0, None).prod(axis=1)
    total = (many[:, 2:] - many[:, :2]).prod(axis=1) + (one[2:] - one[:2]).prod() - shared
    return np.asarray(shared / np.maximum(total, 1e-9))
