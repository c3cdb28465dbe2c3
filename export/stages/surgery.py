"""Stage 2: fold, strip and rename the traced graph with ONNX GraphSurgeon, and free an axis.

The tracer leaves thousands of nodes that compute constants and shapes; folding them makes a graph load faster and
easier to read. Vertex counts are constants in a traced graph, but the repository's configurations leave
that axis open (-1) so that one configuration serves any face model; `free_axes` opens it again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx

from export.graph import BATCH, IR_VERSION, set_shape, shape_of
from export.graphsurgeon import gs


def clean(model: onnx.ModelProto, dynamic_axes: Mapping[str, Mapping[int, str]] | None = None) -> onnx.ModelProto:
    """Fold constants, remove unused nodes, sort, and strip the tracer's debugging information.

    Args:
        model: a traced graph; not changed.
        dynamic_axes: tensor -> axis -> name, for axes besides the batch; an output's becomes free although the trace
            knows its size (the vertices).

    Returns:
        A checked graph with the same interface.
    """
    interface = {value.name: shape_of(value) for value in (*model.graph.input, *model.graph.output)}
    graph = gs.import_onnx(model)
    graph.fold_constants()
    resolve_rank_tests(graph)
    bypass_identities(graph)
    bake_scales(graph)
    merge_siblings(graph)
    flatten_heads(graph, known_shapes(model))
    graph.cleanup().toposort().fold_constants().cleanup()
    for index, node in enumerate(graph.nodes):
        # The tracer's names are paths through the Python modules; short ones make reports and profiles readable.
        node.name = f"{node.op}_{index}"
    outputs = {value.name for value in graph.outputs}
    for tensor, axes in (dynamic_axes or {}).items():
        if tensor in outputs:
            free_axes(graph, tensor, axes)
            for axis, name in axes.items():
                interface[tensor][axis] = name
    graph.cleanup().toposort()
    cleaned: onnx.ModelProto = gs.export_onnx(graph)
    del cleaned.graph.value_info[:]
    cleaned.graph.name = model.graph.name
    cleaned.ir_version = IR_VERSION
    cleaned.producer_name = "face3d export"
    for value in (*cleaned.graph.input, *cleaned.graph.output):
        set_shape(value, interface[value.name])
    onnx.checker.check_model(cleaned)
    return cleaned


def resolve_rank_tests(graph: gs.Graph) -> None:
    """Replace the tracer's `if rank(x) == 0` by its else branch: every tensor has a batch axis.

    The tracer writes such a test around scatter operations. TensorRT would have to compile both branches, and ONNX
    Runtime complains about their differing shapes on every run.
    """
    for node in [node for node in graph.nodes if node.op == "If"]:
        test = node.inputs[0].inputs[0] if node.inputs[0].inputs else None
        if test is None or test.op != "Equal" or not _is_rank(test.inputs[0]) or np.any(test.inputs[1].values != 0):
            continue
        branch = node.attrs["else_branch"]
        graph.nodes.extend(branch.nodes)
        for outer, inner in zip(list(node.outputs), branch.outputs, strict=True):
            for user in list(outer.outputs):
                user.inputs = [inner if value is outer else value for value in user.inputs]
        node.outputs.clear()
        node.inputs.clear()


def bypass_identities(graph: gs.Graph) -> None:
    """Connect users of an Identity to its input; an Identity that produces an output of the graph stays."""
    for node in graph.nodes:
        if node.op == "Identity" and node.outputs and not any(value is node.outputs[0] for value in graph.outputs):
            for user in list(node.outputs[0].outputs):
                user.inputs = [node.inputs[0] if value is node.outputs[0] else value for value in user.inputs]


def bake_scales(graph: gs.Graph) -> None:
    """Fold a scalar multiplication or division into the convolutions that follow (the normalisation of pixels).

    Exact, as zero padding stays zero. Only where convolutions are the only users, directly or after average pooling.
    """
    for node in [node for node in graph.nodes if node.op in ("Mul", "Div")]:
        value, factor = node.inputs
        if not isinstance(factor, gs.Constant) or factor.values.size != 1 or isinstance(value, gs.Constant):
            continue
        convolutions = _convolutions_behind(graph, node.outputs[0]) if node.outputs else []
        number = np.float32(factor.values.item())
        for user in convolutions:
            weight = user.inputs[1]
            scaled = weight.values * number if node.op == "Mul" else weight.values / number
            user.inputs[1] = gs.Constant(f"{weight.name}_scaled", scaled.astype(np.float32))
        if convolutions:
            for user in list(node.outputs[0].outputs):
                user.inputs[0] = value


def _convolutions_behind(graph: gs.Graph, tensor: gs.Tensor) -> list[gs.Node]:
    """Return the users of a tensor if they are convolutions, or average pools followed by convolutions; else none."""
    if any(output is tensor for output in graph.outputs):
        return []
    found: list[gs.Node] = []
    for user in tensor.outputs:
        if user.inputs[0] is not tensor or user.op not in ("Conv", "AveragePool"):
            return []
        behind = [user] if user.op == "Conv" else _convolutions_behind(graph, user.outputs[0])
        if not behind:
            return []
        found += behind
    return found


def merge_siblings(graph: gs.Graph) -> None:
    """Merge convolutions of one tensor whose only user is a common Concat of channels (the heads).

    The family's files have seven heads; merged, they are rows of one matrix.
    """
    for concat in [node for node in graph.nodes if node.op == "Concat" and node.attrs["axis"] == 1]:
        heads = [tensor.inputs[0] for tensor in concat.inputs if len(tensor.inputs) == 1]
        if len(heads) < 2 or len(heads) < len(concat.inputs) or not all(_alike(heads[0], head) for head in heads):
            continue
        first = heads[0]
        merged = [
            gs.Constant(f"{first.inputs[i].name}_merged", np.concatenate([head.inputs[i].values for head in heads]))
            for i in (1, 2)
        ]
        graph.nodes.append(
            gs.Node("Conv", f"{first.name}_merged", first.attrs, [first.inputs[0], *merged], [concat.outputs[0]])
        )
        for node in (concat, *heads):
            node.outputs.clear()


def _alike(first: gs.Node, other: gs.Node) -> bool:
    """Tell whether two nodes are convolutions of one tensor with equal settings, each read by one node."""
    return bool(
        other.op == "Conv"
        and other.attrs == first.attrs
        and other.attrs.get("group", 1) == 1
        and len(other.inputs) == 3
        and other.inputs[0] is first.inputs[0]
        and all(isinstance(tensor, gs.Constant) for tensor in other.inputs[1:])
        and len(other.outputs[0].outputs) == 1
    )


def known_shapes(model: onnx.ModelProto) -> dict[str, list[int | str]]:
    """Infer shapes by name of tensor.

    They are not written into the graph, where the traced batch size would be folded into constants.
    """
    return {value.name: shape_of(value) for value in onnx.shape_inference.infer_shapes(model).graph.value_info}


def flatten_heads(graph: gs.Graph, shapes: Mapping[str, Sequence[int | str]]) -> None:
    """Replace a convolution over its whole input, followed by Flatten, by the equal matrix product.

    Runtimes have much faster kernels for that.
    """
    for node in [node for node in graph.nodes if node.op == "Conv" and len(node.inputs) == 3 and node.outputs]:
        value, weight, bias = node.inputs
        if not isinstance(weight, gs.Constant) or not isinstance(bias, gs.Constant):
            continue
        users = node.outputs[0].outputs
        flat = len(users) == 1 and users[0].op == "Flatten" and users[0].attrs.get("axis", 1) == 1
        covers = list(shapes.get(value.name, []))[1:] == list(weight.values.shape[1:])
        if not flat or not covers or any(node.attrs.get("pads", [])) or node.attrs.get("group", 1) != 1:
            continue
        row = gs.Variable(f"{node.name}_row", dtype=np.float32, shape=[BATCH, int(np.prod(weight.values.shape[1:]))])
        matrix = gs.Constant(f"{weight.name}_matrix", weight.values.reshape(len(weight.values), -1))
        graph.nodes.append(gs.Node("Flatten", f"{node.name}_flat", {"axis": 1}, [value], [row]))
        graph.nodes.append(
            gs.Node("Gemm", f"{node.name}_matrix", {"transB": 1}, [row, matrix, bias], [users[0].outputs[0]])
        )
        users[0].outputs.clear()
        node.outputs.clear()


def _is_rank(tensor: gs.Tensor) -> bool:
    """Tell whether a tensor is computed as the size of a shape."""
    size = tensor.inputs[0] if tensor.inputs else None
    return size is not None and size.op == "Size" and bool(size.inputs[0].inputs) and size.i().op == "Shape"


def free_axes(graph: gs.Graph, output: str, axes: Mapping[int, str]) -> None:
    """Make axes of an output free, although their sizes are constants; ``axes``: axis -> name, none of them 0.

    Triton requires an output's shape to match the configuration exactly: -1 there needs a free axis here. Naming the
    axis is not enough, since runtimes infer its size when they load the graph. So the output is reshaped to its own
    shape with that size multiplied by min(batch, 1), which is 1, and which neither ONNX Runtime nor TensorRT can fold,
    as the batch is known at run time only.
    """
    tensor = next(value for value in graph.outputs if value.name == output)
    shape = list(tensor.shape)
    inner = gs.Variable(f"{output}_sized", dtype=tensor.dtype, shape=shape)
    for node in tensor.inputs:
        node.outputs = [inner if value is tensor else value for value in node.outputs]
    tensor.inputs.clear()

    def variable(suffix: str) -> gs.Variable:
        return gs.Variable(f"{output}_{suffix}", dtype=np.int64)

    def constant(suffix: str, values: list[int]) -> gs.Constant:
        return gs.Constant(f"{output}_{suffix}", np.array(values, np.int64))

    batch, one, full_shape = variable("batch"), variable("one"), variable("shape")
    sizes: list[gs.Tensor] = [batch]
    for axis, size in enumerate(shape[1:], 1):
        sizes.append(variable(f"size_{axis}") if axis in axes else constant(f"size_{axis}", [int(size)]))
    graph.nodes += [
        gs.Node("Shape", f"{output}_shape_of", {"start": 0, "end": 1}, [graph.inputs[0]], [batch]),
        gs.Node("Min", f"{output}_at_most_one", {}, [batch, constant("unit", [1])], [one]),
        *(
            gs.Node("Mul", f"{output}_free_{k}", {}, [one, constant(f"count_{k}", [int(shape[k])])], [sizes[k]])
            for k in axes
        ),
        gs.Node("Concat", f"{output}_shape_all", {"axis": 0}, sizes, [full_shape]),
        gs.Node("Reshape", f"{output}_opened", {}, [inner, full_shape], [tensor]),
    ]
    tensor.shape = [BATCH, *(axes.get(axis, size) for axis, size in enumerate(shape[1:], 1))]
