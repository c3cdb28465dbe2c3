"""Tables from the texels of a skin to the face model: positions and normals of a shape, laid out as the texture."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Texels:
    """Tables of t x t texels; row 0 is v = 1.

    Attributes:
        vertex: int32 [t * t, 3], the vertices around each texel.
        weight: float32 [t * t, 3], their barycentric weights.
        albedo: uint8 [t, t, 3], sRGB: colours of the mean person without light.
        plain: float32 [t, t], 0..1: skin that is no lid, lip, brow, nostril, and no inside of mouth or socket.
    """

    vertex: NDArray[np.int32]
    weight: F32
    albedo: U8
    plain: F32

    @classmethod
    def from_arrays(cls, data: Mapping[str, Any]) -> Texels:
        """Take the tables out of the arrays of ``topology.npz``."""
        return cls(
            np.ascontiguousarray(data["texel_vertex"], np.int32),
            np.ascontiguousarray(data["texel_weight"], np.float32),
            np.ascontiguousarray(data["texel_albedo"], np.uint8),
            data["texel_plain"].astype(np.float32) / 255,
        )

    @property
    def side(self) -> int:
        """Texels a side, t."""
        return math.isqrt(len(self.vertex))

    def of(self, values: F32) -> F32:
        """Interpolate values [N, c] of the vertices: float32 [t, t, c]."""
        found = values[self.vertex[:, 0]] * self.weight[:, :1]
        for corner in (1, 2):
            found += values[self.vertex[:, corner]] * self.weight[:, corner : corner + 1]
        return np.asarray(found.reshape(self.side, self.side, -1), np.float32)

    def normals(self, normals: F32) -> F32:
        """Interpolate unit normals [N, 3] of the vertices: float32 [t, t, 3], unit."""
        found = self.of(normals)
        return np.asarray(found / (np.linalg.norm(found, axis=-1, keepdims=True) + 1e-9), np.float32)
