"""What a photograph shows of the texture: where each texel lies in it, and its colours there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import cv2
import numpy as np
from enhancing import Enhance, enhanced
from numpy.typing import NDArray

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]

# Sides of the crops that the networks see, and of the texture that is made of the larger one.
CROP, CROP_HD, USUAL_TEXTURE = 224, 512, 1024
# Side of the texture of a face of few pixels, and source pixels for one of the larger crop up to which a face is one: a
# texel of 512 covers fewer than one of the source then. The texture network has the same rule.
SMALL_TEXTURE, COARSE = 512, 0.75
# Pixels of the crop for one of the photograph up to which the enhancement network has learned to enlarge.
MOST_ENLARGED = 3.0
# Rows of a texture that are worked on at a time, so that beside it only bytes are kept of it.
STRIP = 128
# How much of a texel has to be seen for it to count.
LEAST = 1 / 255
# Pixels of the crop around what is seen of it that are enhanced with it.
AROUND = 8
# Texels of the table around what is seen that its colours reach: by enlarging and by sharpening.
RIM = 3
# Sides of a texture that the photograph limits are multiples of this.
SIDE_STEP = 128


@dataclass(frozen=True)
class Photograph:
    """The photograph of a face, as seen from its texture.

    Attributes:
        places: float32 [4, t, t], of the table's texels: column and row in the 224 px crop; how much of it the camera
            sees, 0..1; how much of it is seen skin, 0..1.
        pixels: uint8 [h, w, 3] RGB.
        scale, shift: float64 [2], from places in the 224 px crop (x, y) to places in ``pixels``.
        gain: how much finer than the 512 px crop ``pixels`` are; 1 for the crop itself.
        coarse: the crop was enlarged from so few pixels that a texture of `SMALL_TEXTURE` holds all of them.
        photographed: pixels of the photograph for one of the 512 px crop.
    """

    places: F32
    pixels: U8
    scale: NDArray[np.float64]
    shift: NDArray[np.float64]
    gain: float = 1.0
    coarse: bool = False
    photographed: float = 1.0

    @classmethod
    def of(cls, places: F32, context: F32, crop_hd: U8, close_up: U8, close_up_camera: F32) -> Photograph:
        """Take the close-up where there is one, else the crop; the arguments are the tensors of these names."""
        cameras = context[15:].astype(np.float64).reshape(4, 2)
        if close_up_camera[:2].min() > 0:
            pixels, (large, large_at) = close_up, close_up_camera.astype(np.float64).reshape(2, 2)
        else:
            pixels, (large, large_at) = np.asarray(cv2.merge(list(crop_hd)), np.uint8), cameras[2:]
        scale, shift = cameras[0] / large, (cameras[1] - large_at) / large
        finest = float(cameras[2].max())
        return cls(places, pixels, scale, shift, float((cameras[2] / large).min()), finest <= COARSE, finest)

    @property
    def side(self) -> int:
        """Texels a side of the table, t."""
        return self.places.shape[-1]

    @property
    def largest_texture(self) -> int:
        """Side of the largest texture that the photograph has the pixels for, at least `SMALL_TEXTURE`."""
        if self.coarse:
            return SMALL_TEXTURE
        return max(USUAL_TEXTURE, int(self.gain * USUAL_TEXTURE * 1.02) // SIDE_STEP * SIDE_STEP)

    def sampled(self, side: int, rows: slice, columns: slice = slice(None)) -> U8:
        """Colours of a part of a texture of ``side`` texels: uint8 [rows, columns, 3], black beyond the photograph."""
        across, down = (_part(plane, side, rows, columns) for plane in self._in_pixels)
        return np.asarray(
            cv2.remap(self.pixels, across, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT), np.uint8
        )

    def seen(self, side: int, rows: slice) -> F32:
        """How much of the texels of these rows is skin of the photograph: float32 [rows, side], 0..1."""
        return _part(self.places[3], side, rows)

    def spread(self, table: F32, side: int, rows: slice, columns: slice = slice(None)) -> F32:
        """A map of the table [t, t] at these texels of a texture of ``side``: float32 [rows, columns]."""
        return _part(table, side, rows, columns)

    def at_table(self, picture: F32) -> F32:
        """Sample a picture of the 224 px crop, float32 [h, w] or [h, w, c] of any size, at the table's texels."""
        ratio = picture.shape[0] / CROP
        columns, rows = ((plane + np.float32(0.5)) * np.float32(ratio) - np.float32(0.5) for plane in self.places[:2])
        return np.asarray(cv2.remap(picture, columns, rows, cv2.INTER_LINEAR), np.float32)

    def upscaled(self, enhance: Enhance) -> Photograph:
        """Enhance the seen skin of a coarse crop, which is good for a texture of `USUAL_TEXTURE` then; others stay."""
        columns, rows = (self.places[k][self.places[3] > LEAST] * self.scale[k] + self.shift[k] for k in range(2))
        if not self.coarse or not len(columns):
            return self
        limits = np.array(self.pixels.shape[1::-1])
        left, top = np.clip(np.floor([columns.min(), rows.min()]).astype(int) - AROUND, 0, limits - 1)
        right, bottom = np.clip(np.ceil([columns.max(), rows.max()]).astype(int) + AROUND, (left + 1, top + 1), limits)
        part = self.pixels[top:bottom, left:right]
        smaller = min(1.0, MOST_ENLARGED * self.photographed)
        size = tuple(max(1, round(side * smaller)) for side in part.shape[1::-1])
        small = part if smaller == 1 else np.asarray(cv2.resize(part, size, interpolation=cv2.INTER_AREA), np.uint8)
        better = enhanced(np.ascontiguousarray(small), enhance)
        pixels = self.pixels.copy()
        pixels[top:bottom, left:right] = cv2.resize(better, part.shape[1::-1], interpolation=cv2.INTER_CUBIC)
        return replace(self, pixels=pixels, coarse=False)

    @cached_property
    def _in_pixels(self) -> tuple[F32, F32]:
        """Columns and rows of the table's texels in ``pixels``: float32 [t, t] each."""
        columns, rows = (
            plane * np.float32(scale) + np.float32(shift)
            for plane, scale, shift in zip(self.places[:2], self.scale, self.shift, strict=True)
        )
        return columns, rows


