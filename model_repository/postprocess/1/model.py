"""Triton's side of `postprocess`: shapes and textures in, files out; see glb.py, finish.py and preview.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import triton_python_backend_utils as pb_utils
from finish import MIME, encode, finish
from glb import write_glb
from numpy.typing import NDArray
from options import POSES, Options, Refused, options_from
from preview import page
from surface import Surface


class TritonPythonModel:
    """Writes the files of a face, and only those that a request asks for."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the face model's topology, which export wrote into this version folder."""
        folder = Path(args["model_repository"]) / args["model_version"]
        self._surface = Surface.from_file(folder / "topology.npz")
        cv2.setNumThreads(1)
        self._writers = {"mesh": self._mesh, "texture_image": self._texture_image, "preview": self._preview}
        self._warm_up()

    def execute(self, requests: list[pb_utils.InferenceRequest]) -> list[pb_utils.InferenceResponse]:
        """Answer each request by itself: a bad option is an error for its own request only."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: pb_utils.InferenceRequest) -> pb_utils.InferenceResponse:
        tensors = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        rows = [dict(zip(tensors, values, strict=True)) for values in zip(*tensors.values(), strict=True)]
        try:
            options = options_from(request.parameters())
            files = {name: [self._writers[name](row, options) for row in rows] for name in _wanted(request)}
        except Refused as error:
            refusal = pb_utils.TritonError(f"[{error.tag}] {error}", pb_utils.TritonError.INVALID_ARG)
            return pb_utils.InferenceResponse([], refusal)
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor(name, np.array(column, np.object_)[:, None]) for name, column in files.items()]
        )

    def _mesh(self, row: dict[str, NDArray[Any]], options: Options) -> bytes:
        shapes = self._shapes(row)
        vertices = shapes[POSES.index(options.pose)]
        kind = options.texture_format or "jpeg"
        texture = encode(finish(_need(row, "texture"), _need(row, "crop_hd"), options), kind)
        extras = {"pose": options.pose, "face_model": self._surface.name, "fingerprint": str(self._surface.fingerprint)}
        surface = self._surface
        normals = surface.normals(vertices)
        return write_glb(vertices, normals, surface.uv, surface.triangles, texture, MIME[kind], extras)

    def _texture_image(self, row: dict[str, NDArray[Any]], options: Options) -> bytes:
        finished = finish(_need(row, "texture"), _need(row, "crop_hd"), options)
        return encode(finished, options.texture_format or "png")

    def _preview(self, row: dict[str, NDArray[Any]], options: Options) -> bytes:
        texture = finish(_need(row, "texture"), _need(row, "crop_hd"), options)
        pose = POSES.index("neutral" if options.pose == "neutral" else "head")
        sheet = page(self._surface, self._shapes(row), pose, texture, _need(row, "context"), _need(row, "crop_hd"))
        return encode(sheet, "png")

    def _shapes(self, row: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
        shapes = _need(row, "shapes")
        self._surface.check(int(_need(row, "fingerprint")[0]), shapes.shape[1])
        if not np.isfinite(shapes).all():
            raise Refused("BadFace", "the networks found no finite shape for this face: send another picture.")
        return shapes

    def _warm_up(self) -> None:
        """Write every file once for a flat face, so that the first request finds all libraries loaded."""
        uv = self._surface.uv
        shape = np.column_stack([uv - 0.5, -((uv - 0.5) ** 2).sum(axis=1)]) * 2
        camera = [1, 1, 0, 0, 224 / 512, 224 / 512, 0, 0]
        row = {
            "shapes": np.stack([shape] * 3).astype(np.float32),
            "fingerprint": np.array([self._surface.fingerprint]),
            "texture": np.full((3, 512, 512), 127, np.uint8),
            "crop_hd": np.full((3, 512, 512), 127, np.uint8),
            "context": np.array([0.0] * 15 + camera, np.float32),
        }
        for write in self._writers.values():
            write(row, Options(white_balance=True))


def _wanted(request: pb_utils.InferenceRequest) -> list[str]:
    return list(request.requested_output_names())


def _need(row: dict[str, NDArray[Any]], name: str) -> NDArray[Any]:
    if name not in row:
        raise Refused("BadOption", f"the request lacks `{name}`, which this output is made of: send it as well.")
    return row[name]
