"""Residual streams in float32 between integer products, for INT8 on a CPU.

In a trained ResNet a few channels of the last residual stream may be thirty times larger on one picture than on
another. No fixed scale suits both, and leaving every convolution there in float32 takes a third of the time. So the
stream and its
additions stay in float32, at no cost, while the products around it stay integers:

- a writer of the stream (a 1x1 convolution) becomes a matrix product of 8-bit rows with a result in float32;
- a reader (a 1x1 convolution, a head) quantises its rows dynamically, with a scale for each position of the map; so
  does the convolution between a reader and a writer, whose rows are its windows.

With a scale for each position and picture no result depends on other pictures of the batch. All operators are standard
ONNX; ONNX Runtime has no integer convolution with a float32 result, hence the matrix products.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from export.graphsurgeon import gs
from export.precision.channels import Group, channel_groups
from export.precision.saturation import integer_weights

ROWS = [0, 2, 3, 1]
"""Transposition from planes [B,C,h,w] to rows [B,h,w,C]."""
PLANES = [0, 3, 1, 2]
"""Transposition from rows to planes."""
MIN_SCALE = np.float32(1e-9)
"""Scale of a position whose channels are all zero."""
COLUMN_BALANCE = 0.5
"""0: a head's columns are not scaled; 1: all are scaled to equal peaks, and their inputs inversely."""


@dataclass(frozen=True)
class Quantised:
    """An activation in 8 bits: the tensor, its scale and its zero point."""

    tensor: gs.Variable
    scale: gs.Constant
    zero: gs.Constant


def residual_streams(graph: gs.Graph) -> list[Group]:
    """List the streams that can stay in float32, in order: additions between 1x1 convolutions, read after a ReLU."""
    return [
        group
        for group in channel_groups(graph)
        if group.additions
        and all(_is_product(node) for node in (*group.writers, *group.readers))
        and all(_is_positive(node.inputs[0]) for node in group.readers)
    ]


def node_names(groups: list[Group]) -> set[str]:
    """Return the names of all nodes of streams: convolutions, products, additions, and Flatten before heads."""
    nodes = [node for group in groups for node in (*group.writers, *group.readers, *group.additions)]
    flattened = [node.inputs[0].inputs[0] for node in nodes if node.op == "Gemm"]
    return {node.name for node in (*nodes, *(node for node in flattened if node.op == "Flatten"))}


def inner_convolutions(groups: list[Group]) -> list[gs.Node]:
    """List the convolutions between a reader and a writer of these streams, each after a ReLU."""
    writers = {id(node) for group in groups for node in group.writers}
    convolutions = []
    for reader in (node for group in groups for node in group.readers):
        inner = _behind_relu(reader)
        last = _behind_relu(inner) if inner is not None else None
        if inner is not None and last is not None and id(last) in writers and _is_windowed(inner):
            convolutions.append(inner)
    return convolutions


def _behind_relu(node: gs.Node) -> gs.Node | None:
    """Return the only convolution that reads a node's result through a ReLU, or None."""
    relu = node.outputs[0].outputs
    users = relu[0].outputs[0].outputs if len(relu) == 1 and relu[0].op == "Relu" else []
    return users[0] if len(users) == 1 and users[0].op == "Conv" else None


