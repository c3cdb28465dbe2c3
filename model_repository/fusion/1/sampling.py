"""Colours of photographs and textures at places that a drawing names."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from drawing import Drawing
from numpy.typing import NDArray
from photographs import Photograph

F32 = NDArray[np.float32]

# Pixels of a picture between two places from which on it is made smaller before it is sampled.
COARSER = 1.3
# From which share on all of a face counts as seen.
ALL_SEEN = 0.995
U8 = NDArray[np.uint8]
# OpenCV's second map where the first has columns and rows.
_NONE = np.empty(0, np.float32)


@dataclass(frozen=True)
class Skin:
    """The source's skin as the texture network gives it.

    Attributes:
        texture: uint8 [3, side, side], 512 or 1024 a side, sRGB, row 0 at v = 1.
        visibility: uint8 [1, 1024, 1024], 255 where the photograph shows it, 0 where it was filled in.
    """

    texture: U8
    visibility: U8


def fetch(pixels: U8, places: F32) -> F32:
    """Colours of a picture uint8 [h, w, 3] at places float32 [rows, columns, 2]: float32 [rows, columns, 3], 0..255.

    A picture that is finer than the places are apart is made smaller first, so that nothing flickers or is lost.
    """
    apart = _apart(places)
    if apart > COARSER:
        pixels, places = _smaller(pixels, places, apart)
    how = cv2.INTER_LINEAR if apart > COARSER else cv2.INTER_CUBIC
    return np.asarray(cv2.remap(pixels, places, _NONE, how, borderMode=cv2.BORDER_REPLICATE), np.float32)


def _smaller(pixels: U8, places: F32, apart: float) -> tuple[U8, F32]:
    """The part of a picture that places lie in, made smaller by a factor, and the places in it."""
    thin = places[::8, ::8].reshape(-1, 2)
    reach = int(np.ceil(8 * apart)) + 4
    x0, y0 = np.clip(np.floor(thin.min(axis=0)).astype(int) - reach, 0, np.array(pixels.shape[1::-1]) - 1)
    x1, y1 = np.clip(np.ceil(thin.max(axis=0)).astype(int) + reach, (x0 + 1, y0 + 1), pixels.shape[1::-1])
    part = pixels[y0:y1, x0:x1]
    size = tuple(max(1, round(side / apart)) for side in part.shape[1::-1])
    ratio = np.array(part.shape[1::-1], np.float32) / np.array(size, np.float32)
    small = np.asarray(cv2.resize(part, size, interpolation=cv2.INTER_AREA), np.uint8)
    return small, np.asarray((places - np.array([x0, y0], np.float32) + 0.5) / ratio - 0.5, np.float32)


def skin_of(source: Photograph, skin: Skin, drawing: Drawing) -> F32:
    """The source's skin where the drawing shows it, float32 [height, width, 3] 0..255, at the target's resolution.

    Taken from the photograph where that shows it, as it is finer than the texture, and from the texture, whose hidden
    texels are completed, elsewhere. Eyes and the mouth's inside are the photograph's.
    """
    window = drawing.window
    photographed = fetch(source.pixels, window.enlarged(drawing.source))
    seen = np.maximum(seen_of(skin, drawing), np.maximum(drawing.eyes, drawing.mouth))
    if seen[drawing.inside > 0].min(initial=1) > ALL_SEEN:
        return photographed
    # What was completed has no detail that the grid of cells would lose.
    picture = np.asarray(cv2.merge(list(skin.texture)), np.uint8)
    painted = window.enlarged(fetch(picture, texels(drawing, len(picture))))
    share = window.enlarged(seen)
    return np.asarray(cv2.blendLinear(photographed, painted, share, 1 - share), np.float32)


def texels(drawing: Drawing, side: int) -> F32:
    """Column and row of a texture for each cell."""
    return np.asarray(np.stack([drawing.uv[..., 0] * side - 0.5, (1 - drawing.uv[..., 1]) * side - 0.5], 2), np.float32)


def seen_of(skin: Skin, drawing: Drawing) -> F32:
    """How much of each cell the source's photograph shows as skin, float32 [rows, columns] 0..1."""
    x, y = cv2.split(texels(drawing, len(skin.visibility[0])))
    found = cv2.remap(cv2.blur(skin.visibility[0], (5, 5)), x, y, cv2.INTER_LINEAR)
    return np.asarray(found, np.float32) / 255


def share_of(photograph: Photograph, part: int, places: F32) -> F32:
    """Probability of one of the parser's parts, 0..1, at places [rows, columns, 2] of a photograph's picture."""
    rows, columns = places.shape[:2]
    crop = photograph.to_crop(places.reshape(-1, 2)).reshape(rows, columns, 2)
    side = photograph.parts.shape[1]
    moved = (crop + 0.5) * (side / 224) - 0.5
    x, y = cv2.split(moved)
    found = cv2.remap(photograph.parts[part], x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(found, np.float32) / 255


def _apart(places: F32) -> float:
    """How many pixels of a picture lie between two neighbouring places, the median."""
    steps = np.hypot(*np.moveaxis(np.diff(places[::4], axis=1)[:, ::4], 2, 0))
    return float(np.median(steps)) if steps.size else 1.0
