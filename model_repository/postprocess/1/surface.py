"""The triangles and texture coordinates of the face model that this version belongs to."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from options import Refused

F32 = NDArray[np.float32]
I32 = NDArray[np.int32]


@dataclass(frozen=True)
class Surface:
    """The part of a face model that does not change from face to face: N vertices, F triangles.

    Attributes:
        triangles: int32 [F, 3], counter-clockwise seen from outside.
        uv: float32 [N, 2] in 0..1, v up.
        fingerprint: of the face model; the regressor's has to be the same.
        name: of the face model.
    """

    triangles: I32
    uv: F32
    fingerprint: int
    name: str

    @classmethod
    def from_file(cls, path: Path) -> Surface:
        """Read ``topology.npz``, which export writes beside this file.

        Raises:
            ValueError: triangles that name vertices which are not there, or texture coordinates outside of 0..1.
        """
        with np.load(path, allow_pickle=False) as file:
            triangles = np.ascontiguousarray(file["triangles"], np.int32)
            uv = np.ascontiguousarray(file["uv"], np.float32)
            surface = cls(triangles, uv, int(file["fingerprint"].reshape(-1)[0]), str(file["name"]))
        if triangles.min() < 0 or triangles.max() >= len(uv):
            raise ValueError(f"{path.name}: triangles name vertices that are not there: run the export again")
        if uv.min() < 0 or uv.max() > 1:
            raise ValueError(f"{path.name}: texture coordinates are not within 0..1: run the export again")
        return surface

    def check(self, fingerprint: int, vertices: int) -> None:
        """See that vertices come from this face model.

        Raises:
            Refused: ``FaceModelMismatch``.
        """
        if fingerprint != self.fingerprint or vertices != len(self.uv):
            raise Refused(
                "FaceModelMismatch",
                f"the regressor speaks another face model ({_hex(fingerprint)}, {vertices} vertices) than this version "
                f"of postprocess ({self.name}, {_hex(self.fingerprint)}, {len(self.uv)} vertices): "
                "publish both from the same export.",
            )

    def normals(self, vertices: F32) -> F32:
        """Unit normals [N, 3]: the sum of those of the triangles around a vertex, weighted by their area.

        A vertex without a triangle looks along z.
        """
        # Coordinate by coordinate: an axis of three inside every operation would take most of the time.
        a, b, c = np.moveaxis(np.ascontiguousarray(vertices.T)[:, self._corners], 1, 0)
        (px, py, pz), (qx, qy, qz) = b - a, c - a
        faces = (py * qz - pz * qy, pz * qx - px * qz, px * qy - py * qx)
        sums = np.zeros((3, len(vertices)))
        for total, part in zip(sums, faces, strict=True):
            for corner in self._corners:
                total += np.bincount(corner, part, len(vertices))
        lengths = np.sqrt((sums * sums).sum(axis=0))
        lonely = lengths < 1e-12
        sums[:, lonely] = [[0], [0], [1]]
        lengths[lonely] = 1
        return np.ascontiguousarray((sums / lengths).T, np.float32)

    @cached_property
    def _corners(self) -> NDArray[np.intp]:
        """The triangles as intp [3, F]."""
        return np.ascontiguousarray(self.triangles.T, np.intp)


def _hex(fingerprint: int) -> str:
    return f"{fingerprint & (2**64 - 1):016x}"
