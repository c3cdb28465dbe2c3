"""The steps around the networks, the same for every variant: the repository's decoder, alignment and file writer."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perf import folders

Array = NDArray[Any]


@dataclass(frozen=True)
class Reconstruction:
    """The result of a request: the GLB file, and coefficients, landmarks and context as lists."""

    mesh: bytes
    numbers: Mapping[str, list[float]]

    def pack(self) -> bytes:
        """Encode an HTTP body: length of the JSON (4 bytes, little endian), the JSON, the GLB."""
        header = json.dumps(self.numbers).encode()
        return struct.pack("<I", len(header)) + header + self.mesh


class RepositorySteps:
    """Decoding, alignment and writing of the mesh by the modules of `preprocess`, `align` and `postprocess`."""

    def __init__(self) -> None:
        self.pictures = folders.load("preprocess", "pictures")
        self._alignment = folders.load("align", "alignment")
        self._faces = folders.load("align", "faces")
        self._files = folders.load("postprocess", "files")
        self._options = folders.load("postprocess", "options").Options()
        surface = folders.load("postprocess", "surface").Surface
        self._surface = surface.from_file(Path(folders.newest("postprocess")) / "topology.npz")
        self.limits = self.pictures.Limits()

    def align(self, picture: Array, source: tuple[float, float], faces: Array) -> tuple[Array, Array, Array]:
        """Align the best face.

        Args:
            picture: uint8 RGB [h, w, 3].
            source: width and height of the photograph in pixels.
            faces: float32 [n, 15] in source pixels.

        Returns:
            crop uint8 [3, 224, 224], crop_hd uint8 [3, 512, 512] and context float32 [23].
        """
        face = self._faces.choose(faces, self._faces.Options(), 0.7)
        self._faces.check(face, source)
        camera = self._alignment.fit(self._faces.points_of(face), source[1])
        small, large = (self._alignment.window(camera, source, side) for side in (224, 512))
        crop, crop_hd = self._alignment.cut(picture, small), self._alignment.cut(picture, large)
        self._faces.doubts(face, source, camera.yaw, crop)
        context = np.array([*face, *small.camera(source), *large.camera(source)], np.float32)
        return _planes(crop), _planes(crop_hd), context

    def reconstruction(
        self, regressed: Mapping[str, Array], texture: Array, crop_hd: Array, context: Array
    ) -> Reconstruction:
        """Write the GLB and collect the numbers; ``regressed`` and ``texture`` are outputs without the batch axis."""
        tensors = {
            "shapes": regressed["shapes"],
            "fingerprint": regressed["fingerprint"],
            "expression": regressed["expression"],
            "texture": texture,
            "crop_hd": crop_hd,
            "context": context,
        }
        mesh = self._files.Files(self._surface, tensors, self._options).mesh
        numbers = {"coefficients": regressed["coefficients"], "landmarks": regressed["landmarks"], "context": context}
        return Reconstruction(mesh, {name: value.ravel().tolist() for name, value in numbers.items()})


def _planes(pixels: Array) -> Array:
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))
