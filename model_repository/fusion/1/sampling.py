"""Colours of photographs and textures at places that a drawing names."""

from __future__ import annotations

import cv2
import numpy as np
from drawing import Drawing
from numpy.typing import NDArray
from photographs import Photograph

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]


def fetch(pixels: U8, places: F32) -> F32:
    """Colours of a picture uint8 [h, w, 3] at places float32 [rows, columns, 2]: float32 [rows, columns, 3], 0..255.

    A picture that is finer than the places are apart is made smaller first, so that nothing flickers or is lost.
    """
    apart = _apart(places)
    low = np.floor(places.reshape(-1, 2).min(axis=0)).astype(int) - 4
    high = np.ceil(places.reshape(-1, 2).max(axis=0)).astype(int) + 5
    x0, y0 = np.clip(low, 0, np.array(pixels.shape[1::-1]) - 1)
    x1, y1 = np.clip(high, 1, pixels.shape[1::-1])
    part = pixels[y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)]
    moved = places - np.array([x0, y0], np.float32)
    if apart > 1.3:
        width, height = (max(1, round(side / apart)) for side in part.shape[1::-1])
        ratio = np.array([part.shape[1] / width, part.shape[0] / height], np.float32)
        part = np.asarray(cv2.resize(part, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
        moved = (moved + 0.5) / ratio - 0.5
    x, y = np.ascontiguousarray(moved[..., 0]), np.ascontiguousarray(moved[..., 1])
    how = cv2.INTER_CUBIC if apart <= 1.3 else cv2.INTER_LINEAR
    return np.asarray(cv2.remap(part, x, y, how, borderMode=cv2.BORDER_REPLICATE), np.float32)


def skin_of(source: Photograph, texture: U8, visibility: U8, drawing: Drawing) -> F32:
    """The source's skin where the drawing shows it, float32 [height, width, 3] 0..255, at the target's resolution.

    Taken from the photograph where that shows it, as it is finer than the texture, and from the texture, whose hidden
    texels are completed, elsewhere.

    Args:
        source: the photograph.
        texture: uint8 [3, 1024, 1024].
        visibility: uint8 [1, 1024, 1024], 255 where the photograph shows skin.
        drawing: where it is drawn.
    """
    window = drawing.window
    places = window.enlarged(drawing.source)
    seen = window.enlarged(seen_of(visibility, drawing))[..., None]
    photographed = fetch(source.pixels, places)
    if seen.min() > 0.999:
        return photographed
    painted = fetch(
        np.ascontiguousarray(texture.transpose(1, 2, 0)), window.enlarged(texels(drawing, texture.shape[1]))
    )
    return np.asarray(painted + seen * (photographed - painted), np.float32)


def texels(drawing: Drawing, side: int) -> F32:
    """Column and row of a texture for each cell."""
    return np.asarray(np.stack([drawing.uv[..., 0] * side - 0.5, (1 - drawing.uv[..., 1]) * side - 0.5], 2), np.float32)


def seen_of(visibility: U8, drawing: Drawing) -> F32:
    """How much of each cell the source's photograph shows as skin, float32 [rows, columns] 0..1."""
    x, y = np.moveaxis(texels(drawing, visibility.shape[1]), 2, 0)
    smooth = cv2.blur(visibility[0], (5, 5))
    found = cv2.remap(smooth, np.ascontiguousarray(x), np.ascontiguousarray(y), cv2.INTER_LINEAR)
    return np.asarray(found, np.float32) / 255


def share_of(photograph: Photograph, part: int, places: F32) -> F32:
    """Probability of one of the parser's parts, 0..1, at places [rows, columns, 2] of a photograph's picture."""
    rows, columns = places.shape[:2]
    crop = photograph.to_crop(places.reshape(-1, 2)).reshape(rows, columns, 2)
    side = photograph.parts.shape[1]
    moved = (crop + 0.5) * (side / 224) - 0.5
    x, y = np.ascontiguousarray(moved[..., 0]), np.ascontiguousarray(moved[..., 1])
    found = cv2.remap(photograph.parts[part], x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(found, np.float32) / 255


def _apart(places: F32) -> float:
    """How many pixels of a picture lie between two neighbouring places, the median."""
    steps = np.hypot(*np.moveaxis(np.diff(places[::4], axis=1)[:, ::4], 2, 0))
    return float(np.median(steps)) if steps.size else 1.0
