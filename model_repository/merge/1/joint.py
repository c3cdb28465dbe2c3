"""What regressor and embedder say together about an identity; see `networks/joint_identity.py`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from identities import IDENTITY, Person
from numpy.typing import NDArray

F32 = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Joint:
    """An affine map from identity and embedding to what the identity lacks, and the modes that it moves.

    Attributes:
        middle: float32 [80 + D]. matrix: float32 [80 + D, 80]. offset: float32 [80].
        embedder: fingerprint of the embedder that it belongs to.
        path: chart.npz.
    """

    middle: F32
    matrix: F32
    offset: F32
    embedder: int
    path: Path

    @classmethod
    def from_file(cls, path: Path) -> Joint | None:
        """Read it out of chart.npz; None where the export found none for these weights."""
        with np.load(path, allow_pickle=False) as data:
            if "joint_matrix" not in data.files:
                return None
            return cls(
                middle=data["joint_middle"],
                matrix=data["joint_matrix"],
                offset=data["joint_offset"],
                embedder=int(data["joint_embedder"][0]),
                path=path,
            )

    @cached_property
    def modes(self) -> F32:
        """float32 [80, N, 3], decimetres; 22 MB that are read (0.2 s) when the first person is joined."""
        with np.load(self.path, allow_pickle=False) as data:
            return np.asarray(data["modes"] * data["modes_step"][0], np.float32)

    def change(self, person: Person, embeddings: F32, embedder: NDArray[Any], certainty: F32) -> F32:
        """What to add to an identity: float32 [80]; nothing where other weights are served than it was made for.

        Args:
            person: K photographs, joined.
            embeddings: float32 [K, D].
            embedder: int64 [K, 1], fingerprint of the embedder.
            certainty: float32 [K], of the identity; 0 from a regressor that none of the tables here belongs to.
        """
        identity = person.coefficients[0, IDENTITY]
        fits = (embedder == self.embedder).all() and embeddings.shape[1] + len(identity) == len(self.middle)
        if not fits or not (certainty > 0).all():
            return np.zeros_like(identity)
        values = np.concatenate([identity, person.weights @ embeddings])
        return np.asarray((values - self.middle) @ self.matrix + self.offset, np.float32)
