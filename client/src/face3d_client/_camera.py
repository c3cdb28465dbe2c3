"""The camera of a reconstruction: projection of millimetres to pixels of the photograph."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["Camera"]

_FOCAL: Final = 1015.0  # pixels of the 224 crop
_CENTRE: Final = 112.0
_CROP: Final = 224
_DISTANCE: Final = 1000.0  # mm from the camera to the origin


@dataclass(frozen=True, eq=False)
class Camera:
    """From posed millimetres to pixels of the photograph.

    The camera looks along -z from 1000 mm: with x, y, z in mm, ``u = 1015 x / (1000 - z) + 112`` and
    ``v = 1015 y / (1000 - z) + 112`` in a crop of 224 pixels, whose column is u and row 223 - v; a scale and an
    offset take the crop to the source. Pixel centres are at integers; the source is the EXIF-rotated photograph at
    its full size.

    Attributes:
        numbers: float32 (8,): sx, sy, ox, oy of the 224 crop, then of the 512 crop: source x = column * sx + ox,
            source y = row * sy + oy.
    """

    numbers: NDArray[np.float32]

    def __post_init__(self) -> None:
        if self.numbers.shape != (8,):
            raise ValueError(f"a camera has 8 numbers, not an array of shape {self.numbers.shape}")

    @cached_property
    def matrix(self) -> NDArray[np.float64]:
        """float64 (3, 4): ``[x w, y w, w] = matrix @ [X, Y, Z, 1]``, posed mm to source pixels."""
        sx, sy, ox, oy = (float(value) for value in self.numbers[:4])
        centre_x = _CENTRE * sx + ox
        centre_y = (_CROP - 1 - _CENTRE) * sy + oy
        return np.array(
            [
                [_FOCAL * sx, 0, -centre_x, centre_x * _DISTANCE],
                [0, -_FOCAL * sy, -centre_y, centre_y * _DISTANCE],
                [0, 0, -1, _DISTANCE],
            ]
        )

    def project(self, points: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Project points in space into the photograph.

        Args:
            points: (..., 3) in mm, in the frame of `Reconstruction.vertices`.

        Returns:
            float64 (..., 2): x, y in source pixels.
        """
        homogeneous = np.asarray(points, np.float64) @ self.matrix[:, :3].T + self.matrix[:, 3]
        pixels: NDArray[np.float64] = homogeneous[..., :2] / homogeneous[..., 2:]
        return pixels

    def distance(self, points: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Measure how far points (..., 3) in mm, in the frame of `Reconstruction.vertices`, lie before the camera."""
        away: NDArray[np.float64] = _DISTANCE - np.asarray(points, np.float64)[..., 2]
        return away

    def crop_to_source(self, pixels: NDArray[np.floating[Any]], crop: Literal[224, 512] = 224) -> NDArray[np.float64]:
        """Convert pixels (..., 2) (column, row) of one of the two crops to source pixels (..., 2)."""
        numbers = self.numbers[:4] if crop == 224 else self.numbers[4:]
        source: NDArray[np.float64] = np.asarray(pixels, np.float64) * numbers[:2] + numbers[2:]
        return source
