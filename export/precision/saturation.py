"""Weights in signed bytes whose products are equal on every x86 processor, and the check of a graph for that.

Processors with VNNI accumulate products of an unsigned and a signed byte in 32 bits. For all others ONNX Runtime uses
VPMADDUBSW, which adds two neighbouring products in 16 bits and saturates without an error: 255 * 127 + 255 * 127 =
64770 becomes 32767. A sum of two products is exact as long as the two weights add up to no more than 128 (255 * 128 =
32640). Which two are neighbours depends on the kernel's layout of a convolution's window, so the bound here is that no
two weights of one output with the same sign add up to more. Kernels for signed activations shift them to unsigned ones,
so the same bound holds there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from export.errors import ExportError

MAX_WEIGHT = 127
"""Signed bytes without -128, so that a scale serves both signs."""
MAX_PAIR_SUM = 128
"""Largest sum of two weights of the same sign: 255 * 128 = 32640 fits into 16 signed bits, 255 * 129 does not."""
_QDQ_OPERATORS = {"Conv": 1, "ConvTranspose": 1, "Gemm": 1, "MatMul": 1}
"""Operators between Q/DQ pairs that become integer kernels -> index of their weights' input."""
_INTEGER_OPERATORS = {
    "MatMulInteger": 1,
    "ConvInteger": 1,
    "QLinearConv": 3,
    "QLinearMatMul": 3,
    "MatMulIntegerToFloat": 1,
    "DynamicQuantizeMatMul": 1,
    "QGemm": 3,
}
"""Operators on integers, including ONNX Runtime's own -> index of their weights' input."""


def integer_weights(rows: NDArray[np.float32], any_x86: bool) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Quantise weights to signed bytes with a scale for each output.

    Args:
        rows: (N, K), all weights of an output in a row.
        any_x86: whether no two weights of a row may add up to more than `MAX_PAIR_SUM`. That costs about one bit, and
            less where a single weight of a row is far larger than the others.

    Returns:
        (N, K) int8 and (N,) float32.
    """
    scale = np.abs(rows).max(1) / MAX_WEIGHT
    if any_x86:
        # Rounding may add a half to each of the two, hence one less than the bound.
        scale = np.maximum(scale, _largest_pair_sums(rows) / (MAX_PAIR_SUM - 1))
    scale = np.maximum(scale, 1e-12).astype(np.float32)
    integers = np.clip(np.rint(rows / scale[:, None]), -MAX_WEIGHT, MAX_WEIGHT).astype(np.int8)
    return integers, scale


def _largest_pair_sums(rows: NDArray[np.float32] | NDArray[np.int8]) -> NDArray[np.float64]:
    """Return for each row (N, K) the largest absolute sum of two of its numbers with the same sign."""
    wide = np.pad(rows.astype(np.float64), ((0, 0), (0, 2)))  # rows of a single number add up to that number
    ordered = np.sort(wide, axis=1)
    pairs: NDArray[np.float64] = np.maximum(ordered[:, -1].clip(0) + ordered[:, -2].clip(0), 0)
    return np.maximum(pairs, -(ordered[:, 0].clip(max=0) + ordered[:, 1].clip(max=0)))


def saturating(model: onnx.ModelProto) -> list[str]:
    """List the nodes whose integer products may saturate on an x86 processor without VNNI.

    Raises:
        ExportError: a node multiplies by signed bytes that are computed, so that saturation cannot be decided.
    """
    return [name for name, rows in _integer_weights(model) if (_largest_pair_sums(rows) > MAX_PAIR_SUM).any()]


def saturating_product(rows: NDArray[np.uint8], weights: NDArray[np.int8]) -> NDArray[np.int32]:
    """Compute (M, K) x (K, N) as VPMADDUBSW does: pairs of neighbours along K, each sum saturated to 16 bits."""
    odd = rows.shape[1] % 2
    left = np.pad(rows.astype(np.int32), ((0, 0), (0, odd)))
    right = np.pad(weights.astype(np.int32), ((0, odd), (0, 0)))
    pairs = left[:, 0::2, None] * right[None, 0::2] + left[:, 1::2, None] * right[None, 1::2]
    limits = np.iinfo(np.int16)
    return np.asarray(pairs.clip(limits.min, limits.max).sum(1, dtype=np.int32))


def _integer_weights(model: onnx.ModelProto) -> Iterator[tuple[str, NDArray[np.int8]]]:
    """Iterate over the nodes that multiply by signed bytes: name and weights (N, K), those of an output in a row."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    read = {node.output[0]: node for node in model.graph.node if node.op_type == "DequantizeLinear"}
    for node in model.graph.node:
        if node.op_type in _INTEGER_OPERATORS:
            name = node.input[_INTEGER_OPERATORS[node.op_type]]
        elif node.op_type in _QDQ_OPERATORS and node.input[0] in read and node.input[1] in read:
            name = read[node.input[1]].input[0]
        else:
            continue
        if name not in constants:
            raise ExportError(f"The weights of '{node.name}' are computed: whether its products saturate is unknown.")
        if constants[name].data_type == onnx.TensorProto.INT8:
            yield node.name, _rows(node, numpy_helper.to_array(constants[name]))


def _rows(node: onnx.NodeProto, weights: NDArray[np.int8]) -> NDArray[np.int8]:
    attributes: Mapping[str, object] = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    if "Conv" in node.op_type:
        if node.op_type == "ConvTranspose":
            weights = weights.swapaxes(0, 1)
        return weights.reshape(len(weights), -1)
    if not attributes.get("transB", 0):
        weights = weights.swapaxes(-1, -2)
    return weights.reshape(-1, weights.shape[-1])
