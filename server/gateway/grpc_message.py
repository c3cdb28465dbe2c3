"""gRPC's ModelInferRequest, without its raw tensors <-> a description."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

from google.protobuf.message import DecodeError, Message
from tritonclient.grpc import service_pb2 as pb

from server.gateway import limits
from server.gateway.description import InferRequest, InputTensor, RequestedOutput, Value
from server.gateway.refusal import Refused, bad_option, bad_request, shown

_FIELDS: Final = {
    "BOOL": "bool_contents", "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents",
    "INT64": "int64_contents", "UINT8": "uint_contents", "UINT16": "uint_contents", "UINT32": "uint_contents",
    "UINT64": "uint64_contents", "FP32": "fp32_contents", "FP64": "fp64_contents", "BYTES": "bytes_contents",
}  # fmt: skip


def parse(kind: Any, data: bytes, name: str = "") -> Any:
    """Parse a message of class ``kind``; ``name`` is what the client calls it, where that differs.

    Raises:
        Refused: the bytes are none.
    """
    try:
        message: Message = kind.FromString(data)
    except DecodeError:
        raise bad_request(
            f"the bytes of the request are no {name or kind.DESCRIPTOR.name}: use a client of KServe v2."
        ) from None
    return message


def description(message: Any, raw: Sequence[memoryview]) -> InferRequest:
    """Describe a ModelInferRequest whose raw tensors (`raw_input_contents`) are ``raw``.

    Raises:
        Refused: parts of it contradict each other.
    """
    if len(message.inputs) > limits.MAX_TENSORS or len(message.outputs) > limits.MAX_OUTPUTS:
        raise bad_request(f"the request has {len(message.inputs)} inputs and {len(message.outputs)} outputs: too many.")
    if raw and len(raw) != len(message.inputs):
        raise bad_request(f"the request has {len(message.inputs)} inputs and {len(raw)} raw contents: give each one.")
    inputs = tuple(_input(tensor, raw[index] if raw else None) for index, tensor in enumerate(message.inputs))
    outputs = tuple(RequestedOutput(o.name, parameters=_values(o.parameters)) for o in message.outputs)
    return InferRequest(
        message.model_name, message.model_version, message.id, inputs, outputs, _values(message.parameters)
    )


def to_triton(message: Any) -> bytes:
    """Write the message anew, so that Triton reads what was checked, and nothing that was not understood.

    Numbers with a fraction become text, as Triton 2.51 takes no others.
    """
    for parameter in message.parameters.values():
        kind = parameter.WhichOneof("parameter_choice")
        if kind == "double_param":
            parameter.string_param = repr(parameter.double_param)
        elif kind == "uint64_param":
            parameter.int64_param = parameter.uint64_param
    message.DiscardUnknownFields()
    data: bytes = message.SerializeToString()
    return data


def _input(tensor: Any, raw: memoryview | None) -> InputTensor:
    parameters = _values(tensor.parameters)
    shape = tuple(tensor.shape)
    if raw is None:
        return InputTensor(tensor.name, tensor.datatype, shape, count=_count(tensor), parameters=parameters)
    if tensor.HasField("contents"):
        raise bad_request(f"the input `{shown(tensor.name)}` has both contents and raw contents: give one of them.")
    return InputTensor(tensor.name, tensor.datatype, shape, raw, parameters=parameters)


def _count(tensor: Any) -> int:
    """Count the elements in the typed contents."""
    expected = _FIELDS.get(tensor.datatype)
    for field, values in tensor.contents.ListFields():
        if field.name != expected:
            raise bad_request(
                f"the input `{shown(tensor.name)}` is {shown(tensor.datatype)} and has {field.name}: "
                f"use {expected or 'raw_input_contents'}."
            )
        return len(values)
    return 0


def _values(parameters: Any) -> dict[str, Value]:
    if len(parameters) > limits.MAX_PARAMETERS:
        raise bad_option(f"the request has {len(parameters)} parameters in one place: too many.")
    return {name: _value(name, parameter) for name, parameter in parameters.items()}


def _value(name: str, parameter: Any) -> Value:
    kind = parameter.WhichOneof("parameter_choice")
    if kind is None:
        raise _odd(name, "has no value: give one, or leave it out.")
    value: Value = getattr(parameter, kind)
    if isinstance(value, float) and not math.isfinite(value):
        raise _odd(name, f"is {value}: give a finite number.")
    if kind == "uint64_param" and int(value) >= 2**63:
        raise _odd(name, f"is {value}: that is too large.")
    return value


def _odd(name: str, words: str) -> Refused:
    return bad_option(f"the parameter `{shown(name)}` {words}")


INFER: Final = pb.ModelInferRequest
