"""The chart of the face model that this version belongs to: which place of the skin lies under a texel."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from merge_refusals import Refused
from numpy.typing import NDArray

F32 = NDArray[np.float32]
DISTANCE = 10.0  # decimetres from the camera to the origin


@dataclass(frozen=True, eq=False)
class Chart:
    """Tables of T x T texels over the S vertices of the skin, row 0 at v = 1.

    Attributes:
        skin: int32 [S], the face model's vertices.
        triangles: int32 [F, 3], of the skin.
        corners: int32 [T * T, 3], vertices of the skin around each texel.
        bary: float32 [T * T, 3], their barycentric weights.
        core: float32 [T, T], 0..1: the middle of the face.
        landmarks: int32 [68], vertices of the face model.
        vertices: of the face model, N.
        fingerprint: of the face model; the regressor's has to be the same.
    """

    skin: NDArray[np.int32]
    triangles: NDArray[np.int32]
    corners: NDArray[np.int32]
    bary: F32
    core: F32
    landmarks: NDArray[np.int32]
    vertices: int
    fingerprint: int

    @classmethod
    def from_file(cls, path: Path) -> Chart:
        """Read chart.npz, which the export writes."""
        with np.load(path, allow_pickle=False) as data:
            return cls(
                skin=data["skin"],
                triangles=data["triangles"],
                corners=data["corners"],
                bary=data["bary"],
                core=data["core"],
                landmarks=data["landmarks"],
                vertices=int(data["vertices"][0]),
                fingerprint=int(data["fingerprint"][0]),
            )

    @property
    def side(self) -> int:
        """Texels a side, T."""
        return len(self.core)

    def check(self, shapes: NDArray[Any], fingerprints: NDArray[Any]) -> None:
        """See that shapes [K, 3, N, 3] are of this face model.

        Raises:
            Refused: ``FaceModelMismatch``.
        """
        if shapes.shape[2] != self.vertices or (fingerprints != self.fingerprint).any():
            raise Refused(
                "FaceModelMismatch",
                "the regressor and `merge` belong to different face models: export both again (python -m export all).",
            )

    def facing(self, posed: F32) -> F32:
        """Cosine between the skin's normal and the line to the camera at each texel.

        Args:
            posed: float32 [N, 3], decimetres, camera frame.

        Returns:
            float32 [T, T], -1..1.
        """
        skin = posed[self.skin]
        a, b, c = (skin[corner] for corner in self.triangles.T)
        normals = np.zeros_like(skin)
        faces = np.cross(b - a, c - a)
        for corner in self.triangles.T:
            for axis in range(3):
                normals[:, axis] += np.bincount(corner, faces[:, axis], len(skin))
        away = np.array([0, 0, DISTANCE], np.float32) - skin
        lengths = np.linalg.norm(normals, axis=1) * np.linalg.norm(away, axis=1)
        cosine = (normals * away).sum(1) / np.maximum(lengths, 1e-12)
        texels = (cosine[self.corners] * self.bary).sum(1)
        return np.asarray(texels.reshape(self.side, self.side), np.float32)
