"""Triton's side of `postprocess`: shapes and textures in, files out; see files.py."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import triton_python_backend_utils as pb_utils
from face_tensors import check_inputs
from files import Files
from meters import Meters
from numpy.typing import NDArray
from options import Options, Refused, options_from
from surface import Surface

FILES = ("mesh", "texture_image", "preview")
SENTENCES = "texture_warnings"
# A face in the middle of a crop of 224 whose pixels are two of the source: box, score and five points.
_FACE = (120, 100, 328, 360, 1, 162, 162, 286, 162, 224, 234, 174, 300, 274, 300)
# At least so many files are written side by side: a preview takes some 200 ms and must not keep meshes waiting.
LEAST_THREADS = 2
# Seconds after which a thread that holds Python's lock lets another one have it: a mesh waits for it several times.
SWITCH_INTERVAL = 0.001


class TritonPythonModel:
    """Writes the files of a face, and only those that a request asks for."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the face model's topology, which export wrote into this version folder."""
        folder = Path(args["model_repository"]) / args["model_version"]
        self._surface = Surface.from_file(folder / "topology.npz")
        cv2.setNumThreads(1)
        self._meters = Meters()
        self._warm_up()
        ctypes.CDLL(None).malloc_trim(0)  # what making the tables took
        sys.setswitchinterval(SWITCH_INTERVAL)
        threads = max(LEAST_THREADS, len(os.sched_getaffinity(0)))
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="write")
        self._free = threading.Semaphore(threads)

    def execute(self, requests: list[pb_utils.InferenceRequest]) -> None:
        """Have each request answered by itself: a bad option is an error for its own request only.

        This returns before the files are written, so that the next requests need not wait for the longest; but not
        before a thread has begun with the last of them, so that others wait in Triton's queue and take no memory here.
        """
        for request in requests:
            self._free.acquire()
            self._pool.submit(self._send, request)

    def finalize(self) -> None:
        """Write what is still to be written."""
        self._pool.shutdown()

    def _send(self, request: pb_utils.InferenceRequest) -> None:
        try:
            response = self._safely(request)
            request.get_response_sender().send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
        except Exception:  # an answer that cannot be sent must not go unnoticed
            pb_utils.Logger.log_error("postprocess: " + traceback.format_exc())
        finally:
            self._free.release()

    def _safely(self, request: pb_utils.InferenceRequest) -> pb_utils.InferenceResponse:
        try:
            return self._answer(request)
        except Exception as error:  # whatever it is, it concerns this request and not its neighbours
            pb_utils.Logger.log_error("postprocess: " + traceback.format_exc())
            failure = pb_utils.TritonError(f"{type(error).__name__}: {error}", pb_utils.TritonError.INTERNAL)
            return pb_utils.InferenceResponse([], failure)

    def _answer(self, request: pb_utils.InferenceRequest) -> pb_utils.InferenceResponse:
        tensors = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        try:
            check_inputs(tensors)
            options = options_from(request.parameters())
            rows = [
                Files(self._surface, dict(zip(tensors, values, strict=True)), options)
                for values in zip(*tensors.values(), strict=True)
            ]
            outputs = {name: [self._output(row, name) for row in rows] for name in _wanted(request)}
        except Refused as error:
            self._meters.refused(error.tag)
            refusal = pb_utils.TritonError(f"[{error.tag}] {error}", pb_utils.TritonError.INVALID_ARG)
            return pb_utils.InferenceResponse([], refusal)
        for row in rows if SENTENCES in outputs else ():
            self._meters.warned(row.texture_doubts)
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor(name, _column(name, rows)) for name, rows in outputs.items()]
        )

    def _output(self, files: Files, name: str) -> Any:
        start = time.perf_counter()
        made = getattr(files, name)
        if name in FILES:
            self._meters.written(name, time.perf_counter() - start)
        return made

    def _warm_up(self) -> None:
        """Write every file once for a flat face, so that the first request finds all libraries loaded."""
        uv = np.zeros((self._surface.vertices, 2), np.float32)
        uv[self._surface.vertex] = self._surface.uv
        shape = np.column_stack([uv - 0.5, -((uv - 0.5) ** 2).sum(axis=1)]) * 2
        tensors = {
            "shapes": np.stack([shape] * 3).astype(np.float32),
            "fingerprint": np.array([self._surface.fingerprint]),
            "expression": np.zeros(64, np.float32),
            "texture": np.full((3, 1024, 1024), 127, np.uint8),
            "crop_hd": np.full((3, 512, 512), 127, np.uint8),
            "context": np.array([*_FACE, 2, 2, 0, 0, 448 / 512, 448 / 512, 0, 0], np.float32),
            "places": np.stack([*np.mgrid[224:0:-0.875, 0:224:0.875][::-1], *np.ones((2, 256, 256))]).astype(
                np.float32
            ),
            "parts": np.zeros((3, 128, 128), np.uint8),
            "close_up": np.full((512, 512, 3), 127, np.uint8),
            "close_up_camera": np.array([0.4, 0.4, 0, 0], np.float32),
        }
        options = Options(white_balance=True, texture_light="albedo", detail=1.0, hair="paint", texture_size=1152)
        for files in (Files(self._surface, tensors, Options()), Files(self._surface, tensors, options)):
            assert all(getattr(files, name) for name in FILES)
        if self._surface.head is not None:
            assert Files(self._surface, tensors, Options(rig="arkit")).mesh


def _column(name: str, rows: list[Any]) -> NDArray[Any]:
    """The rows of an output as one tensor; of sentences, rows with fewer end with empty ones."""
    if name == SENTENCES:
        most = max(len(row) for row in rows)
        return np.array([[*row, *[b""] * (most - len(row))] for row in rows], np.object_).reshape(len(rows), most)
    if name in FILES:
        return np.array(rows, np.object_)[:, None]
    if name == "thumbnail":  # a small face's is smaller
        side = max(map(len, rows))
        rows = [
            row if len(row) == side else cv2.resize(row, (side, side), interpolation=cv2.INTER_LINEAR) for row in rows
        ]
    return np.stack(rows)


def _wanted(request: pb_utils.InferenceRequest) -> list[str]:
    """List the outputs asked for, files first: what they share is then on their account."""
    return sorted(request.requested_output_names(), key=lambda name: name not in FILES)
