"""Select the convolutional network of a graph: convolutions, matrix products and the nodes between them.

Only these get a lower precision. The preparation of pixels before them and the computation of boxes, shapes and
pictures after them stay in float32: they are cheap, and coordinates need the precision.
"""

from __future__ import annotations

from collections.abc import Set

from export.graphsurgeon import gs

WEIGHTED_OPERATORS = {"Conv", "ConvTranspose", "Gemm"}
INTERMEDIATE_OPERATORS = {
    "Relu", "LeakyRelu", "Add", "Sub", "Mul", "MaxPool", "AveragePool", "Concat", "Resize", "Clip",
    "HardSwish", "HardSigmoid", "Sigmoid", "GlobalAveragePool", "ReduceMean", "Transpose", "Flatten", "Reshape",
    "DepthToSpace", "Max", "Min", "Split", "Slice",
}  # fmt: skip
FLOAT_OPERATORS = INTERMEDIATE_OPERATORS | {"PRelu"}
"""Those of a floating-point precision. An integer one ends at PReLU, which is computed in float32 between two
conversions: what they cost is what the integers gain."""


def is_variable(tensor: gs.Tensor) -> bool:
    """Tell whether a tensor is computed: neither a weight nor an omitted optional input."""
    return isinstance(tensor, gs.Variable) and bool(tensor.name)


def is_float(tensor: gs.Tensor) -> bool:
    """Tell whether the graph declares a tensor as float32."""
    return tensor.dtype is not None and str(tensor.dtype).endswith("float32")


def network_nodes(
    graph: gs.Graph, keep_last: bool = False, between: Set[str] = frozenset(INTERMEDIATE_OPERATORS)
) -> list[gs.Node]:
    """List the nodes of the convolutional network, in the order of the graph.

    An intermediate node belongs to it when convolutions precede and follow it.

    Args:
        graph: sorted topologically.
        keep_last: leave out convolutions after which no other follows (the heads).
        between: operators that do not end the network.
    """
    before: set[int] = set()  # ids of nodes that a weighted node reaches through intermediate ones
    for node in graph.nodes:
        reached = any(id(i) in before or i.op in WEIGHTED_OPERATORS for t in node.inputs for i in t.inputs)
        if node.op in WEIGHTED_OPERATORS or (reached and node.op in between):
            before.add(id(node))
    after: set[int] = set()  # ids of nodes that reach a weighted node
    chosen: list[gs.Node] = []
    for node in reversed(graph.nodes):
        leads = any(id(o) in after for t in node.outputs for o in t.outputs)
        if id(node) in before and (leads or (node.op in WEIGHTED_OPERATORS and not keep_last)):
            chosen.append(node)
        if id(node) in before and (node.op in WEIGHTED_OPERATORS or leads):
            after.add(id(node))
    return chosen[::-1]
