"""What is doubtful about a face that is used all the same."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from face_rows import Row, roll_of, side_of
from numpy.typing import NDArray

# From here on something is said about a face although it is used.
YAW_DEGREES = 30.0
ROLL_DEGREES = 35.0
SMALL_PIXELS = 100.0
# Mean luma of the face (0..255) below which the texture is mostly noise; dark skin in good light is above 60. And that
# of its brightest parts, the 98th percentile: of 330 portraits of people of all skins the lowest is 113; skin shines.
DARK_LUMA, DARK_HIGHLIGHTS = 40.0, 88.0
# Variance of the Laplacian over the variance of the luma: how much of the contrast is fine detail. Portraits have 0.05
# to 0.4, amateur photographs from 0.02, frames of compressed video 0.006 to 0.03.
BLURRED = 0.012
# The face without hair and background in a crop of 224: the template's eyes are at row 81, its mouth at row 150.
_FACE_ROWS, _FACE_COLS = slice(56, 176), slice(52, 172)


class QualityWarning(NamedTuple):
    """Something a user should know about a face: a word for counting, and a sentence for reading."""

    kind: str
    sentence: str


def quality_warnings(
    face: Row, source: tuple[float, float], yaw: float, crop: NDArray[np.uint8]
) -> list[QualityWarning]:
    """List what a user should know about a face that is used all the same, one sentence each.

    Args:
        face: the row, checked.
        source: (width, height) of the picture.
        yaw: turn to the side in degrees.
        crop: uint8 [224, 224, 3] RGB.
    """
    x1, y1, x2, y2 = (float(value) for value in face[:4])
    found = []

    def say(kind: str, sentence: str) -> None:
        found.append(QualityWarning(kind, sentence))

    if abs(yaw) > YAW_DEGREES:
        say("turned", f"The face is turned about {abs(yaw):.0f} degrees to the side: its hidden half is a guess.")
    roll = roll_of(face)
    if abs(roll) > ROLL_DEGREES:
        say("tilted", f"The head is tilted by about {abs(roll):.0f} degrees: an upright picture gives a better shape.")
    side = side_of(face)
    if side < SMALL_PIXELS:
        say("small", f"The face is only {max(side, 0):.0f} pixels wide: from {SMALL_PIXELS:.0f} on it gets details.")
    if min(x1, y1) < 1 or x2 > source[0] - 2 or y2 > source[1] - 2:
        say("cut", "The face is cut by the border of the picture: what is missing is a guess.")
    luma = cv2.cvtColor(np.ascontiguousarray(crop[_FACE_ROWS, _FACE_COLS]), cv2.COLOR_RGB2GRAY).astype(np.float32)
    if luma.mean() < DARK_LUMA or np.percentile(luma, 98) < DARK_HIGHLIGHTS:
        say("dark", "The face is dark: more light gives a better texture.")
    elif side >= SMALL_PIXELS and detail(luma) < BLURRED:  # a small face is blurred by being enlarged
        say("blurred", "The face is blurred: a sharper picture gives a better shape and texture.")
    return found


def crowded(rows: int) -> QualityWarning:
    """Return the warning for a detector's list that is full."""
    return QualityWarning("crowded", f"The picture shows at least {rows} faces: more than these are not looked for.")


def detail(luma: NDArray[np.float32]) -> float:
    """Measure sharpness: variance of the Laplacian over that of the luma, independent of light and contrast."""
    return float(cv2.Laplacian(luma, cv2.CV_32F).var() / max(float(luma.var()), 1.0))
