"""One photograph as the networks saw it: its pixels, its camera, its head."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from region import Region

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]

# The camera of the face model's family: 10 dm before the origin, focal length 1015 and centre 112 in pixels of 224.
DISTANCE, FOCAL, CENTRE, CROP = 10.0, 1015.0, 112.0, 224


@dataclass(frozen=True)
class Photograph:
    """A photograph and the head in it.

    Attributes:
        pixels: uint8 [h, w, 3], sRGB, the whole picture.
        ratio: (x, y), source pixels for one pixel of ``pixels``.
        shapes: float32 [3, N, 3] decimetres: posed in the camera frame, in the head frame, in the head frame neutral.
        context: float32 [23], face and camera of `align`.
        parts: uint8 [3, 128, 128], probabilities of skin, hair and other over the crop.
    """

    pixels: U8
    ratio: tuple[float, float]
    shapes: F32
    context: F32
    parts: U8

    def project(self, posed: F32) -> F32:
        """Camera-frame points (n, 3), decimetres, -> (n, 2) column and row of ``pixels``.

        The pinhole camera of Deep3DFaceRecon, then `align`'s way from its crop to the picture.
        """
        depth = DISTANCE - posed[:, 2]
        columns = FOCAL * posed[:, 0] / depth + CENTRE
        rows = CROP - 1 - (FOCAL * posed[:, 1] / depth + CENTRE)
        return self.from_crop(np.stack([columns, rows], axis=1))

    def from_crop(self, points: F32) -> F32:
        """Column and row of the 224 px crop, (n, 2), -> of ``pixels``."""
        scale, origin = self._crop
        return np.asarray(points * scale + origin, np.float32)

    def to_crop(self, points: F32) -> F32:
        """Column and row of ``pixels``, (n, 2), -> of the 224 px crop."""
        scale, origin = self._crop
        return np.asarray((points - origin) / scale, np.float32)

    def rays(self, points: F32) -> F32:
        """Directions (n, 3), camera frame, in which pixels (n, 2) of ``pixels`` lie; the camera stands at z = 10."""
        column, row = self.to_crop(points).T
        towards = [(column - CENTRE) / FOCAL, (CROP - 1 - row - CENTRE) / FOCAL, np.full_like(column, -1)]
        return np.ascontiguousarray(np.stack(towards, axis=1), np.float32)

    def yaw(self, region: Region) -> float:
        """Turn of the head to the side in degrees: that of the line between two places that mirror each other."""
        places = self.shapes[:2, region.vertex]
        x = places[1, :, 0]
        across = places[0, int(x.argmax())] - places[0, int(x.argmin())]
        return float(np.degrees(np.arctan2(across[2], across[0])))

    def covered_share(self, points: F32) -> float:
        """Share of pixels (n, 2) of ``pixels`` where the parser sees something else than skin."""
        side = self.parts.shape[1]
        column, row = np.clip(self.to_crop(points) * (side / CROP), 0, side - 1).astype(int).T
        return float((self.parts[0, row, column] < 128).mean())

    @property
    def _crop(self) -> tuple[F32, F32]:
        sx, sy, ox, oy = self.context[15:19].astype(np.float64)
        rx, ry = self.ratio
        origin = [(ox + 0.5) / rx - 0.5, (oy + 0.5) / ry - 0.5]
        return np.array([sx / rx, sy / ry], np.float32), np.array(origin, np.float32)
