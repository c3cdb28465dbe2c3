"""Triton's side of `fusion`: what was found in two photographs in, a signed picture out; see fusing.py."""

from __future__ import annotations

import os
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import triton_python_backend_utils as pb_utils
from consent import ConsentRefused, consent_from, log_line
from enhance_call import ask
from fusing import fuse
from fusion_meters import Meters
from fusion_options import options_from
from fusion_refusals import Refused
from memory import keep_memory
from numpy.typing import NDArray
from pairs import doubts_of, photographs_of, source_skin
from picture_files import MEDIA_TYPES, encoded, png
from provenance import Credentials, Signer
from region import Region
from visible_mark import draw_mark

Tensors = dict[str, NDArray[Any]]


class TritonPythonModel:
    """Fuses pairs, as many side by side as there are cores, and lets no picture out that is not signed."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the region of the face model, which export wrote into this version folder, and the certificate."""
        folder = Path(args["model_repository"]) / args["model_version"]
        self._region = Region.from_file(folder / "topology.npz")
        self._signer = Signer(Credentials.from_environment(os.environ))
        self._meters = Meters()
        cv2.setNumThreads(1)
        keep_memory()
        cores = len(os.sched_getaffinity(0))
        self._pool = ThreadPoolExecutor(cores, thread_name_prefix="fuse")
        self._room = threading.Semaphore(cores)

    def execute(self, requests: list[pb_utils.InferenceRequest]) -> None:
        """Hand each request to a thread, which sends its answer; the next one need not wait for it.

        Where all threads are busy it waits in Triton's queue, not here: what has come here is held twice.
        """
        for request in requests:
            self._room.acquire()
            tensors = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
            self._pool.submit(self._serve, tensors, request.parameters(), request.get_response_sender())

    def finalize(self) -> None:
        """Finish what was begun."""
        self._pool.shutdown()

    def _serve(self, tensors: Tensors, parameters: str, sender: pb_utils.InferenceResponseSender) -> None:
        try:
            response = pb_utils.InferenceResponse(self._outputs(tensors, parameters))
        except (Refused, ConsentRefused) as error:
            self._meters.refused(error.tag)
            refusal = pb_utils.TritonError(f"[{error.tag}] {error}", pb_utils.TritonError.INVALID_ARG)
            response = pb_utils.InferenceResponse([], refusal)
        except Exception as error:  # whatever it is, it concerns this request and not its neighbours
            pb_utils.Logger.log_error("fusion: " + traceback.format_exc())
            failure = pb_utils.TritonError(f"{type(error).__name__}: {error}", pb_utils.TritonError.INTERNAL)
            response = pb_utils.InferenceResponse([], failure)
        try:
            sender.send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
        except Exception:  # the client has gone; the log says so
            pb_utils.Logger.log_error("fusion: " + traceback.format_exc())
        finally:
            self._room.release()

    def _outputs(self, tensors: Tensors, parameters: str) -> list[pb_utils.Tensor]:
        start = time.perf_counter()
        statement, options = consent_from(parameters), options_from(parameters)
        source, target = photographs_of(tensors, self._region)
        result = fuse(source, source_skin(tensors), target, self._region, options, ask)
        pixels = draw_mark(result.pixels) if options.mark else result.pixels
        kind = options.picture_format
        signed = self._signer.sign(encoded(pixels, kind), MEDIA_TYPES[kind], statement)
        pb_utils.Logger.log_info(log_line(signed.manifest, statement))
        self._meters.fused(result.effort.name, time.perf_counter() - start)
        warnings = doubts_of(tensors["doubts"])
        files = {"picture_file": signed.picture, "mask": png(result.mask)}
        return [
            *(pb_utils.Tensor(name, np.array([file], np.object_)) for name, file in files.items()),
            pb_utils.Tensor("warnings", np.array([text.encode() for text in warnings], np.object_)),
        ]
