"""What of the texture a photograph shows, by NumPy and OpenCV: `UVSampler.visibility` and `UVSampler.skin`.

The names and numbers are those of networks/texture.py, which says what they are for; the export compares both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]

CROP = 224  # pixels a side of the small crop
DEPTH_GRID = 112
FARTHEST = -10.0  # decimetres, what an empty cell has
UNSEEN_COSINE, SEEN_COSINE = 0.2, 0.6
SEEN_DEPTH, HIDDEN_DEPTH = 0.07, 0.14
SEEN_BEHIND_EYE, HIDDEN_BEHIND_EYE = 0.0, 0.02
NOT_SKIN, SURE_SKIN = 0.55, 0.9
BORDER = 5
ISLAND, ISLAND_SKIN = 15, (0.4, 0.6)
NO_BEARD, BEARD = 0.2, 0.5


@dataclass(frozen=True)
class Maps:
    """Maps of the chart, float32 [t, t], 0..1.

    Attributes:
        outside: what is not inside of mouth and sockets.
        beard, chin: where a beard may be; the chin.
    """

    outside: F32
    beard: F32
    chin: F32

    def facing(self, field: F32, covers: F32) -> F32:
        """How much of each texel the camera sees, whatever lies there: float32 [t, t], 0..1.

        Args:
            field: float32 [4, t, t], of texels: column and row in the small crop, depth, cosine.
            covers: float32 [c, 4], the same of what covers the skin.
        """
        depth, cells = field[2], _cells(field[0], field[1])
        seen = _smoothstep(field[3], UNSEEN_COSINE, SEEN_COSINE)
        seen *= _in_front(_nearest(cells, depth), cells, depth, SEEN_DEPTH, HIDDEN_DEPTH)
        if len(covers):
            nearest = _nearest(_cells(covers[:, 0], covers[:, 1]), covers[:, 2])
            seen *= _in_front(nearest, cells, depth, SEEN_BEHIND_EYE, HIDDEN_BEHIND_EYE)
        seen *= self.outside
        return seen

    def skin(self, parts: U8, field: F32, facing: F32) -> F32:
        """How much of each texel is this person's skin, beard included: float32 [t, t], 0..1.

        Args:
            parts: uint8 [3, h, w], of the small crop: skin, hair, other.
            field, facing: of `facing`.
        """
        ratio = np.float32(parts.shape[1] / CROP)
        columns, rows = (plane * ratio + (ratio - 1) / 2 for plane in field[:2])
        pixels = cv2.merge([parts[0].astype(np.float32), parts[1].astype(np.float32)])
        pixels *= np.float32(1 / 255)
        skin, hair = cv2.split(cv2.remap(pixels, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT))
        shown = self.chin * facing
        bearded = float(np.vdot(hair, shown)) / (float(shown.sum()) + 1)
        share = min(max((bearded - NO_BEARD) / (BEARD - NO_BEARD), 0.0), 1.0)
        hair *= np.maximum(self.chin, self.beard * np.float32(share * share * (3 - 2 * share)))
        hair += skin
        least = cv2.erode(hair, np.ones((BORDER, BORDER), np.uint8))
        mean = cv2.blur(hair, (ISLAND, ISLAND), borderType=cv2.BORDER_CONSTANT)
        sure = _smoothstep(least, NOT_SKIN, SURE_SKIN)
        sure *= _smoothstep(mean, *ISLAND_SKIN)
        return sure


def _cells(column: F32, row: F32) -> NDArray[np.intp]:
    """Cells of the depth buffer for places in the small crop."""
    column, row = (np.clip(np.floor(at * np.float32(DEPTH_GRID / CROP)), 0, DEPTH_GRID - 1) for at in (column, row))
    return np.asarray(row * np.float32(DEPTH_GRID) + column, np.intp)


def _nearest(cells: NDArray[np.intp], depth: F32) -> F32:
    """Depth buffer float32 [cells] of points in cells at a depth."""
    buffer = np.full(DEPTH_GRID * DEPTH_GRID, FARTHEST, np.float32)
    np.maximum.at(buffer, cells.ravel(), depth.ravel())
    return buffer


def _in_front(nearest: F32, cells: NDArray[np.intp], depth: F32, seen: float, hidden: float) -> F32:
    """1 up to ``seen`` decimetres behind the nearest point of a cell, 0 from ``hidden`` on."""
    return _smoothstep(depth - nearest.take(cells), -hidden, -seen)


def _smoothstep(x: Any, low: float, high: float) -> F32:
    t = np.asarray(x * np.float32(1 / (high - low)), np.float32)
    t -= np.float32(low / (high - low))
    # Several times as fast as NumPy's clip.
    cv2.threshold(t, 0, 0, cv2.THRESH_TOZERO, t)
    cv2.threshold(t, 1, 0, cv2.THRESH_TRUNC, t)
    steep = t * np.float32(-2)
    steep += np.float32(3)
    steep *= t
    steep *= t
    return steep
