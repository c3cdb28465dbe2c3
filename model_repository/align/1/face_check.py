"""Whether a row can be a face at all."""

from __future__ import annotations

import numpy as np
from face_rows import LYING_DEGREES, Refused, Row, points_of, roll_of
from numpy.typing import NDArray

# Sides of the picture that a face's box may reach beyond it: faces cut by the border do by a part of their own side.
BOX_REACH = 1.0


def check(face: Row, source: tuple[float, float]) -> None:
    """Check that a row can be a face in a picture of ``source`` (width, height) pixels.

    Raises:
        Refused: ``BadFace``.
    """
    if not np.isfinite(face).all():
        raise Refused("BadFace", "the face has values that are not finite numbers: take a row as `detect` returns it.")
    # In float64 no finite float32 overflows on the way.
    wide = face.astype(np.float64)
    _check_points(wide, source)
    _check_box(wide, source)


def _check_points(face: NDArray[np.float64], source: tuple[float, float]) -> None:
    points = points_of(face)
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
    roll = roll_of(face)
    if abs(roll) > LYING_DEGREES:
        way = "" if abs(roll) > 150 else " clockwise" if roll > 0 else " counter-clockwise"
        raise Refused(
            "BadFace",
            f"the face is turned by about {abs(roll):.0f} degrees{way}: turn the picture upright, and send it again.",
        )
    if right_eye[0] <= left_eye[0] and right_mouth[0] <= left_mouth[0]:
        raise Refused("BadFace", "the left and right points are swapped: turn the picture upright.")
    if mouth[1] <= nose[1] or mouth[1] <= eyes[1]:
        raise Refused("BadFace", "the mouth is above the nose or the eyes: turn the picture upright.")
    outside = float(np.maximum(-points, points - (np.array(source) - 1)).max())
    if outside > 0.1 * size:
        raise Refused("BadFace", f"a point of the face is {outside:.6g} pixels outside of the picture: show all of it.")


def _check_box(face: NDArray[np.float64], source: tuple[float, float]) -> None:
    """Check the box and the score, which are only handed on, but have to be true all the same."""
    low, high, middle = face[:2], face[2:4], points_of(face).mean(axis=0)
    if not 0 <= face[4] <= 1:
        raise Refused("BadFace", f"the score is {face[4]:.6g}: take a row as `detect` returns it (0 to 1).")
    if not (high > low).all() or (middle < low).any() or (middle > high).any():
        raise Refused("BadFace", "the box does not surround the five points: take a row as `detect` returns it.")
    reach = BOX_REACH * np.array(source)
    if (low < -reach).any() or (high > np.array(source) + reach).any():
        raise Refused("BadFace", "the box reaches far beyond the picture: take a row as `detect` returns it.")
