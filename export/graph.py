"""Properties of ONNX graphs that every stage uses: the opset, the names of free axes, shapes and sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx

OPSET = 18
"""Newest opset that the TensorRT of the serving image, ONNX Runtime 1.2x and the tracing exporter all handle."""
IR_VERSION = 9
"""IR version of opset 18; older runtimes refuse a newer one."""
BATCH = "batch"
"""Name of the first axis."""
VERTICES = "vertices"
"""Name of the axis of a face model's vertices."""
SIDE = "side"
"""Name of the axes of a texture, whose size the photograph decides."""


@dataclass(frozen=True)
class Size:
    """Size of a graph: number of nodes, and bytes when serialised."""

    nodes: int
    bytes: int

    @classmethod
    def of(cls, model: onnx.ModelProto) -> Size:
        """Count the nodes and the serialised bytes."""
        return cls(len(model.graph.node), model.ByteSize())


def set_shape(value: onnx.ValueInfoProto, shape: Sequence[int | str]) -> None:
    """Set the shape of a graph's input or output; a string is a free axis of that name."""
    dims = value.type.tensor_type.shape
    del dims.dim[:]
    for size in shape:
        if isinstance(size, str):
            dims.dim.add().dim_param = size
        else:
            dims.dim.add().dim_value = int(size)


def shape_of(value: onnx.ValueInfoProto) -> list[int | str]:
    """Return the shape of a graph's input or output; free axes by name."""
    return [dim.dim_param or int(dim.dim_value) for dim in value.type.tensor_type.shape.dim]
