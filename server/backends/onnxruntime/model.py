"""Triton backend `onnxruntime` in Python, for servers that come without the C++ one (the wheel's).

Triton finds a backend called X that has no shared library as ``<backend directory>/X/model.py`` and runs it in a
Python stub, one process an instance. The same `config.pbtxt` (``backend: "onnxruntime"``) loads on both. What is
computed is in `onnx_session.py`; here tensors only change hands.
"""

from __future__ import annotations

import ctypes
import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import triton_python_backend_utils as pb_utils
from gathering import Gathering
from input_ranges import InputRanges
from integer_products import ProcessorError, open_graph
from late_model import LateModel, check_apart
from numpy.typing import NDArray
from onnx_session import (
    ConfigError,
    OnnxModel,
    RequestError,
    Session,
    every_core_is_wanted,
    gathering_milliseconds,
    load_on_first_use,
    most_rows,
)

if TYPE_CHECKING:  # see onnx_session.py
    import onnxruntime as ort

# glibc's numbers for: from this size on, a piece of memory is a mapping of its own; so much may stay free at the end.
_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD = -3, -1
_KEPT_PIECE, _KEPT_HEAP = 8 << 20, 32 << 20


class TritonPythonModel:
    """The interface that Triton's Python stub calls."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the model of this version folder.

        Args:
            args: Triton's: model_config (JSON), model_repository (the model's folder), model_version, ...

        Raises:
            TritonModelException: one sentence on what in the configuration or the model does not fit.
        """
        config: dict[str, Any] = json.loads(args["model_config"])
        filename = config.get("default_model_filename") or "model.onnx"
        try:
            path = Path(args["model_repository"]) / args["model_version"] / filename
            open_model = partial(_opened, path, config, InputRanges(config))
            self._model: OnnxModel | LateModel
            if load_on_first_use(config):
                check_apart(path, config)
                self._model = LateModel(open_model)
            else:
                self._model = open_model()
            pause = gathering_milliseconds(config) / 1000
            self._gathering = Gathering(pause, most_rows(config), every_core_is_wanted)
        except ValueError as error:  # ConfigError is one
            raise pb_utils.TritonModelException(f"model '{args['model_name']}': {error}") from None

    def execute(self, requests: list[pb_utils.InferenceRequest]) -> None:
        """Answer a batch of requests, errors only where they belong.

        Each answer is sent as soon as it is there, not with the last of its batch: where a batch runs in parts, the
        next step of the pipeline works on its first picture while this one is at the second.
        """
        live: list[pb_utils.InferenceRequest] = []
        for request in requests:
            if request.is_cancelled():
                error = pb_utils.TritonError("the client cancelled the request.", pb_utils.TritonError.CANCELLED)
                _send(request, pb_utils.InferenceResponse([], error))
            else:
                live.append(request)
        inputs = [{tensor.name(): tensor.as_numpy() for tensor in request.inputs()} for request in live]
        wanted = [request.requested_output_names() for request in live]
        for index, answer in self._model.run(inputs, wanted):
            _send(live[index], _response(answer))
        self._gathering.after(sum(_rows(request) for request in inputs))

    def finalize(self) -> None:
        """Let go of the session, so that its memory is free before the next version loads."""
        del self._model


def _opened(path: Path, config: dict[str, Any], ranges: InputRanges) -> OnnxModel:
    model = OnnxModel(path, config, open_session, ranges.violation)
    # Loading reads the file and packs its weights: what that took, 20 to 30 MB, glibc keeps for later otherwise.
    ctypes.CDLL(None).malloc_trim(0)
    return model


def _rows(inputs: dict[str, NDArray[Any]]) -> int:
    return next((len(value) for value in inputs.values() if value.ndim), 0)


def open_session(path: Path, options: ort.SessionOptions) -> Session:
    """Open a session of the graph, by its parts where they lie beside it and belong to it.

    Raises:
        ConfigError: the graph was judged for another kind of processor.
    """
    try:
        if path.with_name("tables.npz").is_file():
            from parts import open_parts  # OpenCV and SciPy: memory that only one of the networks needs

            if parts := open_parts(path, options, open_graph):
                # Textures of three megabytes come and go: the kernel would clear their pages for every picture.
                libc = ctypes.CDLL(None)
                libc.mallopt(_M_MMAP_THRESHOLD, _KEPT_PIECE)
                libc.mallopt(_M_TRIM_THRESHOLD, _KEPT_HEAP)
                return parts
        session: Session = open_graph(path, options)
    except ProcessorError as error:
        raise ConfigError(str(error)) from None
    return session


def _send(request: pb_utils.InferenceRequest, response: pb_utils.InferenceResponse) -> None:
    request.get_response_sender().send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)


def _response(result: dict[str, NDArray[Any]] | Exception) -> pb_utils.InferenceResponse:
    if isinstance(result, RequestError):
        refusal = pb_utils.TritonError(f"[BadTensor] {result}", pb_utils.TritonError.INVALID_ARG)
        return pb_utils.InferenceResponse([], refusal)
    if isinstance(result, ConfigError):  # of weights that are loaded at their first use; it names paths
        pb_utils.Logger.log_error(str(result))
        result = RuntimeError("the model could not be loaded: the server's log says why.")
    if isinstance(result, Exception):
        return pb_utils.InferenceResponse([], pb_utils.TritonError(str(result), pb_utils.TritonError.INTERNAL))
    return pb_utils.InferenceResponse(
        [pb_utils.Tensor(name, np.ascontiguousarray(value)) for name, value in result.items()]
    )
