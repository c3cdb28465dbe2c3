"""Odd requests as messages: gRPC's own, and HTTP with the binary tensor extension or in plain JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from tritonclient.grpc import service_pb2 as messages

from tests.attack.requests import Request, Value


def parameter(value: Value) -> Any:
    """GRPC's message of a parameter; of an integer beyond 64 bits its end."""
    match value:
        case bool():
            return messages.InferParameter(bool_param=value)
        case int():
            return messages.InferParameter(int64_param=max(-(2**63), min(value, 2**63 - 1)))
        case float():
            return messages.InferParameter(double_param=value)
        case _:
            return messages.InferParameter(string_param=value)


def grpc_message(request: Request) -> Any:
    """A ``ModelInferRequest`` with raw contents."""
    message = messages.ModelInferRequest(model_name=request.model, model_version=request.version, id=request.id)
    _fill(message.parameters, request.parameters)
    for tensor in request.inputs:
        entry = message.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=_within_64_bits(tensor.shape))
        _fill(entry.parameters, tensor.parameters)
        message.raw_input_contents.append(tensor.data)
    for output in request.outputs:
        _fill(message.outputs.add(name=output.name).parameters, output.parameters)
    return message


def http_message(request: Request) -> tuple[str, dict[str, str], bytes]:
    """Path, headers and body of a POST with binary tensors. JSON takes NaN here, as many clients send it."""
    inputs: list[dict[str, Any]] = [
        {
            "name": tensor.name,
            "datatype": tensor.datatype,
            "shape": list(tensor.shape),
            "parameters": {"binary_data_size": len(tensor.data)} | dict(tensor.parameters),
        }
        for tensor in request.inputs
    ]
    document: dict[str, Any] = {"inputs": inputs, "parameters": {"binary_data_output": True, **request.parameters}}
    if request.id:
        document["id"] = request.id
    if request.outputs:
        document["outputs"] = [{"name": o.name, "parameters": dict(o.parameters)} for o in request.outputs]
    head = json.dumps(document).encode()
    version = f"/versions/{quote(request.version, safe='')}" if request.version else ""
    path = f"/v2/models/{quote(request.model, safe='')}{version}/infer"
    headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(head))}
    return path, headers, head + b"".join(tensor.data for tensor in request.inputs)


def _fill(target: Any, parameters: Mapping[str, Value]) -> None:
    for name, value in parameters.items():
        target[name].CopyFrom(parameter(value))


def _within_64_bits(shape: tuple[int, ...]) -> list[int]:
    return [max(-(2**63), min(length, 2**63 - 1)) for length in shape]
