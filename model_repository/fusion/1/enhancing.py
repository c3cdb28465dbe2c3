"""Makes a part of a face sharper and cleaner by the model `enhance`, tile by tile.

The source is deploy/configurations/shared/enhancing.py; `make configs` copies it into the version folders that use it,
as a version folder is complete by itself.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

U8 = NDArray[np.uint8]
Enhance = Callable[[U8], U8]
"""Tiles uint8 [n, 3, `TILE`, `TILE`] RGB, n up to `TILES`, -> the same shape."""

# As in the configuration of `enhance`: side of a tile, and tiles of a batch.
TILE, TILES = 320, 4
# Pixels that two neighbouring tiles share; each gives half of them, those that are further from its own edge.
SHARED = 64


def unchanged(tiles: U8) -> U8:
    """Return the tiles: for callers that never ask for more."""
    return tiles


def enhanced(picture: U8, enhance: Enhance) -> U8:
    """Enhance a picture uint8 [h, w, 3] RGB of any size; a copy."""
    height, width = picture.shape[:2]
    below, beside = max(0, TILE - height), max(0, TILE - width)
    padded = cv2.copyMakeBorder(picture, 0, below, 0, beside, cv2.BORDER_REPLICATE)
    corners = [(y, x) for y in _starts(padded.shape[0]) for x in _starts(padded.shape[1])]
    result = np.asarray(padded, np.uint8).copy()
    for first in range(0, len(corners), TILES):
        some = corners[first : first + TILES]
        tiles = np.stack([padded[y : y + TILE, x : x + TILE].transpose(2, 0, 1) for y, x in some])
        for (y, x), tile in zip(some, enhance(tiles), strict=True):
            top, left = (SHARED // 2 if start else 0 for start in (y, x))
            result[y + top : y + TILE, x + left : x + TILE] = tile[:, top:, left:].transpose(1, 2, 0)
    return result[:height, :width]


def _starts(length: int) -> list[int]:
    """Where tiles begin along a side; later ones are put over earlier ones."""
    count = max(1, -(-(length - SHARED) // (TILE - SHARED)))
    return [round(start) for start in np.linspace(0, length - TILE, count)]
