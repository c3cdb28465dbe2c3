"""Residual streams in float32 between integer products, for INT8 on a CPU.

In a trained ResNet the last residual stream may be thirty times larger on one picture than on another, in a few of its
channels. No fixed scale serves both, and leaving every convolution there in float32 takes a third of the time. So the
stream and its additions stay in float32, which costs nothing, while the products around it stay integers:

- what writes the stream (a 1x1 convolution) becomes a matrix product of 8-bit rows with a result in float32;
- what reads it (a 1x1 convolution, the heads) gets its rows in 8 bits with a scale for each place of the picture, found
  when it runs; so does the convolution between a reader and a writer, whose rows are its windows.

A scale of its own for each place and picture also means that no picture's result depends on its neighbours in a batch.
All operators are standard ONNX; ONNX Runtime has no integer convolution with a float32 result, hence the products.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from export.graphsurgeon import gs
from export.precision.channels import Group, channel_groups
from export.precision.saturation import whole_weights

ROWS = [0, 2, 3, 1]
"""Transposition that makes a place's channels a row."""
PLANES = [0, 3, 1, 2]
"""And back."""
SMALLEST = np.float32(1e-9)
"""Scale of a place where nothing is active."""
EVENNESS = 0.5
"""0: a head's columns stay as they are; 1: all are scaled to be alike, and what they read inversely."""


@dataclass(frozen=True)
class Quantised:
    """An activation in 8 bits: the tensor and what is needed to read it."""

    tensor: gs.Variable
    scale: gs.Constant
    zero: gs.Constant


def residual_streams(graph: gs.Graph) -> list[Group]:
    """Streams that can stay in float32, in order: additions between 1x1 convolutions, read after a ReLU."""
    return [
        group
        for group in channel_groups(graph)
        if group.additions
        and all(_is_product(node) for node in (*group.writers, *group.readers))
        and all(_is_positive(node.inputs[0]) for node in group.readers)
    ]


def nodes_of(groups: list[Group]) -> set[str]:
    """Names of all nodes that belong to streams: convolutions, products, additions and what flattens for the heads."""
    nodes = [node for group in groups for node in (*group.writers, *group.readers, *group.additions)]
    flattened = [node.inputs[0].inputs[0] for node in nodes if node.op == "Gemm"]
    return {node.name for node in (*nodes, *(node for node in flattened if node.op == "Flatten"))}


def inner_convolutions(groups: list[Group]) -> list[gs.Node]:
    """Convolutions that lie between a reader and a writer of these streams, behind a ReLU each."""
    writers = {id(node) for group in groups for node in group.writers}
    found = []
    for reader in (node for group in groups for node in group.readers):
        inner = _behind_relu(reader)
        last = _behind_relu(inner) if inner is not None else None
        if inner is not None and last is not None and id(last) in writers and _is_windowed(inner):
            found.append(inner)
    return found


def _behind_relu(node: gs.Node) -> gs.Node | None:
    """The only convolution that reads a node's result, if a ReLU stands between them."""
    relu = node.outputs[0].outputs
    users = relu[0].outputs[0].outputs if len(relu) == 1 and relu[0].op == "Relu" else []
    return users[0] if len(users) == 1 and users[0].op == "Conv" else None


