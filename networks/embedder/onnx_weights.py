"""Constants of an ONNX file, dequantised: how weights are read from a published graph without running it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from networks.errors import NetworkError

Constants: TypeAlias = Mapping[str, NDArray[np.float32]]
MAX_BYTES = 512 << 20
"""Largest file that is read."""


def read(path: Path) -> Constants:
    """Read the float constants of a graph by name.

    A constant that DequantizeLinear makes of integers, in blocks or whole, and a Reshape of one, bears the name of the
    integers without ``_quantized``.

    Raises:
        NetworkError: the file is missing, too large or no ONNX file, or a constant cannot be dequantised.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise NetworkError(f"{path} is larger than {MAX_BYTES >> 20} MiB: it is no embedder of this service.")
        graph = onnx.load(str(path), load_external_data=False).graph
        tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    except OSError as error:
        raise NetworkError(f"The weights {path} cannot be read ({error.strerror}): run `make setup`.") from error
    except NetworkError:
        raise
    except Exception as error:  # protobuf's and NumPy's own, of many types
        raise NetworkError(f"{path} is no ONNX file ({type(error).__name__}).") from error
    try:
        return _folded(graph, tensors)
    except (KeyError, ValueError, IndexError) as error:
        raise NetworkError(f"{path} has constants that cannot be read ({error}).") from error


def _folded(graph: onnx.GraphProto, tensors: dict[str, NDArray[Any]]) -> Constants:
    folded = {name: value for name, value in tensors.items() if value.dtype == np.float32}
    names: dict[str, str] = {}
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in tensors:
            name = node.input[0].removesuffix("_quantized")
            folded[name] = _dequantised(node, tensors)
            names[node.output[0]] = name
        elif node.op_type == "Reshape" and node.input[0] in names:
            name = names[node.input[0]]
            folded[name] = folded[name].reshape(tensors[node.input[1]])
    return folded


def _dequantised(node: onnx.NodeProto, tensors: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
    """Compute DequantizeLinear (ONNX operator set 21): (values - zero point) * scale, along blocks of an axis."""
    attributes = {attribute.name: attribute.i for attribute in node.attribute}
    axis, block = attributes.get("axis", 1), attributes.get("block_size", 0)
    values = tensors[node.input[0]]
    scale = tensors[node.input[1]].astype(np.float32)
    zero = tensors[node.input[2]].astype(np.float32) if len(node.input) > 2 else np.zeros_like(scale)
    if block:
        kept = np.arange(values.shape[axis]) // block
        scale, zero = scale.take(kept, axis), zero.take(kept, axis)
    elif scale.ndim == 1 and scale.size > 1:
        shape = [1] * values.ndim
        shape[axis] = -1
        scale, zero = scale.reshape(shape), zero.reshape(shape)
    return (values.astype(np.float32) - zero) * scale
