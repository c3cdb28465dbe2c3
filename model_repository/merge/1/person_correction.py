"""What photographs from the front and from the sides say together; see `networks/person_correction.py`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from identities import ANGLES, IDENTITY, Lacking
from numpy.typing import NDArray

F32 = NDArray[np.float32]

FRONTAL, TURNED = np.radians([12.0, 28.0])
"""Yaw up to which a photograph is frontal, and from which on it is turned; between them it is both in part. The map was
learned from 0 and 40 degrees, each with a standard deviation of 6."""
FEW, ENOUGH = 0.05, 0.15
"""Part that frontal and that turned photographs have in the identity, each: below the first they say nothing together,
from the second on all of it. A frontal photograph and one from a side have 0.4 and 0.6."""


@dataclass(frozen=True, eq=False)
class PersonCorrection:
    """An affine map to what the joined identity lacks, and the modes that it moves.

    Attributes:
        matrix: float32 [80 + 80 + D + D, 80], of the frontal and the turned identity, and of the embeddings of both.
        offset: float32 [80].
        embedder: fingerprint of the embedder that it belongs to.
        modes: float32 [80, N, 3], decimetres.
    """

    matrix: F32
    offset: F32
    embedder: int
    modes: F32

    @classmethod
    def from_file(cls, path: Path) -> PersonCorrection | None:
        """Read it out of chart.npz; None where the export found none for these weights."""
        with np.load(path, allow_pickle=False) as data:
            if "person_matrix" not in data.files:
                return None
            return cls(
                data["person_matrix"],
                data["person_offset"],
                int(data["person_embedder"][0]),
                data["modes"] * data["modes_step"][0],
            )

    def lacking(
        self, coefficients: F32, weights: F32, embeddings: F32, embedder: NDArray[Any], certainty: F32
    ) -> Lacking | None:
        """Say what the joined identity of K photographs lacks.

        Args:
            coefficients: float32 [K, 257].
            weights: float32 [K], each photograph's part in the identity, 1 together.
            embeddings: float32 [K, D].
            embedder: int64 [K, 1], fingerprint of the embedder.
            certainty: float32 [K], of the identity; 0 from a regressor that none of the tables here belongs to.

        Returns:
            None where other weights are served than it was made for, or all photographs show one side.
        """
        size = 2 * (len(self.offset) + embeddings.shape[1])
        if not (embedder == self.embedder).all() or size != len(self.matrix) or not (certainty > 0).all():
            return None
        turn = (np.abs(coefficients[:, ANGLES][:, 1]) - FRONTAL) / (TURNED - FRONTAL)
        turned = weights * np.clip(turn, 0, 1)
        parts = np.stack([weights - turned, turned])
        share = np.clip((parts.sum(1).min() - FEW) / (ENOUGH - FEW), 0, 1)
        if share == 0:
            return None
        parts /= parts.sum(1, keepdims=True)
        values = np.concatenate([(parts @ coefficients[:, IDENTITY]).ravel(), (parts @ embeddings).ravel()])
        change = np.asarray((values @ self.matrix + self.offset) * share, np.float32)
        return Lacking(change, np.tensordot(change, self.modes, 1))
