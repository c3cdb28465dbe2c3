"""A request and a model as both protocols see them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

Value: TypeAlias = "bool | int | float | str"
"""What a parameter can be in either protocol; a float becomes text on the way to Triton, which takes no floats."""

ELEMENT_SIZE: Mapping[str, int] = {
    "BOOL": 1, "UINT8": 1, "INT8": 1, "UINT16": 2, "INT16": 2, "FP16": 2, "BF16": 2,
    "UINT32": 4, "INT32": 4, "FP32": 4, "UINT64": 8, "INT64": 8, "FP64": 8,
}  # fmt: skip
"""Bytes of one element, by the protocol's name of the type; BYTES has no fixed size."""


@dataclass(frozen=True)
class InputTensor:
    """One input of a request.

    Attributes:
        name, datatype, shape: as the client wrote them, the shape with its batch dimension.
        raw: the bytes of the tensor where they came as bytes.
        count: the number of elements where they came as values (JSON, or gRPC's typed contents).
        parameters: the tensor's own parameters, without those that only say where its bytes are.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    raw: memoryview | bytes | None = None
    count: int | None = None
    parameters: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True)
class RequestedOutput:
    """One output that a request names.

    Attributes:
        name: as the client wrote it.
        as_text: whether its values are to be written in JSON (HTTP only).
        parameters: its other parameters.
    """

    name: str
    as_text: bool = False
    parameters: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True)
class InferRequest:
    """One inference request.

    Attributes:
        model, version, id: as the client wrote them; empty for none.
        inputs, outputs: in the client's order; no outputs means all.
        parameters: the request's parameters.
        text_by_default: whether outputs are written in JSON where nothing is said about them (HTTP only).
    """

    model: str
    version: str = ""
    id: str = ""
    inputs: tuple[InputTensor, ...] = ()
    outputs: tuple[RequestedOutput, ...] = ()
    parameters: Mapping[str, Value] = field(default_factory=dict)
    text_by_default: bool = False


@dataclass(frozen=True)
class Tensor:
    """An input or output of a model; ``dims`` without the batch dimension, -1 where it is open."""

    name: str
    datatype: str
    dims: tuple[int, ...]
    optional: bool = False


@dataclass(frozen=True)
class PublicModel:
    """A model that clients may call.

    Attributes:
        max_batch: the largest batch; 0 where the model has no batch dimension.
        versions: the versions that are served.
    """

    name: str
    max_batch: int
    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]
    versions: tuple[str, ...] = ()


def public_model(config: Mapping[str, Any], versions: tuple[str, ...] = ()) -> PublicModel:
    """Describe a model by its configuration as Triton writes it in JSON."""

    def tensors(kind: str) -> dict[str, Tensor]:
        return {
            entry["name"]: Tensor(
                entry["name"],
                str(entry["data_type"]).removeprefix("TYPE_").replace("STRING", "BYTES"),
                tuple(int(dim) for dim in entry["dims"]),
                bool(entry.get("optional")),
            )
            for entry in config.get(kind, ())
        }

    return PublicModel(
        str(config["name"]), int(config.get("max_batch_size", 0)), tensors("input"), tensors("output"), versions
    )
