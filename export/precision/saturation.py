"""Weights in signed bytes whose products are the same on every x86 processor, and the check that they are.

Processors with VNNI add up products of an unsigned and a signed byte in 32 bits. For all others ONNX Runtime has
kernels on VPMADDUBSW, which adds two neighbouring products in 16 bits and saturates: 255 * 127 + 255 * 127 = 64770
becomes 32767, in silence. A sum of two products is exact as long as the two weights add up to no more than 128
(255 * 128 = 32640). Which two are neighbours is the kernel's affair (it depends on how a convolution's window is laid
out), so the bound here is that no two weights of one output with the same sign add up to more. Kernels for signed
activations shift them to unsigned ones, so the same bound holds there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from export.errors import ExportError

LARGEST_WEIGHT = 127
"""Signed bytes without -128, so that a scale serves both signs."""
LARGEST_PAIR = 128
"""What two weights of the same sign may add up to: 255 * 128 = 32640 fits into 16 signed bits, 255 * 129 does not."""
_FROM_RANGES = {"Conv": 1, "ConvTranspose": 1, "Gemm": 1, "MatMul": 1}
"""Operators between Q/DQ pairs that become integer kernels -> which input holds the weights."""
_IN_INTEGERS = {
    "MatMulInteger": 1,
    "ConvInteger": 1,
    "QLinearConv": 3,
    "QLinearMatMul": 3,
    "MatMulIntegerToFloat": 1,
    "DynamicQuantizeMatMul": 1,
    "QGemm": 3,
}
"""Operators on integers, ONNX Runtime's own among them -> the same."""


def whole_weights(rows: NDArray[np.float32], any_x86: bool) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Weights as signed bytes, and a scale for each output.

    Args:
        rows: (N, K), all weights of an output in a row.
        any_x86: whether no two weights of a row may add up to more than `LARGEST_PAIR`. That costs about one bit, and
            less where a single weight of a row is far larger than the others.

    Returns:
        (N, K) int8 and (N,) float32.
    """
    scale = np.abs(rows).max(1) / LARGEST_WEIGHT
    if any_x86:
        # Rounding may add a half to each of the two, hence one less than the bound.
        scale = np.maximum(scale, _largest_pairs(rows) / (LARGEST_PAIR - 1))
    scale = np.maximum(scale, 1e-12).astype(np.float32)
    whole = np.clip(np.rint(rows / scale[:, None]), -LARGEST_WEIGHT, LARGEST_WEIGHT).astype(np.int8)
    return whole, scale


def _largest_pairs(rows: NDArray[np.float32] | NDArray[np.int8]) -> NDArray[np.float64]:
    """For each row (N, K) the largest sum of two of its numbers with the same sign, without the sign."""
    wide = np.pad(rows.astype(np.float64), ((0, 0), (0, 2)))  # rows of a single number add up to that number
    ordered = np.sort(wide, axis=1)
    pairs: NDArray[np.float64] = np.maximum(ordered[:, -1].clip(0) + ordered[:, -2].clip(0), 0)
    return np.maximum(pairs, -(ordered[:, 0].clip(max=0) + ordered[:, 1].clip(max=0)))


def saturating(model: onnx.ModelProto) -> list[str]:
    """Names of the nodes whose integer products may saturate on an x86 processor without VNNI.

    Raises:
        ExportError: a node multiplies integers by signed bytes that are computed, so that nothing can be said.
    """
    return [name for name, rows in _integer_weights(model) if (_largest_pairs(rows) > LARGEST_PAIR).any()]


def saturating_product(rows: NDArray[np.uint8], weights: NDArray[np.int8]) -> NDArray[np.int32]:
    """The product (M, K) x (K, N) as VPMADDUBSW computes it: neighbours along K in pairs, each sum in 16 bits."""
    odd = rows.shape[1] % 2
    left = np.pad(rows.astype(np.int32), ((0, 0), (0, odd)))
    right = np.pad(weights.astype(np.int32), ((0, odd), (0, 0)))
    pairs = left[:, 0::2, None] * right[None, 0::2] + left[:, 1::2, None] * right[None, 1::2]
    limits = np.iinfo(np.int16)
    return np.asarray(pairs.clip(limits.min, limits.max).sum(1, dtype=np.int32))


def _integer_weights(model: onnx.ModelProto) -> Iterator[tuple[str, NDArray[np.int8]]]:
    """Name of each node that multiplies by signed bytes, and these, all of an output in a row."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    read = {node.output[0]: node for node in model.graph.node if node.op_type == "DequantizeLinear"}
    for node in model.graph.node:
        if node.op_type in _IN_INTEGERS:
            name = node.input[_IN_INTEGERS[node.op_type]]
        elif node.op_type in _FROM_RANGES and node.input[0] in read and node.input[1] in read:
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
