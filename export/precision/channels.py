"""Groups of convolutions that share channels: those that write a tensor, those that read it, additions in between.

ReLU, pooling and addition treat every channel by itself. So channel c of all tensors that such operators connect can be
scaled by one factor (`equalise.py`); a residual stream is such a group (`streams.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from export.graphsurgeon import gs
from export.precision.region import is_variable

CHANNELWISE = {"Relu", "LeakyRelu", "MaxPool", "AveragePool", "GlobalAveragePool", "Add", "Flatten"}
"""Operators that do not mix channels and commute with a positive factor."""


@dataclass
class Group:
    """Tensors with the same channels.

    Attributes:
        writers: convolutions whose output channels these are; each has a bias.
        readers: convolutions and matrix products whose input channels these are.
        additions: nodes that add two tensors of the group.
    """

    writers: list[gs.Node] = field(default_factory=list)
    readers: list[gs.Node] = field(default_factory=list)
    additions: list[gs.Node] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Return the name of the first tensor that is written."""
        return str(self.writers[0].outputs[0].name)

    @property
    def channels(self) -> int:
        """Return the number of channels."""
        return int(self.writers[0].inputs[1].shape[0])


def channel_groups(graph: gs.Graph) -> list[Group]:
    """List the groups that only convolutions write and only convolutions and products read, in the order of the graph.

    A group that another operator or an output of the graph reads is left out.
    """
    root = _connected(graph)
    groups: dict[str, Group] = {}
    excluded = {root(tensor.name) for tensor in (*graph.inputs, *graph.outputs)}
    for node in graph.nodes:
        constant_weights, channelwise = _has_constant_weights(node), _channelwise(node)
        for tensor in node.outputs:
            group = groups.setdefault(root(tensor.name), Group())
            if constant_weights and node.op == "Conv":
                group.writers.append(node)
            elif not channelwise:
                excluded.add(root(tensor.name))
            elif node.op == "Add":
                group.additions.append(node)
        for position, tensor in enumerate([] if channelwise else node.inputs):
            if is_variable(tensor) and constant_weights and position == 0:
                groups.setdefault(root(tensor.name), Group()).readers.append(node)
            elif is_variable(tensor):
                excluded.add(root(tensor.name))
    return [group for key, group in groups.items() if key not in excluded and group.writers and group.readers]


def _connected(graph: gs.Graph) -> Callable[[str], str]:
    """Return a function from a tensor's name to a name common to all tensors with the same channels (union-find)."""
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while parent.setdefault(name, name) != name:
            name = parent[name]
        return name

    for node in graph.nodes:
        if _channelwise(node):
            for tensor in (*node.inputs, *node.outputs):
                parent[root(tensor.name)] = root(node.outputs[0].name)
    return root


def _channelwise(node: gs.Node) -> bool:
    return node.op in CHANNELWISE and all(is_variable(tensor) for tensor in node.inputs)


def _has_constant_weights(node: gs.Node) -> bool:
    """Tell whether a node is an ungrouped convolution or a matrix product with transposed rows, both with bias."""
    constant = len(node.inputs) == 3 and all(isinstance(tensor, gs.Constant) for tensor in node.inputs[1:])
    if node.op == "Conv":
        return constant and node.attrs.get("group", 1) == 1
    return constant and node.op == "Gemm" and bool(node.attrs.get("transB", 0)) and not node.attrs.get("transA", 0)