def _part(table: F32, side: int, rows: slice, columns: slice = slice(None)) -> F32:
    """Interpolate a part of a texture of ``side`` texels from a map [t, t]: as enlarging it by bilinear interpolation.

    Returns:
        float32 [rows, columns].
    """
    count = len(table)
    if side % count == 0:
        return _enlarged(table, side // count, rows, columns)
    at = np.clip((np.arange(rows.start, rows.stop) + 0.5) * (count / side) - 0.5, 0, count - 1)
    low = at.astype(np.intp)
    share = (at - low).astype(np.float32)[:, None]
    near = table[low[0] : low[-1] + 2]
    wide = cv2.resize(near, (side, len(near)), interpolation=cv2.INTER_LINEAR)[:, columns]
    low -= low[0]
    below, above = wide[low], wide[np.minimum(low + 1, len(wide) - 1)]
    above = above - below
    above *= share
    above += below
    return np.ascontiguousarray(above)


def _enlarged(table: F32, scale: int, rows: slice, columns: slice) -> F32:
    """A part of a map [t, t] that is enlarged by a whole number, in OpenCV's one step: of few more texels than that."""
    read, kept = [], []
    for part in (rows, columns):
        first, last, _ = part.indices(scale * len(table))
        low, high = max(0, first // scale - 1), min(len(table), -(-last // scale) + 1)
        read.append(slice(low, high))
        kept.append(slice(first - low * scale, last - low * scale))
    near = table[tuple(read)]
    size = (near.shape[1] * scale, near.shape[0] * scale)
    return np.ascontiguousarray(cv2.resize(near, size, interpolation=cv2.INTER_LINEAR)[tuple(kept)], np.float32)


def box_of(seen: F32) -> tuple[tuple[float, float], tuple[float, float]] | None:
    """Rows and columns, as shares of the side, around what is seen of a table [t, t] or of its mirror image, and a rim.

    None where nothing is seen.
    """
    side, used = len(seen), seen > LEAST
    rows, columns = (np.flatnonzero(used.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return None
    left = max(0, min(int(columns[0]), side - 1 - int(columns[-1])) - RIM)
    top, bottom = max(0, int(rows[0]) - RIM), min(side, int(rows[-1]) + 1 + RIM)
    return (top / side, bottom / side), (left / side, 1 - left / side)


def strips(side: int) -> Iterator[slice]:
    """The rows of a texture, some at a time."""
    for first in range(0, side, STRIP):
        yield slice(first, min(first + STRIP, side))


def enlarged(texture: U8, photograph: Photograph, side: int) -> U8:
    """Enlarge a texture and add what the photograph shows finer than it: on both sides where one is seen.

    Args:
        texture: uint8 [1024, 1024, 3] RGB, with the photograph's colours at the 512 px crop's fineness where it is
            seen.
        photograph: finer than that crop.
        side: of the result.

    Returns:
        uint8 [side, side, 3].
    """
    result = np.asarray(cv2.resize(texture, (side, side), interpolation=cv2.INTER_CUBIC), np.uint8)
    for rows in strips(side):
        seen = photograph.seen(side, rows)
        used = (seen > LEAST).any(axis=0)
        used |= used[::-1]
        if not used.any():
            continue
        left = int(used.argmax())
        columns = slice(left, side - left)
        below, share = result[rows, columns], seen[:, columns]
        own = cv2.blendLinear(photograph.sampled(side, rows, columns), below, share, 1 - share)
        fine = cv2.subtract(own, below, dtype=cv2.CV_16S)
        mirrored = cv2.multiply(cv2.flip(fine, 1), cv2.merge([1 - share] * 3), dtype=cv2.CV_32F)
        result[rows, columns] = cv2.add(own, mirrored, dtype=cv2.CV_8U)
    return result
