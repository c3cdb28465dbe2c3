"""The morphable face model: a documented ``.npz`` file that training writes and every export reads.

Shapes are in decimetres (the unit of the HRN / Deep3DFaceRecon family), head frame: x to the viewer's right, y up,
z out of the face. A shape is ``mean + identity . a + expression . b`` with ``a`` of order one: the bases are already
scaled by sigma.
"""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

IDENTITY, EXPRESSION, ALBEDO = 80, 64, 80
LANDMARKS = 68

# Slices of the 257 coefficients: the layout of HRN / Deep3DFaceRecon (`split_coeff`), kept for every face model.
COEFFICIENTS = {
    "identity": slice(0, 80),
    "expression": slice(80, 144),
    "albedo": slice(144, 224),
    "angle": slice(224, 227),
    "light": slice(227, 254),
    "translation": slice(254, 257),
}
COEFFICIENT_COUNT = 257

_REQUIRED = ("mean", "identity", "expression", "albedo_mean", "albedo", "triangles", "uv", "landmarks")


class FaceModelError(ValueError):
    """The file is not a face model of the documented layout; the message says what differs."""


@dataclass(frozen=True)
class FaceModel:
    """Arrays of a face model of N vertices and F triangles.

    Attributes:
        mean: (N, 3) float32, decimetres.
        identity: (80, N, 3) float32, decimetres per sigma.
        expression: (64, N, 3) float32, decimetres at full expression (or per sigma for statistical models).
        albedo_mean: (N, 3) float32, sRGB 0..255.
        albedo: (80, N, 3) float32, 0..255 per sigma.
        triangles: (F, 3) int32, counter-clockwise seen from outside.
        uv: (N, 2) float32, 0..1, v up, one per vertex.
        landmarks: (68,) int32, vertices in iBUG-68 order.
        expression_names: 64 names; ARKit-style where the mode has a meaning, ``""`` where the mode is empty.
        name, licence, source: free text, kept with every export.
    """

    mean: npt.NDArray[np.float32]
    identity: npt.NDArray[np.float32]
    expression: npt.NDArray[np.float32]
    albedo_mean: npt.NDArray[np.float32]
    albedo: npt.NDArray[np.float32]
    triangles: npt.NDArray[np.int32]
    uv: npt.NDArray[np.float32]
    landmarks: npt.NDArray[np.int32]
    expression_names: tuple[str, ...] = ()
    name: str = "unnamed"
    licence: str = "unknown"
    source: str = "unknown"

    def __post_init__(self) -> None:
        n = len(self.mean)
        expected = {
            "mean": (n, 3),
            "identity": (IDENTITY, n, 3),
            "expression": (EXPRESSION, n, 3),
            "albedo_mean": (n, 3),
            "albedo": (ALBEDO, n, 3),
            "uv": (n, 2),
            "landmarks": (LANDMARKS,),
        }
        for field, shape in expected.items():
            actual = getattr(self, field).shape
            if actual != shape:
                raise FaceModelError(f"face model: '{field}' has shape {actual}, expected {shape} for {n} vertices.")
        if self.triangles.ndim != 2 or self.triangles.shape[1] != 3:
            raise FaceModelError(f"face model: 'triangles' has shape {self.triangles.shape}, expected (F, 3).")
        for field in ("triangles", "landmarks"):
            values = getattr(self, field)
            if values.size and (values.min() < 0 or values.max() >= n):
                raise FaceModelError(f"face model: '{field}' points outside the {n} vertices (indices start at 0).")
        for field in ("mean", "identity", "expression", "albedo_mean", "albedo", "uv"):
            if not np.isfinite(getattr(self, field)).all():
                raise FaceModelError(f"face model: '{field}' holds NaN or infinity.")

    @property
    def fingerprint(self) -> int:
        """Return a signed 64-bit number that identifies mean shape, topology and UV.

        Models of the repository refuse to work together when theirs differ.
        """
        digest = hashlib.sha256()
        for array in (self.mean, self.triangles, self.uv):
            digest.update(np.ascontiguousarray(array).tobytes())
        return int.from_bytes(digest.digest()[:8], "little", signed=True)

    def save(self, path: Path) -> None:
        """Write the ``.npz``: bases as float16 (below 0.002 mm of rounding), the rest at full precision."""
        np.savez_compressed(
            path,
            mean=self.mean,
            identity=self.identity.astype(np.float16),
            expression=self.expression.astype(np.float16),
            albedo_mean=self.albedo_mean,
            albedo=self.albedo.astype(np.float16),
            triangles=self.triangles,
            uv=self.uv,
            landmarks=self.landmarks,
            expression_names=np.array(self.expression_names),
            name=np.array(self.name),
            units=np.array("decimetre"),
            licence=np.array(self.licence),
            source=np.array(self.source),
        )

    @classmethod
    def load(cls, path: Path) -> FaceModel:
        """Read a face model without unpickling anything.

        Raises:
            FaceModelError: the file is missing, unreadable, or not of this layout.
        """
        data = read_arrays(path)
        missing = [key for key in _REQUIRED if key not in data]
        if missing:
            raise FaceModelError(f"face model: {path} lacks {', '.join(missing)}.")
        if str(data.get("units", "decimetre")) != "decimetre":
            raise FaceModelError(f"face model: {path} is in {data['units']}; convert it to decimetres first.")
        floats = {
            k: data[k].astype(np.float32) for k in ("mean", "identity", "expression", "albedo_mean", "albedo", "uv")
        }
        return cls(
            **floats,
            triangles=data["triangles"].astype(np.int32),
            landmarks=data["landmarks"].astype(np.int32),
            expression_names=tuple(str(x) for x in data.get("expression_names", np.array([], str))),
            name=str(data.get("name", "unnamed")),
            licence=str(data.get("licence", "unknown")),
            source=str(data.get("source", "unknown")),
        )


def read_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Read every array of a ``.npz`` file without unpickling anything.

    Raises:
        FaceModelError: the file is missing or unreadable.
    """
    try:
        # Opened here, because numpy leaves a damaged archive open.
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise FaceModelError(f"face model: {path} cannot be read as .npz (it is a single array).")
            return {key: archive[key] for key in archive.files}
    except FileNotFoundError:
        raise FaceModelError(f"face model: there is no file {path}.") from None
    except FaceModelError:
        raise
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise FaceModelError(f"face model: {path} cannot be read as .npz ({error}).") from error
