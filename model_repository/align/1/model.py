"""Triton's side of `align`: pictures and faces in, crops and cameras out; see alignment.py and faces.py."""

from __future__ import annotations

import ctypes
import json
import traceback
from typing import Any

import cv2
import numpy as np
import triton_python_backend_utils as pb_utils
from alignment import TEMPLATE, cut, fit, window
from faces import Options, Refused, Row, check, choose, count, doubts, given, options_from, points_of, side_of
from meters import Meters
from numpy.typing import NDArray

CROP, CROP_HD = 224, 512
# glibc's numbers for: from this size on, a piece of memory is a mapping of its own; so much may stay free at the end.
_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD = -3, -1
# What is cut out for the larger crop has, in the four bytes of Pillow, 4 MiB for a picture of one megapixel.
_KEPT_CROP, _KEPT_HEAP = 32 << 20, 64 << 20


class TritonPythonModel:
    """Chooses the face of each picture and cuts it out."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the threshold from the ``parameters`` of the configuration."""
        parameters = json.loads(args["model_config"])["parameters"]
        self._threshold = float(parameters["score_threshold"]["string_value"])
        cv2.setNumThreads(1)
        _keep_memory()
        # Once through everything, so that the first request finds all libraries loaded.
        frontal = fit(100 * TEMPLATE[:, :2] * (1, -1) + (320, 240), 480)
        cut(np.zeros((480, 640, 3), np.uint8), window(frontal, (640, 480), CROP_HD))
        self._meters = Meters()

    def execute(self, requests: list[pb_utils.InferenceRequest]) -> list[pb_utils.InferenceResponse]:
        """Answer each request by itself: a picture without a face is an error for its own request only."""
        return [self._safely(request) for request in requests]

    def _safely(self, request: pb_utils.InferenceRequest) -> pb_utils.InferenceResponse:
        try:
            return self._answer(request)
        except Exception as error:  # whatever it is, it concerns this request and not its neighbours
            pb_utils.Logger.log_error("align: " + traceback.format_exc())
            failure = pb_utils.TritonError(f"{type(error).__name__}: {error}", pb_utils.TritonError.INTERNAL)
            return pb_utils.InferenceResponse([], failure)

    def _answer(self, request: pb_utils.InferenceRequest) -> pb_utils.InferenceResponse:
        tensors = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        try:
            options = options_from(request.parameters())
            rows = [
                self._row(picture, geometry, self._face(tensors, index, options))
                for index, (picture, geometry) in enumerate(zip(tensors["picture"], tensors["geometry"], strict=True))
            ]
        except Refused as error:
            self._meters.refused(error.tag)
            refusal = pb_utils.TritonError(f"[{error.tag}] {error}", pb_utils.TritonError.INVALID_ARG)
            return pb_utils.InferenceResponse([], refusal)
        most = max(len(row["warnings"]) for row in rows)
        for row in rows:  # rows of one request share a shape
            row["warnings"] = np.array([*row["warnings"], *[b""] * (most - len(row["warnings"]))], np.object_)
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor(name, _stacked([row[name] for row in rows])) for name in request.requested_output_names()]
        )

    def _face(self, tensors: dict[str, NDArray[Any]], index: int, options: Options) -> Row:
        if "choice" in tensors:
            return given(tensors["choice"][index], options)
        if "faces" not in tensors:
            raise Refused("BadOption", "the request has neither `faces` nor `choice`: give one of them.")
        faces = tensors["faces"][index]
        self._meters.found(count(faces, options, self._threshold))
        return choose(faces, options, self._threshold)

    def _row(self, picture: NDArray[np.uint8], geometry: NDArray[np.float32], face: Row) -> dict[str, Any]:
        """Everything about one face. ``picture`` may be padded; its true size follows from the geometry."""
        width, height, _, _, ratio_x, ratio_y = (float(value) for value in geometry)
        source = (width, height)
        check(face, source)
        picture = picture[: int(height / ratio_y + 0.01), : int(width / ratio_x + 0.01)]
        camera = fit(points_of(face), height)
        small, large = window(camera, source, CROP), window(camera, source, CROP_HD)
        crop, crop_hd = cut(picture, small), cut(picture, large)
        cameras = np.array([*small.camera(source), *large.camera(source)], np.float32)
        doubtful = doubts(face, source, camera.yaw, crop)
        self._meters.aligned(side_of(face), camera.yaw, [doubt.kind for doubt in doubtful])
        return {
            "crop": _planes(crop),
            "crop_hd": _planes(crop_hd),
            "context": np.concatenate([face, cameras]),
            "face": face,
            "camera": cameras,
            "warnings": [doubt.sentence.encode() for doubt in doubtful],
        }


def _keep_memory() -> None:
    """Use the memory of one crop for the next: what glibc gives back the kernel has to clear again."""
    libc = ctypes.CDLL(None)
    libc.mallopt(_M_MMAP_THRESHOLD, _KEPT_CROP)
    libc.mallopt(_M_TRIM_THRESHOLD, _KEPT_HEAP)


def _planes(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """uint8 [h, w, 3] to [3, h, w]; a transposed copy takes ten times as long."""
    planes = np.empty((3, *pixels.shape[:2]), np.uint8)
    cv2.split(pixels, list(planes))
    return planes


def _stacked(rows: list[NDArray[Any]]) -> NDArray[Any]:
    """The rows of a request as one tensor; a single one is not copied."""
    return rows[0][None] if len(rows) == 1 else np.stack(rows)
