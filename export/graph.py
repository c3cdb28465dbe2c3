"""What every stage knows of an ONNX graph: the opset, the names of free axes, shapes and sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx

OPSET = 18
"""Newest opset that the TensorRT of the serving image, ONNX Runtime 1.2x and the tracing exporter all handle."""
IR_VERSION = 9
"""What opset 18 came with; older runtimes refuse a newer number."""
BATCH = "batch"
"""Name of the axis in front."""
VERTICES = "vertices"
"""Name of the axis that runs over the vertices of a face model."""


@dataclass(frozen=True)
class Size:
    """How large a graph is."""

    nodes: int
    bytes: int

    @classmethod
    def of(cls, model: onnx.ModelProto) -> Size:
        """Count the nodes and the serialised bytes."""
        return cls(len(model.graph.node), model.ByteSize())


def set_shape(value: onnx.ValueInfoProto, shape: Sequence[int | str]) -> None:
    """Give a tensor of the graph's interface its shape; a string is a free axis of that name."""
    dims = value.type.tensor_type.shape
    del dims.dim[:]
    for size in shape:
        if isinstance(size, str):
            dims.dim.add().dim_param = size
        else:
            dims.dim.add().dim_value = int(size)


def shape_of(value: onnx.ValueInfoProto) -> list[int | str]:
    """The shape of a tensor of the graph's interface; free axes by their name."""
    return [dim.dim_param or int(dim.dim_value) for dim in value.type.tensor_type.shape.dim]
