"""The expressions of a face model, for moving a face after it was made.

The service sends shapes, not the basis they are made of; whoever wants to open a mouth needs the face model's file
(``weights/face_model.npz`` of the repository, or what `export` made of BFM or FLAME).
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["Expressions"]

_MM_PER_DM: Final = 100.0


@dataclass(frozen=True, eq=False)
class Expressions:
    """The expression modes of one face model.

    Attributes:
        modes: float32 (64, N, 3): mm in the head frame that weight 1 of each mode moves the vertices by.
        names: of the modes, ARKit style (``jawOpen``, ``mouthSmile_L``); a mode without a name has an empty one.
        face_model: the model's fingerprint; results with another `Reconstruction.face_model` have other vertices.
    """

    modes: NDArray[np.float32]
    names: tuple[str, ...]
    face_model: int

    @classmethod
    def load(cls, path: Path) -> Expressions:
        """Read them from a face model's ``.npz``.

        Raises:
            OSError: the file cannot be read.
            ValueError: it is no face model.
        """
        try:
            with np.load(path, allow_pickle=False) as arrays:
                # As `export` does it: the first eight bytes of a SHA-256 over mean shape and topology.
                digest = hashlib.sha256()
                for key in ("mean", "triangles", "uv"):
                    digest.update(np.ascontiguousarray(arrays[key]).tobytes())
                modes = np.asarray(arrays["expression"], np.float32) * np.float32(_MM_PER_DM)
                names = tuple(str(name) for name in arrays["expression_names"])
                shape = arrays["mean"].shape
        except (KeyError, ValueError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path} is no face model ({error}). Give a face_model.npz.") from error
        if modes.ndim != 3 or modes.shape[1:] != shape or len(names) != len(modes):
            raise ValueError(f"{path} is no face model: its expressions do not fit its shape. Give a face_model.npz.")
        return cls(modes, names, int.from_bytes(digest.digest()[:8], "little", signed=True))

    def move(
        self,
        neutral: NDArray[np.float32],
        weights: NDArray[np.float32] | None = None,
        named: Mapping[str, float] | None = None,
    ) -> NDArray[np.float32]:
        """A face with an expression.

        Args:
            neutral: float32 (N, 3) mm: `Reconstruction.vertices_neutral`.
            weights: float32 (64,) of all modes, as in `Coefficients.expression`.
            named: weights of single modes by name, added to those.

        Returns:
            float32 (N, 3) mm, head frame.

        Raises:
            KeyError: no mode has this name.
        """
        total = np.zeros(len(self.modes), np.float32) if weights is None else np.array(weights, np.float32)
        for name, weight in (named or {}).items():
            if name not in self.names or not name:
                raise KeyError(name)
            total[self.names.index(name)] += weight
        return neutral + np.tensordot(total, self.modes, axes=1).astype(np.float32)
