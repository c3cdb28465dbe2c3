"""Triton's side of `preprocess`: picture files in, pictures and detector canvases out; see lanes.py and decoding.py."""

from __future__ import annotations

import ctypes
import json
import os
import traceback

import triton_python_backend_utils as pb_utils
from admission import Admission, Overloaded
from cage import Worker
from cost import Cost
from decoding import Outputs, decode, of_row
from lanes import Lanes
from meters import Meters
from picture_options import options_from
from refusals import BadPicture
from structure import Limits, Size, inspect, without_film


class TritonPythonModel:
    """Has the pictures of a batch decoded side by side by worker processes, and answers each when it is there."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the limits from the ``parameters`` of the configuration and start the workers."""
        values = {key: value["string_value"] for key, value in json.loads(args["model_config"])["parameters"].items()}
        most = int(values["max_bytes"])
        self._limits = Limits(most, int(values["max_pixels"]))
        self._fine = Limits(most, int(values["max_pixels"]), Size.FINE)
        self._whole = Limits(most, int(values["max_whole_pixels"]), Size.WHOLE)
        _keep_memory(most)
        self._meters = Meters()
        page = os.environ.get("FACE3D_METRICS_PAGE", "http://127.0.0.1:8002/metrics")
        self._admission = Admission(page, frozenset(values["counted_models"].split()), int(values["max_waiting"]))
        self._lanes = Lanes(self._limits.max_bytes)

    def execute(self, requests: list[pb_utils.InferenceRequest]) -> None:
        """Hand each request to a lane of workers; its answer is sent from there.

        So that a picture that takes seconds delays nobody, this returns before the pictures are decoded.
        """
        room = max(0, self._admission.room() - self._lanes.waiting)
        for index, request in enumerate(requests):
            sender = request.get_response_sender()
            refusal = Overloaded() if index >= room else self._submit(request, sender)
            if refusal is not None:
                self._answer(sender, refusal)

    def finalize(self) -> None:
        """Finish what is being decoded and end the workers."""
        self._lanes.close()

    def _submit(
        self, request: pb_utils.InferenceRequest, sender: pb_utils.InferenceResponseSender
    ) -> BadPicture | Overloaded | None:
        """Hand a request to a lane; return the reason why not."""
        wanted = set(request.requested_output_names())
        try:
            files = [without_film(data) for data in _files(request)]
            options = options_from(request.parameters())
            usual = self._fine if options.fine else self._limits
            limits = [self._whole if whole else usual for whole in _whole(request, len(files))]
            costs = [of_row(row, len(files), inspect, *one) for row, one in enumerate(zip(files, limits, strict=True))]
        except BadPicture as error:
            return error

        def job(worker: Worker) -> None:
            try:
                self._answer(sender, self._outputs(worker, files, costs, limits, wanted, options.min_face))
            except Exception:  # an answer that cannot be sent must not end the lane's thread
                pb_utils.Logger.log_error("preprocess: " + traceback.format_exc())

        return None if self._lanes.submit(costs, sum(map(len, files)), job) else Overloaded()

    def _outputs(
        self,
        worker: Worker,
        files: list[bytes],
        costs: list[Cost],
        limits: list[Limits],
        wanted: set[str],
        min_face: float,
    ) -> Outputs | Exception:
        try:
            return decode(worker, files, costs, limits, wanted, min_face)
        except BadPicture as error:
            return error
        except Exception as error:  # whatever it is, it concerns this request and not its neighbours
            pb_utils.Logger.log_error("preprocess: " + traceback.format_exc())
            return error

    def _answer(self, sender: pb_utils.InferenceResponseSender, result: Outputs | Exception) -> None:
        """Send the answer to a request and count it."""
        sender.send(_response(result), flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
        if isinstance(result, BadPicture | Overloaded):
            self._meters.refused(result.tag)
        elif isinstance(result, Outputs):
            self._admission.let_in(len(result.decoded))
            for seconds, pixels in result.decoded:
                self._meters.decoded(seconds, pixels)


def _keep_memory(file_bytes: int) -> None:
    """Use the memory of one file for the next: others wait while the kernel clears that of a large one, page by page.

    glibc's numbers for: from this size on, a piece of memory is a mapping of its own (-3); so much may stay free at the
    end (-1).
    """
    libc = ctypes.CDLL(None)
    libc.mallopt(-3, file_bytes + (1 << 20))
    libc.mallopt(-1, 2 * file_bytes)


def _files(request: pb_utils.InferenceRequest) -> list[bytes]:
    image = pb_utils.get_input_tensor_by_name(request, "image")
    if image is None:  # Triton counts inputs: with `whole` it lets a request through that lacks this one
        raise BadPicture("BadImage", "the request has no `image`: send the bytes of a picture's file.")
    return list(image.as_numpy().reshape(-1))


def _whole(request: pb_utils.InferenceRequest, rows: int) -> list[bool]:
    """Which rows are wanted at their full size."""
    whole = pb_utils.get_input_tensor_by_name(request, "whole")
    return [False] * rows if whole is None else [bool(row) for row in whole.as_numpy().reshape(-1)]


def _response(result: Outputs | Exception) -> pb_utils.InferenceResponse:
    if isinstance(result, BadPicture | Overloaded):
        code = pb_utils.TritonError.INVALID_ARG if isinstance(result, BadPicture) else pb_utils.TritonError.UNAVAILABLE
        error = pb_utils.TritonError(f"[{result.tag}] {result}", code)
        return pb_utils.InferenceResponse([], error)
    if isinstance(result, Exception):
        error = pb_utils.TritonError(f"{type(result).__name__}: {result}", pb_utils.TritonError.INTERNAL)
        return pb_utils.InferenceResponse([], error)
    return pb_utils.InferenceResponse([pb_utils.Tensor(name, array) for name, array in result.tensors.items()])
