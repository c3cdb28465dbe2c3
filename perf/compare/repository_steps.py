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

_CROPS = frozenset({"crop", "crop_hd", "context"})
_UPRIGHT = frozenset({"aligned", "quality"})
_TEXTURE = 1024  # texels a side, as the service gives them unless asked otherwise


@dataclass(frozen=True)
class Answer:
    """The result of a request: the GLB file, empty for `embed`, and numbers and sentences as lists.

    These are coefficients, landmarks, context and warnings of a reconstruction, embedding and quality of `embed`.
    """

    mesh: bytes
    numbers: Mapping[str, list[Any]]

    def pack(self) -> bytes:
        """Encode an HTTP body: length of the JSON (4 bytes, little endian), the JSON, the GLB."""
        header = json.dumps(self.numbers).encode()
        return struct.pack("<I", len(header)) + header + self.mesh


class RepositorySteps:
    """Decoding, alignment and writing of the mesh by the modules of `preprocess`, `align` and `postprocess`."""

    def __init__(self) -> None:
        self.pictures = folders.load("preprocess", "pictures")
        self._faces = folders.load("align", "faces")
        self._threshold = float(folders.parameter("align", "score_threshold"))
        self._cut_out = folders.load("align", "cutouts").cut_out
        self._default = folders.load("align", "face_options").Options()
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
        tensors = self._cut(picture, source, faces, _CROPS)
        return tensors["crop"], tensors["crop_hd"], tensors["context"]

    def upright(self, picture: Array, source: tuple[float, float], faces: Array) -> tuple[Array, Array]:
        """Turn the best face upright; arguments as of `align`.

        Returns:
            aligned uint8 [3, 112, 112] and quality float32 [4].
        """
        tensors = self._cut(picture, source, faces, _UPRIGHT)
        return tensors["aligned"], tensors["quality"]

    def _cut(
        self, picture: Array, source: tuple[float, float], faces: Array, names: frozenset[str]
    ) -> Mapping[str, Array]:
        face = self._faces.choose(faces, self._default, self._threshold, source)
        geometry = np.array([*source, 1, 1, source[0] / picture.shape[1], source[1] / picture.shape[0]], np.float32)
        tensors: Mapping[str, Array] = self._cut_out(picture, geometry, face, names, _TEXTURE).tensors
        return tensors

    def embedding(self, embedding: Array, quality: Array) -> Answer:
        """Collect the numbers of `embed`."""
        return Answer(b"", {"embedding": embedding.ravel().tolist(), "quality": quality.ravel().tolist()})

    def reconstruction(
        self, regressed: Mapping[str, Array], painted: Mapping[str, Array], parts: Array, crop_hd: Array, context: Array
    ) -> Answer:
        """Write the GLB, and collect the numbers and what is doubtful about the texture, as `postprocess` does.

        Args:
            regressed, painted: outputs of the regressor and the texture network without the batch axis.
            parts: the parser's, likewise.
            crop_hd, context: of `align`.
        """
        tensors = {
            **{name: regressed[name] for name in ("shapes", "fingerprint", "expression")},
            **{name: painted[name] for name in ("texture", "places")},
            "parts": parts,
            "crop_hd": crop_hd,
            "context": context,
        }
        files = self._files.Files(self._surface, tensors, self._options)
        numbers = {"coefficients": regressed["coefficients"], "landmarks": regressed["landmarks"], "context": context}
        found: dict[str, list[Any]] = {name: value.ravel().tolist() for name, value in numbers.items()}
        mesh = files.mesh
        found["texture_warnings"] = [sentence.decode() for sentence in files.texture_warnings]
        return Answer(mesh, found)
