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
import triton_python_backend_utils as pb_utils
from columns import FILES, WARNINGS, column
from enhance_call import ask
from face_tensors import check_inputs
from files import Files
from meters import Meters
from options import Refused, options_from
from surface import Surface
from warm_up import write_once

# The least number of files that are written side by side: a preview takes some 200 ms and must not keep meshes waiting.
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
        write_once(self._surface)
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
                Files(self._surface, dict(zip(tensors, values, strict=True)), options, ask)
                for values in zip(*tensors.values(), strict=True)
            ]
            outputs = {name: [self._output(row, name) for row in rows] for name in _wanted(request)}
        except Refused as error:
            self._meters.refused(error.tag)
            refusal = pb_utils.TritonError(f"[{error.tag}] {error}", pb_utils.TritonError.INVALID_ARG)
            return pb_utils.InferenceResponse([], refusal)
        for row in rows if WARNINGS in outputs else ():
            self._meters.warned(row.texture_doubts)
        return pb_utils.InferenceResponse([pb_utils.Tensor(name, column(name, rows)) for name, rows in outputs.items()])

    def _output(self, files: Files, name: str) -> Any:
        start = time.perf_counter()
        made = getattr(files, name)
        if name in FILES:
            self._meters.written(name, time.perf_counter() - start)
        return made


def _wanted(request: pb_utils.InferenceRequest) -> list[str]:
    """List the outputs asked for, files first: what they share is then on their account."""
    return sorted(request.requested_output_names(), key=lambda name: name not in FILES)
