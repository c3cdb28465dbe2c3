"""The face in the photograph's own pixels, for textures that the 512 px crop is too small for.

The crop is resampled, to whole pixels of its own; here the part of the picture that it shows is cut out as it is, and
only made smaller where the texture that is asked for cannot hold it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]

CROP_HD = 512
# Side of the texture that is made of the 512 px crop; larger ones have as many pixels of the photograph a texel.
USUAL_TEXTURE = 1024
# A close-up is so much finer than that: the 512 px crop has half a pixel a texel.
FINER = 1.5
# How much finer than the crop the photograph has to be: less is not to be seen.
LEAST_GAIN = 1.1


class CloseUp(NamedTuple):
    """A part of the picture: uint8 [h, w, 3] RGB, and its camera, float32 [4].

    The camera is scale x, y and origin x, y: source_x = column * sx + ox. Without a close-up it is zeros, and the
    pixels are one black one.
    """

    pixels: U8
    camera: F32


NONE = CloseUp(np.zeros((1, 1, 3), np.uint8), np.zeros(4, np.float32))


def close_up(picture: U8, ratio: tuple[float, float], crop: Sequence[float], texture_size: int) -> CloseUp:
    """Cut out what the 512 px crop shows, if the picture shows more of it and the texture has room for that.

    Args:
        picture: uint8 [h, w, 3] RGB.
        ratio: (x, y) source pixels per pixel of ``picture``.
        crop: camera of the 512 px crop: scale x, y and origin x, y in source pixels.
        texture_size: side of the texture that is asked for.

    Returns:
        the close-up, or `NONE`.
    """
    wanted = np.array(crop[:2]) * (USUAL_TEXTURE / texture_size / FINER)  # source pixels for one of the close-up
    step = np.maximum(wanted / ratio, 1.0)  # pixels of the picture for one of the close-up
    if texture_size <= USUAL_TEXTURE or (np.array(crop[:2]) < LEAST_GAIN * step * ratio).any():
        return NONE
    # Pixels of the picture, borders and not centres.
    first = (np.array(crop[2:]) - 0.5 * np.array(crop[:2]) + 0.5) / ratio
    last = first + CROP_HD * np.array(crop[:2]) / ratio
    left, top = np.clip(np.floor(first), 0, None).astype(int)
    right, bottom = np.clip(np.ceil(last), None, picture.shape[1::-1]).astype(int)
    if right <= left or bottom <= top:
        return NONE
    part = picture[top:bottom, left:right]
    size = np.maximum(1, np.round((right - left, bottom - top) / step)).astype(int)
    scale = (right - left, bottom - top) / size
    if (scale > 1).any():
        pixels = np.asarray(cv2.resize(part, (int(size[0]), int(size[1])), interpolation=cv2.INTER_AREA), np.uint8)
    else:
        pixels = np.ascontiguousarray(part)
    origin = ((left, top) + 0.5 * scale) * ratio - 0.5
    return CloseUp(pixels, np.concatenate([scale * ratio, origin]).astype(np.float32))