def _is_windowed(node: gs.Node) -> bool:
    """Whether a convolution is padded by half its window, reads every channel and leaves no place out inside."""
    sides = list(node.inputs[1].shape[2:])
    whole = node.attrs.get("group", 1) == 1 and list(node.attrs.get("dilations", [1, 1])) == [1, 1]
    return whole and len(node.inputs) == 3 and list(node.attrs.get("pads", [])) == [side // 2 for side in sides] * 2


class Products:
    """Writes the convolutions and products of streams as integer matrix products.

    Args:
        graph: changed in place.
        quantised: activations by name that are quantised with a fixed scale; what is not among them is quantised as it
            comes.
        any_x86: whether the products must not saturate on a processor without VNNI.
    """

    def __init__(self, graph: gs.Graph, quantised: Mapping[str, Quantised], any_x86: bool) -> None:
        self.graph = graph
        self.quantised = quantised
        self.any_x86 = any_x86
        self.owner = ""
        self.count = 0

    def write(self, node: gs.Node) -> None:
        """Replace one convolution or matrix product."""
        self.owner, self.count = node.name, 0
        value, weight, bias = node.inputs
        # A window's numbers are in the order of places, then channels, as `_windows` lays them out.
        columns_first = weight.values if node.op == "Gemm" else weight.values.transpose(0, 2, 3, 1)
        matrix = columns_first.reshape(len(weight.values), -1)
        result = node.outputs[0]
        node.outputs.clear()
        rows = value if node.op == "Gemm" else None
        if rows is not None and value.name not in self.quantised:
            # An output of a head has one scale over a whole map: columns of large weights would cost all others theirs.
            factors = _even(matrix)
            matrix = matrix / factors
            rows = self._node("Mul", [rows, self._constant(factors)])
        whole, scale = whole_weights(matrix, self.any_x86)
        whole = np.ascontiguousarray(whole.T)
        if value.name in self.quantised:
            known = self.quantised[value.name]
            rows = known.tensor if rows is not None else self._rows(known.tensor, node)
            row = self._node("DequantizeLinear", [rows, known.scale, known.zero])
            columns = [self._constant(whole), self._constant(scale), self._constant(np.zeros_like(scale, np.int8))]
            product = self._node("MatMul", [row, self._node("DequantizeLinear", columns, {"axis": 1})])
        else:
            if rows is None:
                rows = self._rows(value, node) if list(weight.shape[2:]) == [1, 1] else self._windows(value, node)
            product = self._as_it_comes(rows, whole, scale)
        if node.op == "Gemm":
            self._node("Add", [product, bias], result=result)
            return
        summed = self._node("Add", [product, bias])
        user = result.outputs[0] if len(result.outputs) == 1 else None
        if user is not None and user.op == "Relu" and user.outputs[0].name in self.quantised:
            # Back to planes in 8 bits: ONNX Runtime would leave a transposition in float32 between the scale and the
            # convolution, which then runs in float32 as well.
            known = self.quantised[user.outputs[0].name]
            quantise = known.tensor.inputs[0]
            user.outputs.clear()
            narrow = self._node(
                "QuantizeLinear", [self._node("Relu", [summed]), known.scale, known.zero], dtype=known.tensor.dtype
            )
            quantise.outputs.clear()
            self._node("Transpose", [narrow], {"perm": PLANES}, result=known.tensor)
        else:
            self._node("Transpose", [summed], {"perm": PLANES}, result=result)

    def _as_it_comes(self, rows: gs.Variable, whole: NDArray[np.int8], scale: NDArray[np.float32]) -> gs.Variable:
        """Rows of numbers >= 0, quantised with a scale each, times a matrix."""
        largest = self._node("ReduceMax", [rows, self._constant(np.array([-1]))], {"keepdims": 1})
        step = self._node("Mul", [largest, self._constant(np.float32(1 / 255))])
        step = self._node("Max", [step, self._constant(SMALLEST)])
        rounded = self._node("Round", [self._node("Div", [rows, step])])
        narrow = self._node("Cast", [rounded], {"to": onnx.TensorProto.UINT8}, dtype=np.uint8)
        product = self._node("MatMulInteger", [narrow, self._constant(whole)], dtype=np.int32)
        wide = self._node("Cast", [product], {"to": onnx.TensorProto.FLOAT})
        return self._node("Mul", [self._node("Mul", [wide, step]), self._constant(scale)])

    def _rows(self, tensor: gs.Variable, node: gs.Node) -> gs.Variable:
        """Planes [B,C,h,w] as rows [B,h,w,C], those places only that a strided convolution looks at."""
        strides = node.attrs.get("strides", [1, 1])
        if list(strides) != [1, 1]:
            slices = [np.zeros(2), np.full(2, np.iinfo(np.int64).max), np.array([2, 3]), np.array(strides)]
            constants = [self._constant(values.astype(np.int64)) for values in slices]
            tensor = self._node("Slice", [tensor, *constants], dtype=tensor.dtype)
        return self._node("Transpose", [tensor], {"perm": ROWS}, dtype=tensor.dtype)

    def _windows(self, tensor: gs.Variable, node: gs.Node) -> gs.Variable:
        """Planes [B,C,h,w] as rows [B,h',w',k*k*C]: what a padded convolution sees at each place."""
        high, wide = node.inputs[1].shape[2:]
        rows = self._node("Transpose", [tensor], {"perm": ROWS})
        margins = np.array([0, high // 2, wide // 2, 0] * 2, np.int64)
        rows = self._node("Pad", [rows, self._constant(margins)])
        axes, steps = (self._constant(np.array(v, np.int64)) for v in ([1, 2], node.attrs.get("strides", [1, 1])))
        shifted = []
        for place in np.ndindex(high, wide):
            missing = np.array(place) - (high - 1, wide - 1)
            ends = np.where(missing < 0, missing, np.iinfo(np.int64).max)
            limits = [self._constant(np.array(values, np.int64)) for values in (place, ends)]
            shifted.append(self._node("Slice", [rows, *limits, axes, steps]))
        return self._node("Concat", shifted, {"axis": -1})

    def _node(
        self,
        op: str,
        inputs: list[gs.Tensor],
        attributes: Mapping[str, object] | None = None,
        dtype: type[np.generic] = np.float32,
        result: gs.Variable | None = None,
    ) -> gs.Variable:
        self.count += 1
        name = f"{self.owner}_{op}_{self.count}"
        output = result if result is not None else gs.Variable(f"{name}_output", dtype=dtype)
        self.graph.nodes.append(gs.Node(op, name, dict(attributes or {}), inputs, [output]))
        return output

    def _constant(self, values: NDArray[np.generic] | np.generic) -> gs.Constant:
        self.count += 1
        return gs.Constant(f"{self.owner}_constant_{self.count}", np.asarray(values))


def _even(matrix: NDArray[np.float32]) -> NDArray[np.float32]:
    """What columns of a matrix (N, K) are divided by, and what they read (M, K) multiplied by: more for large weights.

    Large against the largest of their output, as an output's scale is its own.
    """
    heights = np.maximum(np.abs(matrix).max(1, keepdims=True), 1e-12)
    largest = (np.abs(matrix) / heights).max(0)
    usual = max(float(largest.mean()), 1e-12)
    factors: NDArray[np.float32] = np.clip(largest / usual, 1e-3, None) ** np.float32(EVENNESS)
    return factors.astype(np.float32)


def _is_product(node: gs.Node) -> bool:
    """Whether a node is a matrix product: of a flattened map, or of the places of a map one by one."""
    if node.op == "Gemm":
        return bool(node.attrs.get("alpha", 1.0) == 1.0 and node.attrs.get("beta", 1.0) == 1.0)
    return list(node.inputs[1].shape[2:]) == [1, 1] and not any(node.attrs.get("pads", []))


def _is_positive(tensor: gs.Variable) -> bool:
    """Whether a tensor comes out of a ReLU, perhaps flattened."""
    producer = tensor.inputs[0]
    if producer.op == "Flatten":
        producer = producer.inputs[0].inputs[0]
    return bool(producer.op == "Relu")
