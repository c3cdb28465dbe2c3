"""Where the tiles of a second look lie, for faces that are too small on the canvas of the whole picture.

The detector finds faces from 1/SEEN of its canvas's long side on. Of a large picture that is many pixels, so tiles of
the picture are given to it as canvases of their own. A tile overlaps its neighbours by more than the largest face that
is too small on the whole picture, so that each of them lies whole in one.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from refusals import BadPicture

# The part of a canvas's long side that a face needs (`networks/detector/single_shot.py`): of twelve all are found.
SEEN = 36
# How much wider the overlap is than the largest face that the whole picture's canvas is too coarse for.
MARGIN = 1.25
# Tiles of a picture: with the whole picture, as many rows as the detector takes at once.
MOST_TILES = 31
# Pixels: of a smaller face `align` refuses the points, and of a larger one the whole picture shows enough.
LEAST_FACE, GREATEST_FACE = 12.0, 4096.0


class Tile(NamedTuple):
    """A part of a picture: its first column and row, and those behind its last."""

    left: int
    top: int
    right: int
    bottom: int


def tiles_of(width: int, height: int, min_face: float, ratio: float = 1.0) -> list[Tile]:
    """Lay tiles over a picture so that faces from a size on are found; none where the whole picture shows them.

    Args:
        width, height: of the picture in pixels.
        min_face: longer side of the smallest faces in source pixels.
        ratio: source pixels per pixel of the picture.

    Raises:
        BadPicture: ``BadOption``, for more than `MOST_TILES`; it says what may be asked of this picture.
    """
    face = min_face / ratio
    columns, rows, side = _grid(width, height, face)
    if columns * rows == 1:
        return []
    if columns * rows > MOST_TILES:
        sizes = range(math.ceil(min_face), math.ceil(max(width, height) * ratio))
        least = next(size for size in sizes if _may_be(width, height, size / ratio))
        raise BadPicture(
            "BadOption",
            f"`min_face` is {min_face:g}, which takes more than {MOST_TILES} looks at a picture of this size: give "
            f"{least} or more, or send a part of the picture.",
        )
    return [
        Tile(left, top, left + min(side, width), top + min(side, height))
        for top in _starts(height, side, rows)
        for left in _starts(width, side, columns)
    ]


def _may_be(width: int, height: int, face: float) -> bool:
    columns, rows, _ = _grid(width, height, face)
    return columns * rows <= MOST_TILES


def _grid(width: int, height: int, face: float) -> tuple[int, int, int]:
    """Return how many tiles there are along and down, and their side."""
    longer = max(width, height)
    side = max(1, math.floor(SEEN * face))
    step = side - math.ceil(MARGIN * longer / SEEN)
    if side >= longer:
        return 1, 1, side
    if step < 1:  # so small a face that tiles would lie on one another
        return longer, longer, side
    return _along(width, side, step), _along(height, side, step), side


def _along(length: int, side: int, step: int) -> int:
    return 1 if length <= side else 1 + math.ceil((length - side) / step)


def _starts(length: int, side: int, count: int) -> list[int]:
    return [0] if count == 1 else [round(index * (length - side) / (count - 1)) for index in range(count)]
