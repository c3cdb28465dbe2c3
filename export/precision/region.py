"""Which nodes of a graph are the network proper: convolutions and what stands between them.

Lower precision is for these alone. Before them pixels are prepared, after them boxes, shapes and pictures are computed,
and that arithmetic stays in float32: it is cheap, and a coordinate has no precision to spare.
"""

from __future__ import annotations

from export.graphsurgeon import gs

SEEDS = {"Conv", "ConvTranspose", "Gemm"}
BETWEEN = {
    "Relu", "LeakyRelu", "Add", "Sub", "Mul", "MaxPool", "AveragePool", "Concat", "Resize", "Clip", "HardSwish",
    "HardSigmoid", "Sigmoid", "GlobalAveragePool", "ReduceMean", "Transpose", "Flatten", "Reshape", "DepthToSpace",
    "Max", "Min", "Split", "Slice",
}  # fmt: skip


def is_variable(tensor: gs.Tensor) -> bool:
    """Whether a tensor is computed (not a weight, and not an optional input that is left out)."""
    return isinstance(tensor, gs.Variable) and bool(tensor.name)


def is_float(tensor: gs.Tensor) -> bool:
    """Whether a tensor holds float32 numbers, as far as the graph says."""
    return tensor.dtype is not None and str(tensor.dtype).endswith("float32")


def network_nodes(graph: gs.Graph, keep_last: bool = False) -> list[gs.Node]:
    """The nodes of the network proper, in the order of the graph.

    A node between belongs to it when a convolution comes somewhere before it and one somewhere after it.

    Args:
        graph: sorted topologically.
        keep_last: leave out convolutions after which no other follows (the heads).
    """
    before: set[int] = set()  # ids of nodes that a seed reaches through nodes between
    for node in graph.nodes:
        reached = any(id(i) in before or i.op in SEEDS for t in node.inputs for i in t.inputs)
        if node.op in SEEDS or (reached and node.op in BETWEEN):
            before.add(id(node))
    after: set[int] = set()  # ids of nodes that reach a seed
    chosen: list[gs.Node] = []
    for node in reversed(graph.nodes):
        leads = any(id(o) in after for t in node.outputs for o in t.outputs)
        if id(node) in before and (leads or (node.op in SEEDS and not keep_last)):
            chosen.append(node)
        if id(node) in before and (node.op in SEEDS or leads):
            after.add(id(node))
    return chosen[::-1]
