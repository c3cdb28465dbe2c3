"""INT8 by explicit Q/DQ in the graph, in three schemes.

`U8S8` for CPUs: activations unsigned with a zero point, weights signed per output channel, biases in 32 bits, which
ONNX Runtime fuses into integer kernels; weights so small that no x86 processor saturates (`saturation.py`).
`U8S8_VNNI`: the same with weights in all 8 bits, right only on processors with VNNI. `S8S8` for TensorRT: everything
symmetric and signed, biases in float; its kernels add up in 32 bits.
In all, the two branches of a residual addition are quantised as well: an addition whose skip branch is float
would run in float and drag its neighbours along. Residual streams that no fixed scale serves are left out and treated
as `export/precision/streams.py` says.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from enum import Enum

import numpy as np
import onnx
from numpy.typing import NDArray

from export.errors import ExportError
from export.graph import IR_VERSION
from export.graphsurgeon import gs
from export.precision.region import is_variable, network_nodes
from export.precision.saturation import whole_weights
from export.precision.streams import Products, Quantised, inner_convolutions, nodes_of, residual_streams

Range = tuple[float, float]

WEIGHTED = {"Conv", "ConvTranspose", "Gemm"}
PASSING = {"MaxPool", "Resize", "Flatten", "Reshape", "Transpose", "Concat"}
"""Operators that only move or choose values: their result takes part in INT8 when their argument does."""
LARGE_HEAD = 1 << 21
"""Numbers in the matrix of a head from which on it is quantised; a head that reads an average has half a million."""


class Scheme(Enum):
    """How activations and weights are quantised; weights are signed and per output channel in all."""

    U8S8 = "u8s8"
    U8S8_VNNI = "u8s8 for vnni"
    S8S8 = "s8s8"

    @property
    def unsigned(self) -> bool:
        """Whether activations are unsigned, as the kernels of CPUs want them."""
        return self is not Scheme.S8S8

    @property
    def any_x86(self) -> bool:
        """Whether products must come out the same on every x86 processor."""
        return self is Scheme.U8S8


def quantised_nodes(graph: gs.Graph, keep_float: Collection[str] = ()) -> list[gs.Node]:
    """Nodes that run in INT8: the network proper without its heads, less those named.

    A head that is a large matrix is among them: reading it in float32 would take longer than everything it says.
    """
    body = network_nodes(graph, keep_last=True)
    heads = [node for node in network_nodes(graph) if node.op == "Gemm" and node.inputs[1].values.size >= LARGE_HEAD]
    inside = {id(node) for node in (*body, *heads)}
    wanted = WEIGHTED | PASSING | {"Add"}
    chosen: list[gs.Node] = []
    kept: set[int] = set()
    for node in reversed(graph.nodes):
        if id(node) not in inside or node.op not in wanted or node.name in keep_float:
            continue
        # What only hands values on to float nodes stays float as well: its argument keeps its precision.
        if node.op in PASSING and not any(id(user) in kept for tensor in node.outputs for user in tensor.outputs):
            continue
        kept.add(id(node))
        chosen.append(node)
    return chosen[::-1]


def quantised_tensors(graph: gs.Graph, keep_float: Collection[str] = ()) -> list[str]:
    """Names of the activations that are quantised: what goes into a node of `quantised_nodes`, and what comes out.

    A result that only float nodes read (the heads, the mean before them) is quantised as well: a kernel runs in
    integers only if its result is one.
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
    """The computed inputs of a node, without weights and bias."""
    return [tensor for tensor in node.inputs[: 1 if node.op in WEIGHTED else None] if is_variable(tensor)]


