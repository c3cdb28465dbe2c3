"""What lies over the skin and is painted on its texture all the same: hair of the scalp, glasses."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from photograph import USUAL_TEXTURE, Photograph, strips
from texels import Texels

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]

# How much of a texel the camera has to see: what it sees at a flat angle is smeared.
FLAT, FACING = 0.25, 0.6
# Share of a texel that has to be glasses for it to be filled, and texels around from which it is.
FILLED, AROUND = 0.15, 4
SMOOTH = 7.0  # width of the blur of what is filled, in texels of the usual texture


def paint(texture: U8, photograph: Photograph, layer: F32) -> None:
    """Paint what the photograph shows in a layer of its crop over a texture, in place.

    Args:
        texture: uint8 [side, side, 3] RGB.
        photograph: that it is of.
        layer: float32 [s, s], 0..1, of the 224 px crop.
    """
    # A texel of the table is several of the texture.
    share = np.asarray(cv2.GaussianBlur(shown_share(photograph, layer), (0, 0), 1.0), np.float32)
    if not (share > 1 / 255).any():
        return
    side = len(texture)
    lines, columns = (_reached(share, axis, side) for axis in (1, 0))
    for rows in strips(side):
        if rows.stop <= lines.start or rows.start >= lines.stop:
            continue
        own = photograph.spread(share, side, rows, columns)
        colours = photograph.sampled(side, rows, columns)
        texture[rows, columns] = cv2.blendLinear(colours, texture[rows, columns], own, 1 - own)


def take_off(texture: U8, photograph: Photograph, layer: F32, texels: Texels | None) -> None:
    """Fill what lies in a layer of the crop from around it, but for lids and brows, in place.

    Args:
        texture: uint8 [side, side, 3] RGB.
        photograph: that it is of.
        layer: float32 [s, s], 0..1, of the 224 px crop.
        texels: tables of the skin, if the face model has them.
    """
    share = shown_share(photograph, layer)
    if texels is not None:
        share = share * texels.plain
    holes = cv2.dilate((share > FILLED).astype(np.float32), np.ones((5, 5), np.uint8))
    share = np.asarray(cv2.GaussianBlur(holes, (0, 0), 0.7), np.float32)
    if not share.any():
        return
    side = len(texture)
    # At the usual size: a larger texture gets the smooth filling enlarged.
    small = (
        texture
        if side <= USUAL_TEXTURE
        else _u8(cv2.resize(texture, (USUAL_TEXTURE,) * 2, interpolation=cv2.INTER_AREA))
    )
    wide = cv2.resize(share, small.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    mask = (wide > 0.02).astype(np.uint8)
    filled = _u8(cv2.inpaint(small, mask, AROUND, cv2.INPAINT_TELEA))
    # Telea's method leaves facets; smooth, they are skin.
    filled = np.where(
        mask[..., None] > 0, cv2.GaussianBlur(filled, (0, 0), SMOOTH * len(small) / USUAL_TEXTURE), filled
    )
    if side > USUAL_TEXTURE:
        filled = _u8(cv2.resize(filled, (side, side), interpolation=cv2.INTER_CUBIC))
    for rows in strips(side):
        own = photograph.spread(share, side, rows)[..., None]
        below = texture[rows].astype(np.float32)
        texture[rows] = np.rint(below + (filled[rows] - below) * own)


def _reached(share: F32, axis: int, side: int) -> slice:
    """Rows (axis 1) or columns (axis 0) of a texture that are not 0 where a table [t, t] is enlarged to it."""
    used, scale = np.flatnonzero(share.any(axis=axis)), side / len(share)
    # Interpolation reads one texel of the table to each side.
    return slice(max(0, int((used[0] - 1) * scale)), min(side, int((used[-1] + 2) * scale) + 1))


def shown_share(photograph: Photograph, layer: F32) -> F32:
    """Sample a layer of the 224 px crop, float32 [s, s], at the table's texels, as far as the camera sees them."""
    return np.asarray(
        photograph.at_table(layer) * np.clip((photograph.places[2] - FLAT) / (FACING - FLAT), 0, 1), np.float32
    )


def _u8(array: object) -> U8:
    """OpenCV's types say less than is known here: uint8 in, uint8 out."""
    return np.asarray(array, np.uint8)
