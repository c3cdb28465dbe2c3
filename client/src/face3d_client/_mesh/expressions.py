"""Expression modes of a face model, which change the expression of `vertices` after a reconstruction.

A rigged mesh (``rig="arkit"``) carries its shapes and needs none of this. Here is what the coefficients speak of: the
modes of the face model's file (``weights/face_model.npz`` of the repository, or what `export` made of BFM or FLAME).
"""

from __future__ import annotations

import hashlib
import io
import math
import re
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from face3d_client._images import read_file

__all__ = ["Expressions"]

_MM_PER_DM: Final = 100.0
# Bytes of a file, and of all that unfolds from it: BFM with 35,709 vertices and 224 modes has 100 MB.
_MAX_FILE: Final = 256 << 20
_MAX_UNFOLDED: Final = 512 << 20
# What a file that is not as it says raises while NumPy reads it.
_MALFORMED: Final = (
    KeyError, ValueError, TypeError, EOFError, OverflowError, MemoryError, NotImplementedError, RuntimeError,
    SyntaxError, tokenize.TokenError, struct.error, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


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
        """Read the modes of a face model's ``.npz``.

        Raises:
            OSError: the file cannot be read.
            BadImage, ImageTooLarge: it is a device or a pipe, or larger than any face model.
            ValueError: it is no face model.
        """
        try:
            with np.load(io.BytesIO(_checked(path)), allow_pickle=False) as arrays:
                # As `export` does it: the first eight bytes of a SHA-256 over mean shape and topology.
                digest = hashlib.sha256()
                for key in ("mean", "faces" if "faces" in arrays else "triangles", "uv"):
                    digest.update(np.ascontiguousarray(arrays[key]).tobytes())
                # A whole head's modes are integers, of which one is a step.
                step = float(arrays["expression_step"]) if "expression_step" in arrays else 1.0
                modes = np.asarray(arrays["expression"], np.float32) * np.float32(step * _MM_PER_DM)
                names = tuple(str(name) for name in arrays["expression_names"])
                shape = arrays["mean"].shape
        except _MALFORMED as error:
            raise ValueError(f"{path} is no face model ({error}). Give a face_model.npz.") from error
        if modes.ndim != 3 or modes.shape[1:] != shape or len(names) != len(modes) or not np.isfinite(modes).all():
            raise ValueError(f"{path} is no face model: its expressions do not fit its shape. Give a face_model.npz.")
        return cls(modes, names, int.from_bytes(digest.digest()[:8], "little", signed=True))

    def modes_of(self, shape: str) -> tuple[str, ...]:
        """Find the modes that make one of Apple's shapes: ``eyeBlinkLeft`` is ``eyeBlink_L``, ``cheekPuff`` has two.

        Returns:
            Names of modes that are added up; none where this face model has no such shape.
        """
        sided = re.sub("(L)eft$|(R)ight$", r"_\1\2", shape)
        for modes in ((shape,), (sided,), (f"{shape}_L", f"{shape}_R")):
            if all(mode in self.names for mode in modes):
                return modes
        return ()

    def move(
        self,
        neutral: NDArray[np.float32],
        weights: NDArray[np.float32] | None = None,
        named: Mapping[str, float] | None = None,
    ) -> NDArray[np.float32]:
        """Give a face an expression.

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


def _checked(path: Path) -> bytes:
    """Read a face model's file, of which no more may unfold than a face model has.

    Raises:
        ValueError, BadZipFile: it does, or an array in it says that it has more than there is.
    """
    layout: Any = np.lib.format  # partly untyped
    data = read_file(str(path), _MAX_FILE)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        if sum(member.file_size for member in archive.infolist()) > _MAX_UNFOLDED:
            raise ValueError(f"more than {_MAX_UNFOLDED >> 20} MiB unfold from it")
        for member in archive.infolist():
            with archive.open(member) as file:
                version = layout.read_magic(file)
                shape, _, dtype = (
                    layout.read_array_header_1_0(file) if version == (1, 0) else layout.read_array_header_2_0(file)
                )
                if math.prod(shape) * dtype.itemsize > member.file_size:
                    raise ValueError(f"{member.filename} is shorter than it says")
    return data
