"""INT8 by explicit Q/DQ in the graph, in two schemes.

`U8S8` for CPUs with VNNI: activations unsigned with a zero point, weights signed per output channel, biases in 32 bits,
which ONNX Runtime fuses into integer kernels. `S8S8` for TensorRT: everything symmetric and signed, biases in float.
In both, the two branches of a residual addition are quantised as well: an addition whose skip branch is float
would run in float and drag its neighbours along.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import Enum

import numpy as np
import onnx
from numpy.typing import NDArray

from export.errors import ExportError
from export.graph import IR_VERSION
from export.graphsurgeon import gs
from export.region import is_variable, network_nodes

Range = tuple[float, float]

WEIGHTED = {"Conv", "ConvTranspose", "Gemm"}
PASSING = {"MaxPool", "Resize", "Flatten", "Reshape", "Transpose", "Concat"}
"""Operators that only move or choose values: their result takes part in INT8 when their argument does."""


class Scheme(Enum):
    """How activations are quantised; weights are signed and per output channel in both."""

    U8S8 = "u8s8"
    S8S8 = "s8s8"


def quantised_nodes(graph: gs.Graph, keep_float: Collection[str] = ()) -> list[gs.Node]:
    """Nodes that run in INT8: the network proper without its heads, less those named."""
    return [
        node
        for node in network_nodes(graph, keep_last=True)
        if node.op in WEIGHTED | PASSING | {"Add"} and node.name not in keep_float
    ]


def quantised_tensors(graph: gs.Graph, keep_float: Collection[str] = ()) -> list[str]:
    """Names of the activations that are quantised: what goes into a node of `quantised_nodes`, and what an addition
    or a convolution among them gives where another of them reads it.
    """
    names: dict[str, None] = {}
    for node in quantised_nodes(graph, keep_float):
        for tensor in node.inputs[: 1 if node.op in WEIGHTED else None]:
            if is_variable(tensor):
                names.setdefault(tensor.name)
    return list(names)


def to_int8(
    model: onnx.ModelProto, ranges: Mapping[str, Range], scheme: Scheme, keep_float: Collection[str] = ()
) -> onnx.ModelProto:
    """Insert Q/DQ pairs.

    Args:
        model: float32, after surgery; not changed.
        ranges: smallest and largest value of every tensor of `quantised_tensors`.
        scheme: for a CPU or for TensorRT.
        keep_float: names of nodes to leave in float32.

    Raises:
        ExportError: there is nothing to quantise, or a tensor has no range.
    """
    graph = gs.import_onnx(model)
    nodes = quantised_nodes(graph, keep_float)
    if not nodes:
        raise ExportError("The graph has no convolutions: there is nothing to quantise.")
    pairs: dict[str, _Pair] = {}
    for node in nodes:
        for index, tensor in enumerate(node.inputs[: 1 if node.op in WEIGHTED else None]):
            if not is_variable(tensor):
                continue
            if tensor.name not in pairs:
                if tensor.name not in ranges:
                    raise ExportError(f"There is no calibrated range for '{tensor.name}': calibrate the network anew.")
                pairs[tensor.name] = _Pair(graph, tensor, ranges[tensor.name], scheme)
            node.inputs[index] = pairs[tensor.name].result
            if node.op in WEIGHTED:
                _quantise_weights(graph, node, pairs[tensor.name], scheme)
    graph.cleanup().toposort()
    quantised: onnx.ModelProto = gs.export_onnx(graph)
    del quantised.graph.value_info[:]
    quantised.ir_version = IR_VERSION
    onnx.checker.check_model(quantised)
    return quantised


class _Pair:
    """QuantizeLinear and DequantizeLinear on one activation."""

    def __init__(self, graph: gs.Graph, tensor: gs.Variable, bounds: Range, scheme: Scheme) -> None:
        low, high = min(bounds[0], 0.0), max(bounds[1], 0.0)  # zero must be exact: padding is zero
        if scheme is Scheme.U8S8:
            self.scale = max((high - low) / 255.0, 1e-12)
            zero: NDArray[np.generic] = np.array(round(-low / self.scale), np.uint8)
        else:
            self.scale = max(-low, high, 1e-10) / 127.0
            zero = np.array(0, np.int8)
        name = tensor.name
        quantised = gs.Variable(f"{name}_q", dtype=zero.dtype, shape=tensor.shape)
        self.result = gs.Variable(f"{name}_dq", dtype=np.float32, shape=tensor.shape)
        scale, point = gs.Constant(f"{name}_scale", np.array(self.scale, np.float32)), gs.Constant(f"{name}_zero", zero)
        graph.nodes += [
            gs.Node("QuantizeLinear", f"quantise_{name}", {}, [tensor, scale, point], [quantised]),
            gs.Node("DequantizeLinear", f"dequantise_{name}", {}, [quantised, scale, point], [self.result]),
        ]


def _quantise_weights(graph: gs.Graph, node: gs.Node, activation: _Pair, scheme: Scheme) -> None:
    """Weights as INT8 per output channel behind a DequantizeLinear; for the CPU the bias as INT32 as well."""
    weight = node.inputs[1]
    if not isinstance(weight, gs.Constant):
        raise ExportError(f"The weights of '{node.name}' are computed, not constant: fold the graph first.")
    axis = 0 if node.op == "Conv" or (node.op == "Gemm" and node.attrs.get("transB", 0)) else 1
    values = weight.values.astype(np.float32)
    others = tuple(i for i in range(values.ndim) if i != axis)
    scale = np.maximum(np.abs(values).max(axis=others) / 127.0, 1e-12).astype(np.float32)
    shape = [1] * values.ndim
    shape[axis] = -1
    whole = np.clip(np.rint(values / scale.reshape(shape)), -127, 127).astype(np.int8)
    name = f"{node.name}_weight"
    node.inputs[1] = _dequantised(graph, name, whole, scale, axis)
    if scheme is Scheme.U8S8 and len(node.inputs) > 2 and isinstance(node.inputs[2], gs.Constant):
        step = scale * np.float32(activation.scale)
        bias = np.clip(np.rint(node.inputs[2].values / step), -(2**31), 2**31 - 1).astype(np.int32)
        node.inputs[2] = _dequantised(graph, f"{node.name}_bias", bias, step, 0)


def _dequantised(
    graph: gs.Graph, name: str, whole: NDArray[np.generic], scale: NDArray[np.float32], axis: int
) -> gs.Variable:
    result = gs.Variable(f"{name}_dq", dtype=np.float32, shape=whole.shape)
    inputs = [
        gs.Constant(f"{name}_q", whole),
        gs.Constant(f"{name}_scale", scale),
        gs.Constant(f"{name}_zero", np.zeros(scale.shape, whole.dtype)),
    ]
    graph.nodes.append(gs.Node("DequantizeLinear", f"dequantise_{name}", {"axis": axis}, inputs, [result]))
    return result
