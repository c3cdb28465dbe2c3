"""The rows that a face is told by, and the reason why one is refused.

A face is a row of 15 numbers: x1 y1 x2 y2 (box), score, then x, y of the left-in-picture eye, the right-in-picture
eye, the tip of the nose, and the left and right corner of the mouth; all in source pixels, y down. A row of zeros is an
empty slot.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

Row = NDArray[np.float32]

# Heads are not held like this: the picture lies on its side, or is upside down.
LYING_DEGREES = 60.0


class Refused(Exception):
    """A face that cannot be served.

    Attributes:
        tag: the name of the client's exception: ``NoFace``, ``NoSuchFace``, ``BadFace`` or ``BadOption``; or
            ``BadTensor`` for what only callers of this model alone can send.
    """

    def __init__(self, tag: str, sentence: str) -> None:
        super().__init__(sentence)
        self.tag = tag


@contextmanager
def naming_row(row: int, rows: int) -> Iterator[None]:
    """Let a refusal name its picture where the request has several: Triton has one answer for all of them.

    Raises:
        Refused: what is raised inside.
    """
    try:
        yield
    except Refused as error:
        if rows == 1:
            raise
        raise Refused(error.tag, f"row {row} of the {rows} in this request: {error}") from None


def side_of(face: Row) -> float:
    """Return the shorter side of a face's box in source pixels."""
    return float(min(face[2] - face[0], face[3] - face[1]))


def points_of(face: NDArray[Any]) -> NDArray[Any]:
    """Return the five points of a row, [5, 2] of its dtype."""
    return face[5:].reshape(5, 2)


def roll_of(face: NDArray[Any]) -> float:
    """Return the roll of the head in degrees, -180 to 180; 0 is upright, positive is clockwise as seen.

    By the way from the eyes to the mouth, which no turn to the side changes much.
    """
    points = points_of(face).astype(np.float64)
    x, y = points[3:].mean(axis=0) - points[:2].mean(axis=0)
    return math.degrees(math.atan2(-float(x), float(y)))
