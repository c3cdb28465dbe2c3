"""Half precision by conversion of the graph: the convolutional network in float16, all other nodes in float32.

Strongly typed TensorRT builds exactly the types of the file, so they are chosen and checked here. Inputs and outputs
keep their types.
"""

from __future__ import annotations

import numpy as np
import onnx

from export.errors import ExportError
from export.graphsurgeon import gs, to_model
from export.precision.region import FLOAT_OPERATORS, is_variable, network_nodes

MAX_FLOAT16 = 65504.0
"""Largest finite float16."""


def to_fp16(model: onnx.ModelProto, keep_last: bool = True) -> onnx.ModelProto:
    """Convert the convolutional network (`network_nodes`) to float16.

    Args:
        model: float32, after surgery; not changed.
        keep_last: leave the last convolutions (the heads) in float32.

    Raises:
        ExportError: a weight does not fit into float16, or there is no network to convert.
    """
    graph = gs.import_onnx(onnx.shape_inference.infer_shapes(model))
    nodes = network_nodes(graph, keep_last, FLOAT_OPERATORS)
    if not nodes:
        raise ExportError("The graph has no convolutions: there is nothing to convert to fp16.")
    inside = {id(node) for node in nodes}
    casts_to_float16: dict[str, gs.Variable] = {}
    constants: dict[str, gs.Constant] = {}
    produced: list[gs.Variable] = []
    for node in nodes:
        for index, tensor in enumerate(node.inputs):
            if isinstance(tensor, gs.Constant):
                if tensor.values.dtype == np.float32 and node.op != "Resize":
                    if tensor.name not in constants:
                        constants[tensor.name] = _narrow_constant(tensor)
                    node.inputs[index] = constants[tensor.name]
            elif is_variable(tensor) and not any(id(producer) in inside for producer in tensor.inputs):
                node.inputs[index] = _cast(graph, tensor, np.float16, "narrow", casts_to_float16)
        produced += [tensor for tensor in node.outputs if is_variable(tensor)]
    casts_to_float32: dict[str, gs.Variable] = {}
    for tensor in produced:
        outside = [user for user in tensor.outputs if id(user) not in inside and user.op != "Cast"]
        outside += [user for user in tensor.outputs if user.op == "Cast" and not user.name.startswith("narrow")]
        tensor.dtype = np.float16
        for user in outside:
            wide = _cast(graph, tensor, np.float32, "widen", casts_to_float32)
            user.inputs = [wide if value is tensor else value for value in user.inputs]
        if any(output is tensor for output in graph.outputs):
            raise ExportError(f"The output '{tensor.name}' comes straight out of a convolution; it must stay float32.")
    return to_model(graph)


def _narrow_constant(tensor: gs.Constant) -> gs.Constant:
    values = tensor.values
    if np.abs(values).max(initial=0.0) > MAX_FLOAT16:
        raise ExportError(f"The weight '{tensor.name}' holds {np.abs(values).max():.3g}, more than float16 can.")
    return gs.Constant(f"{tensor.name}_fp16", values.astype(np.float16))


def _cast(
    graph: gs.Graph, tensor: gs.Variable, dtype: type[np.generic], kind: str, done: dict[str, gs.Variable]
) -> gs.Variable:
    """Return the cast of a tensor, one for all of its users."""
    if tensor.name not in done:
        result = gs.Variable(f"{tensor.name}_{kind}", dtype=dtype, shape=tensor.shape)
        to = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        graph.nodes.append(gs.Node("Cast", f"{kind}_{tensor.name}", {"to": to}, [tensor], [result]))
        done[tensor.name] = result
    return done[tensor.name]
