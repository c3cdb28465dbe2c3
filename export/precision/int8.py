"""INT8 by explicit Q/DQ in the graph, in three schemes.

- `U8S8` for CPUs: activations unsigned with a zero point, weights signed per output channel, biases in 32 bits, which
  ONNX Runtime fuses into integer kernels; weights so small that no x86 processor saturates (`saturation.py`).
- `U8S8_VNNI`: the same with weights in all 8 bits, correct only on processors with VNNI.
- `S8S8` for TensorRT: symmetric and signed, biases in float; its kernels accumulate in 32 bits.

In all schemes both branches of a residual addition are quantised: with a float branch the addition and the nodes beside
it would run in float. Residual streams without a suitable fixed scale stay in float32 (`export/precision/streams.py`).

`onnxruntime.quantization` is not used: it has neither the bound on weights nor float32 streams between integer
products.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from enum import Enum

import numpy as np
import onnx
from numpy.typing import NDArray

from export.errors import ExportError
from export.graphsurgeon import gs, to_model
from export.precision.region import is_variable, network_nodes
from export.precision.saturation import integer_weights
from export.precision.streams import Products, Quantised, inner_convolutions, node_names, residual_streams

Range = tuple[float, float]

WEIGHTED = {"Conv", "ConvTranspose", "Gemm"}
VALUE_PRESERVING = {"MaxPool", "Resize", "Flatten", "Reshape", "Transpose", "Concat"}
"""Operators that only move or select values: their result has the scale of their argument."""
MIN_QUANTISED_HEAD_SIZE = 1 << 21
"""Weights of a head from which on it is quantised; a head that reads an average has half a million."""


class Scheme(Enum):
    """How activations and weights are quantised; weights are signed and per output channel in all."""

    U8S8 = "u8s8"
    U8S8_VNNI = "u8s8 for vnni"
    S8S8 = "s8s8"

    @property
    def unsigned(self) -> bool:
        """Tell whether activations are unsigned, as CPU kernels need them."""
        return self is not Scheme.S8S8

    @property
    def any_x86(self) -> bool:
        """Tell whether products must be equal on every x86 processor."""
        return self is Scheme.U8S8


def quantised_nodes(graph: gs.Graph, keep_float: Collection[str] = ()) -> list[gs.Node]:
    """List the nodes that run in INT8: the convolutional network without its heads and without `keep_float`.

    Heads that are large matrices are included: their time is that of reading their weights.
    """
    body = network_nodes(graph, keep_last=True)
    heads = [
        node
        for node in network_nodes(graph)
        if node.op == "Gemm" and node.inputs[1].values.size >= MIN_QUANTISED_HEAD_SIZE
    ]
    inside = {id(node) for node in (*body, *heads)}
    operators = WEIGHTED | VALUE_PRESERVING | {"Add"}
    chosen: list[gs.Node] = []
    selected: set[int] = set()
    for node in reversed(graph.nodes):
        if id(node) not in inside or node.op not in operators or node.name in keep_float:
            continue
        # Nodes that only pass values on to float nodes stay in float, so that the values keep their precision.
        if node.op in VALUE_PRESERVING and not any(
            id(user) in selected for tensor in node.outputs for user in tensor.outputs
        ):
            continue
        selected.add(id(node))
        chosen.append(node)
    return chosen[::-1]


def quantised_tensors(graph: gs.Graph, keep_float: Collection[str] = ()) -> list[str]:
    """List the quantised activations: inputs and results of `quantised_nodes`.

    A result that only float nodes read (the heads, the mean before them) is quantised as well, as an integer kernel
    needs a quantised result.
    """
    nodes = quantised_nodes(graph, keep_float)
    names: dict[str, None] = {}
    for node in nodes:
        for tensor in _activations(node):
            names.setdefault(tensor.name)
    for node in nodes:
        result = _result(node)
        if result is not None and not any(result is output for output in graph.outputs):
            names.setdefault(result.name)
    return list(names)


def _activations(node: gs.Node) -> list[gs.Variable]:
    """List the computed inputs of a node, without weights and bias."""
    return [tensor for tensor in node.inputs[: 1 if node.op in WEIGHTED else None] if is_variable(tensor)]


def _result(node: gs.Node) -> gs.Variable | None:
    """Return the result of a convolution or addition, after a fused ReLU; None for other nodes."""
    if node.op not in WEIGHTED | {"Add"}:
        return None
    tensor = node.outputs[0]
    if len(tensor.outputs) == 1 and tensor.outputs[0].op == "Relu":
        return tensor.outputs[0].outputs[0]
    return tensor


def to_int8(
    model: onnx.ModelProto,
    ranges: Mapping[str, Range],
    scheme: Scheme,
    keep_float: Collection[str] = (),
    streams: int = 0,
) -> onnx.ModelProto:
    """Insert Q/DQ pairs.

    Args:
        model: float32, after surgery; not changed.
        ranges: smallest and largest value of every tensor of `quantised_tensors`.
        scheme: for a CPU or for TensorRT.
        keep_float: names of nodes to leave in float32.
        streams: number of last residual streams that stay in float32: on a CPU between integer products, for TensorRT
            with their convolutions.

    Raises:
        ExportError: there is nothing to quantise, or a tensor has no range.
    """
    graph = gs.import_onnx(model)
    floating = residual_streams(graph)[-streams:] if streams else []
    inner = inner_convolutions(floating)
    keep_float = {*keep_float, *node_names(floating), *(node.name for node in inner)}
    nodes = quantised_nodes(graph, keep_float)
    if not nodes:
        raise ExportError("The graph has no convolutions: there is nothing to quantise.")
    chosen = set(quantised_tensors(graph, keep_float))
    missing = sorted(chosen - set(ranges))
    if missing:
        raise ExportError(f"There is no calibrated range for '{missing[0]}': calibrate the network anew.")
    tensors = {t.name: t for t in graph.tensors().values() if t.name in chosen}
    bounds = _clip_to_relu(nodes, {name: ranges[name] for name in sorted(chosen)})
    pairs = {name: _QdqPair(graph, tensors[name], bounds[name], scheme) for name in bounds}
    for node in nodes:
        if node.op in WEIGHTED:
            _quantise_weights(graph, node, pairs[node.inputs[0].name], scheme)
    if scheme.unsigned:
        products = Products(graph, {name: pair.quantised for name, pair in pairs.items()}, scheme.any_x86)
        for node in {n.name: n for group in floating for n in (*group.writers, *group.readers, *inner)}.values():
            products.write(node)
    for name, pair in pairs.items():
        for user in list(tensors[name].outputs):
            if user is not pair.quantise:
                user.inputs = [pair.result if value is tensors[name] else value for value in user.inputs]
    return to_model(graph)


def _clip_to_relu(nodes: Sequence[gs.Node], bounds: Mapping[str, Range]) -> dict[str, Range]:
    """Clip the ranges of a residual addition's branches to what its ReLU lets pass: exact, and gains up to a bit.

    A branch below minus the other branch's largest value makes the sum negative in any case.
    """
    clipped = dict(bounds)
    for node in nodes:
        users = node.outputs[0].outputs
        if node.op != "Add" or len(users) != 1 or users[0].op != "Relu":
            continue
        for branch, other in (node.inputs, node.inputs[::-1]):
            low, high = bounds[branch.name]
            if len(branch.outputs) == 1:
                clipped[branch.name] = (max(low, -bounds[other.name][1]), high)
    return clipped


class _QdqPair:
    """QuantizeLinear and DequantizeLinear of one activation."""

    def __init__(self, graph: gs.Graph, tensor: gs.Variable, bounds: Range, scheme: Scheme) -> None:
        low, high = min(bounds[0], 0.0), max(bounds[1], 0.0)  # zero must be exact: padding is zero
        if scheme.unsigned:
            self.scale = max((high - low) / 255.0, 1e-12)
            zero: NDArray[np.generic] = np.array(round(-low / self.scale), np.uint8)
        else:
            self.scale = max(-low, high, 1e-10) / 127.0
            zero = np.array(0, np.int8)
        name = tensor.name
        quantised = gs.Variable(f"{name}_q", dtype=zero.dtype, shape=tensor.shape)
        self.result = gs.Variable(f"{name}_dq", dtype=np.float32, shape=tensor.shape)
        scale, point = gs.Constant(f"{name}_scale", np.array(self.scale, np.float32)), gs.Constant(f"{name}_zero", zero)
        self.quantised = Quantised(quantised, scale, point)
        self.quantise = gs.Node("QuantizeLinear", f"quantise_{name}", {}, [tensor, scale, point], [quantised])
        graph.nodes += [
            self.quantise,
            gs.Node("DequantizeLinear", f"dequantise_{name}", {}, [quantised, scale, point], [self.result]),
        ]


def _quantise_weights(graph: gs.Graph, node: gs.Node, activation: _QdqPair, scheme: Scheme) -> None:
    """Quantise a node's weights to INT8 per output channel; for CPUs its bias to INT32 as well."""
    weight = node.inputs[1]
    if not isinstance(weight, gs.Constant):
        raise ExportError(f"The weights of '{node.name}' are computed, not constant: fold the graph first.")
    axis = 0 if node.op == "Conv" or (node.op == "Gemm" and node.attrs.get("transB", 0)) else 1
    first = np.moveaxis(weight.values.astype(np.float32), axis, 0)
    integers, scale = integer_weights(first.reshape(len(first), -1), scheme.any_x86)
    name = f"{node.name}_weight"
    integers = np.ascontiguousarray(np.moveaxis(integers.reshape(first.shape), 0, axis))
    node.inputs[1] = _dequantised(graph, name, integers, scale, axis)
    if scheme.unsigned and len(node.inputs) > 2 and isinstance(node.inputs[2], gs.Constant):
        step = scale * np.float32(activation.scale)
        bias = np.clip(np.rint(node.inputs[2].values / step), -(2**31), 2**31 - 1).astype(np.int32)
        node.inputs[2] = _dequantised(graph, f"{node.name}_bias", bias, step, 0)


def _dequantised(
    graph: gs.Graph, name: str, integers: NDArray[np.generic], scale: NDArray[np.float32], axis: int
) -> gs.Variable:
    result = gs.Variable(f"{name}_dq", dtype=np.float32, shape=integers.shape)
    inputs = [
        gs.Constant(f"{name}_q", integers),
        gs.Constant(f"{name}_scale", scale),
        gs.Constant(f"{name}_zero", np.zeros(scale.shape, integers.dtype)),
    ]
    graph.nodes.append(gs.Node("DequantizeLinear", f"dequantise_{name}", {"axis": axis}, inputs, [result]))
    return result
