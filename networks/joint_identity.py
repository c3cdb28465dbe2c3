"""What the regressor's identity and the embedder's vector of a person say together about the identity.

The regressor makes much the same error in every photograph of a person, so that a mean over photographs keeps it. The
embedder sees other things: the best linear guess from both is a ridge regression over exact heads
(`training.joint_identity`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import safe_open

from networks.certainty import digest

FILE = "joint_identity.safetensors"  # beside the regressor's file, whose digest stands in its metadata
F32 = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class JointIdentity:
    """An affine map: change = (values - middle) @ matrix + offset.

    Attributes:
        middle: float32 (80 + D,), the mean of identity coefficients and embedding.
        matrix: float32 (80 + D, 80).
        offset: float32 (80,).
        embedder: fingerprint of the embedder that it was fitted with.
        face_model: fingerprint of the face model whose coefficients these are.
    """

    middle: F32
    matrix: F32
    offset: F32
    embedder: int
    face_model: int

    def __call__(self, identity: npt.NDArray[np.floating[Any]], embedding: npt.NDArray[np.floating[Any]]) -> F32:
        """Compute what to add to identities (n, 80), given embeddings (n, D)."""
        values = np.concatenate([identity, embedding], 1, dtype=np.float32)
        return np.asarray((values - self.middle) @ self.matrix + self.offset, np.float32)

    @classmethod
    def beside(cls, regressor: Path) -> JointIdentity | None:
        """Read the file that lies beside a regressor's; None where there is none, or it belongs to other weights.

        Raises:
            OSError, SafetensorError: it is damaged.
        """
        path = regressor.with_name(FILE)
        if not path.is_file():
            return None
        with safe_open(path, "np") as file:
            about = file.metadata() or {}
            if about.get("regressor") != digest(regressor):
                return None
            arrays = {name: file.get_tensor(name).astype(np.float32) for name in ("middle", "matrix", "offset")}
        return cls(**arrays, embedder=int(about["embedder"]), face_model=int(about["face_model"]))
