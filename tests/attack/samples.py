"""Well-formed requests to every model, with the tensors that the pipeline itself makes of a portrait."""

from __future__ import annotations

from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2_grpc

from server.repository import DEFAULT_REPOSITORY, Model, read_repository
from tests.attack.encode import grpc_message
from tests.attack.requests import NUMPY, Output, Request, Tensor, array_tensor, bytes_tensor

# The leaves in the order of the pipeline; each takes what those before it gave.
PIPELINE = ("preprocess", "detector", "align", "regressor", "parser", "texture", "postprocess")
# What an ensemble cannot do without.
PARAMETERS: dict[str, dict[str, Any]] = {
    "fuse": {"consent": "Both of them agreed."},
    "track": {"sequence_id": 2051, "sequence_start": True, "sequence_end": True},
}


def wellformed_requests(address: str, picture: bytes) -> list[Request]:
    """One request for each model, or two where a model is called in two ways.

    Args:
        address: gRPC endpoint of a bare server, ``host:port``.
        picture: the bytes of a file that shows a face.
    """
    models = read_repository(DEFAULT_REPOSITORY)
    found: dict[str, Tensor] = {name: bytes_tensor(name, [picture]) for name in ("image", "images")}
    found |= {name: bytes_tensor(name, [picture], (1,)) for name in ("source", "target")}
    requests = []
    for name in PIPELINE:
        inputs = [found[entry.name] for entry in models[name].config.input if entry.name in found]
        request = _request(models[name], inputs)
        requests.append(request)
        for output, array in _answer(address, request).items():
            found[output] = array_tensor(output, array)
    choice = np.frombuffer(found["face"].data, np.float32)[None]
    found["choice"] = array_tensor("choice", choice)
    by_choice = [tensor for tensor in _inputs(requests, "align") if tensor.name != "faces"]
    requests.append(_request(models["align"], [*by_choice, found["choice"]]))
    # The ensembles' later steps of postprocess.
    drawn = [found[name] for name in ("thumbnail", "crop_hd", "shapes", "fingerprint", "expression", "context")]
    again = [
        _request(models["postprocess"], [found["places"], found["mesh_done"]], ("visibility", "mesh_done")),
        _request(
            models["postprocess"],
            [*_inputs(requests, "postprocess"), found["mesh_done"]],
            ("texture_image", "thumbnail"),
        ),
        _request(models["postprocess"], drawn, ("preview",)),
    ]
    ensembles = [model for model in models.values() if model.is_ensemble]
    whole = [_request(model, [found[entry.name] for entry in model.config.input]) for model in ensembles]
    return [*requests, *again, *whole]


def _inputs(requests: list[Request], model: str) -> tuple[Tensor, ...]:
    return next(request.inputs for request in requests if request.model == model)


def _request(model: Model, inputs: list[Tensor], outputs: tuple[str, ...] | None = None) -> Request:
    names = outputs or [entry.name for entry in model.config.output]
    parameters = PARAMETERS.get(model.name, {})
    return Request(model.name, tuple(inputs), tuple(Output(name) for name in names), parameters)


def _answer(address: str, request: Request) -> dict[str, NDArray[Any]]:
    """The outputs that are arrays of numbers."""
    options = [("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(address, options=options) as channel:
        answer = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(grpc_message(request), timeout=60)
    return {
        output.name: np.frombuffer(raw, NUMPY[output.datatype]).reshape(list(output.shape))
        for output, raw in zip(answer.outputs, answer.raw_output_contents, strict=True)
        if output.datatype in NUMPY
    }