def _result(node: gs.Node) -> gs.Variable | None:
    """What a convolution or an addition gives, after the ReLU that is fused into it; None for other nodes."""
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
        streams: how many of the last residual streams stay in float32: on a CPU between integer products, for TensorRT
            with their convolutions.

    Raises:
        ExportError: there is nothing to quantise, or a tensor has no range.
    """
    graph = gs.import_onnx(model)
    floating = residual_streams(graph)[-streams:] if streams else []
    inner = inner_convolutions(floating)
    keep_float = {*keep_float, *nodes_of(floating), *(node.name for node in inner)}
    nodes = quantised_nodes(graph, keep_float)
    if not nodes:
        raise ExportError("The graph has no convolutions: there is nothing to quantise.")
    chosen = set(quantised_tensors(graph, keep_float))
    missing = sorted(chosen - set(ranges))
    if missing:
        raise ExportError(f"There is no calibrated range for '{missing[0]}': calibrate the network anew.")
    tensors = {t.name: t for t in graph.tensors().values() if t.name in chosen}
    bounds = _tightened(nodes, {name: ranges[name] for name in sorted(chosen)})
    pairs = {name: _Pair(graph, tensors[name], bounds[name], scheme) for name in bounds}
    for node in nodes:
        if node.op in WEIGHTED:
            _quantise_weights(graph, node, pairs[node.inputs[0].name], scheme)
    if scheme.unsigned:
        products = Products(graph, {name: pair.narrow for name, pair in pairs.items()}, scheme.any_x86)
        for node in {n.name: n for group in floating for n in (*group.writers, *group.readers, *inner)}.values():
            products.write(node)
    for name, pair in pairs.items():
        for user in list(tensors[name].outputs):
            if user is not pair.quantise:
                user.inputs = [pair.result if value is tensors[name] else value for value in user.inputs]
    graph.cleanup().toposort()
    quantised: onnx.ModelProto = gs.export_onnx(graph)
    del quantised.graph.value_info[:]
    quantised.ir_version = IR_VERSION
    onnx.checker.check_model(quantised)
    return quantised


def _tightened(nodes: Sequence[gs.Node], bounds: Mapping[str, Range]) -> dict[str, Range]:
    """Ranges without what the ReLU behind a residual addition cuts off anyway: exact, and worth up to a bit.

    Below minus the largest value of the other branch, a convolution's result makes the sum negative whatever the other
    branch holds.
    """
    tight = dict(bounds)
    for node in nodes:
        users = node.outputs[0].outputs
        if node.op != "Add" or len(users) != 1 or users[0].op != "Relu":
            continue
        for branch, other in (node.inputs, node.inputs[::-1]):
            low, high = bounds[branch.name]
            if len(branch.outputs) == 1:
                tight[branch.name] = (max(low, -bounds[other.name][1]), high)
    return tight


class _Pair:
    """QuantizeLinear and DequantizeLinear on one activation."""

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
        self.narrow = Quantised(quantised, scale, point)
        self.quantise = gs.Node("QuantizeLinear", f"quantise_{name}", {}, [tensor, scale, point], [quantised])
        graph.nodes += [
            self.quantise,
            gs.Node("DequantizeLinear", f"dequantise_{name}", {}, [quantised, scale, point], [self.result]),
        ]


def _quantise_weights(graph: gs.Graph, node: gs.Node, activation: _Pair, scheme: Scheme) -> None:
    """Weights as INT8 per output channel behind a DequantizeLinear; for the CPU the bias as INT32 as well."""
    weight = node.inputs[1]
    if not isinstance(weight, gs.Constant):
        raise ExportError(f"The weights of '{node.name}' are computed, not constant: fold the graph first.")
    axis = 0 if node.op == "Conv" or (node.op == "Gemm" and node.attrs.get("transB", 0)) else 1
    first = np.moveaxis(weight.values.astype(np.float32), axis, 0)
    whole, scale = whole_weights(first.reshape(len(first), -1), scheme.any_x86)
    name = f"{node.name}_weight"
    whole = np.ascontiguousarray(np.moveaxis(whole.reshape(first.shape), 0, axis))
    node.inputs[1] = _dequantised(graph, name, whole, scale, axis)
    if scheme.unsigned and len(node.inputs) > 2 and isinstance(node.inputs[2], gs.Constant):
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