def _is_windowed(node: gs.Node) -> bool:
    """Tell whether a convolution is padded by half its window, and neither grouped nor dilated."""
    sides = list(node.inputs[1].shape[2:])
    all_channels = node.attrs.get("group", 1) == 1 and list(node.attrs.get("dilations", [1, 1])) == [1, 1]
    half_padded = list(node.attrs.get("pads", [])) == [side // 2 for side in sides] * 2
    return all_channels and len(node.inputs) == 3 and half_padded


class Products:
    """Writes the convolutions and products of streams as integer matrix products.

    Args:
        graph: changed in place.
        quantised: activations by name that have a fixed scale; others are quantised dynamically.
        any_x86: whether the products must not saturate on a processor without VNNI.
    """

    def __init__(self, graph: gs.Graph, quantised: Mapping[str, Quantised], any_x86: bool) -> None:
        self.graph = graph
        self.quantised = quantised
        self.any_x86 = any_x86
        self.node_name = ""
        self.count = 0

    def write(self, node: gs.Node) -> None:
        """Replace one convolution or matrix product."""
        self.node_name, self.count = node.name, 0
        value, weight, bias = node.inputs
        # A window's numbers are ordered by position, then channel, as `_windows` writes them.
        window_matrix = weight.values if node.op == "Gemm" else weight.values.transpose(0, 2, 3, 1)
        matrix = window_matrix.reshape(len(weight.values), -1)
        result = node.outputs[0]
        node.outputs.clear()
        rows = value if node.op == "Gemm" else None
        if rows is not None and value.name not in self.quantised:
            # An output of a head has one scale for the whole map: columns of large weights would cost the others
            # levels.
            factors = _column_factors(matrix)
            matrix = matrix / factors
            rows = self._node("Mul", [rows, self._constant(factors)])
        integers, scale = integer_weights(matrix, self.any_x86)
        integers = np.ascontiguousarray(integers.T)
        if value.name in self.quantised:
            quantised = self.quantised[value.name]
            rows = quantised.tensor if rows is not None else self._rows(quantised.tensor, node)
            row = self._node("DequantizeLinear", [rows, quantised.scale, quantised.zero])
            columns = [self._constant(integers), self._constant(scale), self._constant(np.zeros_like(scale, np.int8))]
            product = self._node("MatMul", [row, self._node("DequantizeLinear", columns, {"axis": 1})])
        else:
            if rows is None:
                rows = self._rows(value, node) if list(weight.shape[2:]) == [1, 1] else self._windows(value, node)
            product = self._dynamic_product(rows, integers, scale)
        if node.op == "Gemm":
            self._node("Add", [product, bias], result=result)
            return
        summed = self._node("Add", [product, bias])
        user = result.outputs[0] if len(result.outputs) == 1 else None
        if user is not None and user.op == "Relu" and user.outputs[0].name in self.quantised:
            # Transposed in 8 bits: ONNX Runtime would leave a transposition in float32 between the scale and the
            # convolution, which would then run in float32 as well.
            quantised = self.quantised[user.outputs[0].name]
            quantise = quantised.tensor.inputs[0]
            user.outputs.clear()
            narrow = self._node(
                "QuantizeLinear",
                [self._node("Relu", [summed]), quantised.scale, quantised.zero],
                dtype=quantised.tensor.dtype,
            )
            quantise.outputs.clear()
            self._node("Transpose", [narrow], {"perm": PLANES}, result=quantised.tensor)
        else:
            self._node("Transpose", [summed], {"perm": PLANES}, result=result)

    def _dynamic_product(
        self, rows: gs.Variable, integers: NDArray[np.int8], scale: NDArray[np.float32]
    ) -> gs.Variable:
        """Multiply rows of numbers >= 0, each quantised with its own scale at run time, by a matrix."""
        largest = self._node("ReduceMax", [rows, self._constant(np.array([-1]))], {"keepdims": 1})
        step = self._node("Mul", [largest, self._constant(np.float32(1 / 255))])
        step = self._node("Max", [step, self._constant(MIN_SCALE)])
        rounded = self._node("Round", [self._node("Div", [rows, step])])
        narrow = self._node("Cast", [rounded], {"to": onnx.TensorProto.UINT8}, dtype=np.uint8)
        product = self._node("MatMulInteger", [narrow, self._constant(integers)], dtype=np.int32)
        wide = self._node("Cast", [product], {"to": onnx.TensorProto.FLOAT})
        return self._node("Mul", [self._node("Mul", [wide, step]), self._constant(scale)])

    def _rows(self, tensor: gs.Variable, node: gs.Node) -> gs.Variable:
        """Transpose planes [B,C,h,w] to rows [B,h,w,C], at the positions of a strided convolution."""
        strides = node.attrs.get("strides", [1, 1])
        if list(strides) != [1, 1]:
            slices = [np.zeros(2), np.full(2, np.iinfo(np.int64).max), np.array([2, 3]), np.array(strides)]
            constants = [self._constant(values.astype(np.int64)) for values in slices]
            tensor = self._node("Slice", [tensor, *constants], dtype=tensor.dtype)
        return self._node("Transpose", [tensor], {"perm": ROWS}, dtype=tensor.dtype)

    def _windows(self, tensor: gs.Variable, node: gs.Node) -> gs.Variable:
        """Unfold planes [B,C,h,w] to rows [B,h',w',k*k*C]: the windows of a padded convolution (im2col)."""
        high, wide = node.inputs[1].shape[2:]
        rows = self._node("Transpose", [tensor], {"perm": ROWS})
        margins = np.array([0, high // 2, wide // 2, 0] * 2, np.int64)
        rows = self._node("Pad", [rows, self._constant(margins)])
        axes, steps = (self._constant(np.array(v, np.int64)) for v in ([1, 2], node.attrs.get("strides", [1, 1])))
        windows = []
        for position in np.ndindex(high, wide):
            missing = np.array(position) - (high - 1, wide - 1)
            ends = np.where(missing < 0, missing, np.iinfo(np.int64).max)
            limits = [self._constant(np.array(values, np.int64)) for values in (position, ends)]
            windows.append(self._node("Slice", [rows, *limits, axes, steps]))
        return self._node("Concat", windows, {"axis": -1})

    def _node(
        self,
        op: str,
        inputs: list[gs.Tensor],
        attributes: Mapping[str, object] | None = None,
        dtype: type[np.generic] = np.float32,
        result: gs.Variable | None = None,
    ) -> gs.Variable:
        self.count += 1
        name = f"{self.node_name}_{op}_{self.count}"
        output = result if result is not None else gs.Variable(f"{name}_output", dtype=dtype)
        self.graph.nodes.append(gs.Node(op, name, dict(attributes or {}), inputs, [output]))
        return output

    def _constant(self, values: NDArray[np.generic] | np.generic) -> gs.Constant:
        self.count += 1
        return gs.Constant(f"{self.node_name}_constant_{self.count}", np.asarray(values))


def _column_factors(matrix: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return factors (K,) that columns of a matrix (N, K) are divided by, and their inputs (M, K) multiplied by.

    They grow with a column's weights relative to the largest of each row, as every row has its own scale.
    """
    row_peaks = np.maximum(np.abs(matrix).max(1, keepdims=True), 1e-12)
    largest = (np.abs(matrix) / row_peaks).max(0)
    mean = max(float(largest.mean()), 1e-12)
    factors: NDArray[np.float32] = np.clip(largest / mean, 1e-3, None) ** np.float32(COLUMN_BALANCE)
    return factors.astype(np.float32)


def _is_product(node: gs.Node) -> bool:
    """Tell whether a node is a matrix product: of a flattened map, or of a map's positions one by one."""
    if node.op == "Gemm":
        return bool(node.attrs.get("alpha", 1.0) == 1.0 and node.attrs.get("beta", 1.0) == 1.0)
    return list(node.inputs[1].shape[2:]) == [1, 1] and not any(node.attrs.get("pads", []))


def _is_positive(tensor: gs.Variable) -> bool:
    """Tell whether a tensor is the result of a ReLU, possibly flattened."""
    producer = tensor.inputs[0]
    if producer.op == "Flatten":
        producer = producer.inputs[0].inputs[0]
    return bool(producer.op == "Relu")
