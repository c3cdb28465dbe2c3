"""What several photographs of a person, some from the front and some turned, say of the identity beyond their mean.

A turned face shows the depth of a head and a frontal one its widths, so that the parts of an identity want weights of
their own; and an embedder sees other things in both. The best linear guess of what the mean identity lacks is a ridge
regression over exact heads (`training.person_correction`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import safe_open

from networks import identity_correction
from networks.certainty import digest

FILE = "person_correction.safetensors"  # beside the regressor's file, whose digest stands in its metadata
F32 = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class PersonCorrection:
    """An affine map of means over a person's photographs: change = values @ matrix + offset.

    Attributes:
        matrix: float32 (80 + 80 + D + D, 80), of the frontal and the turned identity and the frontal and the turned
            embedding.
        offset: float32 (80,).
        embedder: fingerprint of the embedder that it was fitted with.
        face_model: fingerprint of the face model whose coefficients these are.
    """

    matrix: F32
    offset: F32
    embedder: int
    face_model: int

    @classmethod
    def beside(cls, regressor: Path) -> PersonCorrection | None:
        """Read the file that lies beside a regressor's.

        Returns:
            None where there is none, or it belongs to other weights or another correction of single identities.

        Raises:
            OSError, SafetensorError: it is damaged.
        """
        path, single = regressor.with_name(FILE), regressor.with_name(identity_correction.FILE)
        if not path.is_file() or not single.is_file():
            return None
        with safe_open(path, "np") as file:
            about = file.metadata() or {}
            if about.get("regressor") != digest(regressor) or about.get("identity_correction") != digest(single):
                return None
            matrix, offset = (file.get_tensor(name).astype(np.float32) for name in ("matrix", "offset"))
        return cls(matrix, offset, int(about["embedder"]), int(about["face_model"]))
