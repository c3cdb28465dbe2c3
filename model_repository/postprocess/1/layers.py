"""What lies over the skin and is painted on its texture all the same: hair of the scalp, glasses."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from photograph import Photograph, strips

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]

# How much of a texel the camera has to see: what it sees at a flat angle is smeared.
FLAT, FACING = 0.25, 0.6


def paint(texture: U8, photograph: Photograph, layer: F32) -> None:
    """Paint what the photograph shows in a layer of its crop over a texture, in place.

    Args:
        texture: uint8 [side, side, 3] RGB.
        photograph: that it is of.
        layer: float32 [s, s], 0..1, of the 224 px crop.
    """
    share = photograph.at_table(layer) * np.clip((photograph.places[2] - FLAT) / (FACING - FLAT), 0, 1)
    share = cv2.GaussianBlur(share, (0, 0), 1.0)  # a texel of the table is several of the texture
    if not (share > 1 / 255).any():
        return
    side = len(texture)
    for rows in strips(side):
        own = photograph.spread(share, side, rows)[..., None]
        below = texture[rows].astype(np.float32)
        below += (photograph.sampled(side, rows) - below) * own
        texture[rows] = np.rint(below)
