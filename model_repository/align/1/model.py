"""Triton's side of `align`: pictures and faces in, crops and cameras out; see alignment.py and faces.py."""

from __future__ import annotations

import ctypes
import json
import os
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import triton_python_backend_utils as pb_utils
from alignment import TEMPLATE, cut, fit, window
from embedding_crop import cut_upright, quality, similarity
from faces import Options, Refused, Row, check, choose, count, doubts, given, options_from, points_of, side_of
from meters import Meters
from numpy.typing import NDArray
from picture_inputs import check_inputs, true_size

Tensors = dict[str, NDArray[Any]]
CROP, CROP_HD = 224, 512
# Outputs for the embedder: a request of `embed` takes these and no crop of the others.
UPRIGHT = {"aligned", "quality"}
# glibc's numbers for: from this size on, a piece of memory is a mapping of its own; so much may stay free at the end.
_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD = -3, -1
# What is cut out for the larger crop has, in the four bytes of Pillow, 4 MiB for a picture of one megapixel.
_KEPT_CROP, _KEPT_HEAP = 32 << 20, 64 << 20


@dataclass
class Answer:
    """What became of one request.

    Attributes:
        rows: tensors of each face, as far as they came.
        error: why there is no answer.
        events: what the meters are to be told, by the thread that Triton calls.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    error: Exception | None = None
    events: list[Callable[[Meters], None]] = field(default_factory=list)

    def note(self, event: Callable[..., None], *values: Any) -> None:
        """Tell the meters later."""
        self.events.append(lambda meters: event(meters, *values))


class TritonPythonModel:
    """Chooses the face of each picture and cuts it out, a batch side by side: cutting lets go of Python's lock."""

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
        batch = int(json.loads(args["model_config"])["max_batch_size"])
        self._pool = ThreadPoolExecutor(min(batch, len(os.sched_getaffinity(0))), thread_name_prefix="cut")

    def execute(self, requests: list[pb_utils.InferenceRequest]) -> list[pb_utils.InferenceResponse]:
        """Answer each request by itself: a picture without a face is an error for its own request only."""
        work = [
            ({t.name(): t.as_numpy() for t in request.inputs()}, request.parameters(), _wanted(request))
            for request in requests
        ]
        # A face alone need not wait for another thread.
        answers = [self._answer(work[0])] if len(work) == 1 else list(self._pool.map(self._answer, work))
        for answer in answers:
            for event in answer.events:
                event(self._meters)
        return [_response(request, answer) for request, answer in zip(requests, answers, strict=True)]

    def finalize(self) -> None:
        """End the threads."""
        self._pool.shutdown()

    def _answer(self, work: tuple[Tensors, str, set[str]]) -> Answer:
        answer = Answer()
        try:
            tensors, parameters, names = work
            check_inputs(tensors)
            options = options_from(parameters)
            for index, (picture, geometry) in enumerate(zip(tensors["picture"], tensors["geometry"], strict=True)):
                face = self._face(tensors, index, options, answer)
                answer.rows.append(self._row(picture, geometry, face, names, answer))
        except Refused as error:
            answer.error = error
            answer.note(Meters.refused, error.tag)
        except Exception as error:  # whatever it is, it concerns this request and not its neighbours
            pb_utils.Logger.log_error("align: " + traceback.format_exc())
            answer.error = error
        return answer

    def _face(self, tensors: Tensors, index: int, options: Options, answer: Answer) -> Row:
        if "choice" in tensors:
            return given(tensors["choice"][index], options)
        if "faces" not in tensors:
            raise Refused("BadOption", "the request has neither `faces` nor `choice`: give one of them.")
        faces = tensors["faces"][index]
        answer.note(Meters.found, count(faces, options, self._threshold))
        return choose(faces, options, self._threshold)

    def _row(
        self, picture: NDArray[np.uint8], geometry: NDArray[np.float32], face: Row, names: set[str], answer: Answer
    ) -> dict[str, Any]:
        """What is asked for about one face. ``picture`` may be padded; its true size follows from the geometry."""
        source, rows, columns = true_size(picture, geometry)
        check(face, source)
        picture = picture[:rows, :columns]
        camera = fit(points_of(face), source[1])
        small = window(camera, source, CROP)
        crop = cut(picture, small)
        doubtful = doubts(face, source, camera.yaw, crop)
        answer.note(Meters.aligned, side_of(face), camera.yaw, [doubt.kind for doubt in doubtful])
        row: dict[str, Any] = {"face": face, "warnings": [doubt.sentence.encode() for doubt in doubtful]}
        if names & UPRIGHT:
            row |= _upright(picture, source, face, camera.yaw)
        if names - UPRIGHT - set(row):
            large = window(camera, source, CROP_HD)
            cameras = np.array([*small.camera(source), *large.camera(source)], np.float32)
            row |= {"crop": _planes(crop), "crop_hd": _planes(cut(picture, large)), "camera": cameras}
            row["context"] = np.concatenate([face, cameras])
        return row


def _wanted(request: pb_utils.InferenceRequest) -> set[str]:
    return set(request.requested_output_names())


def _upright(picture: NDArray[np.uint8], source: tuple[float, float], face: Row, yaw: float) -> dict[str, NDArray[Any]]:
    """The face turned upright for the embedder, and how far it can be relied on."""
    rows, columns = picture.shape[:2]
    whole = similarity(points_of(face))
    crop = cut_upright(picture, whole.scaled(columns / source[0], rows / source[1]))
    return {"aligned": _planes(crop), "quality": quality(face, whole, source, yaw, crop)}


def _response(request: pb_utils.InferenceRequest, answer: Answer) -> pb_utils.InferenceResponse:
    if isinstance(answer.error, Refused):
        error = pb_utils.TritonError(f"[{answer.error.tag}] {answer.error}", pb_utils.TritonError.INVALID_ARG)
        return pb_utils.InferenceResponse([], error)
    if answer.error is not None:
        said = f"{type(answer.error).__name__}: {answer.error}"
        return pb_utils.InferenceResponse([], pb_utils.TritonError(said, pb_utils.TritonError.INTERNAL))
    most = max(len(row["warnings"]) for row in answer.rows)
    for row in answer.rows:  # rows of one request share a shape
        row["warnings"] = np.array([*row["warnings"], *[b""] * (most - len(row["warnings"]))], np.object_)
    names = request.requested_output_names()
    return pb_utils.InferenceResponse([pb_utils.Tensor(n, _stacked([row[n] for row in answer.rows])) for n in names])


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
