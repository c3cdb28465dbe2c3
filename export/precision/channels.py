"""Which convolutions share channels: those that write a tensor, those that read it, and the additions in between.

A ReLU, a pooling and an addition treat every channel by itself. So channel c of all tensors that are connected by such
operators belongs together: it may be scaled as one (`equalise.py`), and it is what a residual stream is (`streams.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from export.graphsurgeon import gs
from export.precision.region import is_variable

CHANNELWISE = {"Relu", "LeakyRelu", "MaxPool", "AveragePool", "GlobalAveragePool", "Add", "Flatten"}
"""Operators that keep channels apart and commute with a positive factor."""


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
        """Name of the first tensor that is written."""
        return str(self.writers[0].outputs[0].name)

    @property
    def channels(self) -> int:
        """How many there are."""
        return int(self.writers[0].inputs[1].shape[0])


def channel_groups(graph: gs.Graph) -> list[Group]:
    """All groups, in the order of the graph, that only convolutions write and only convolutions and products read.

    A group that something else looks into (an output of the graph, a resize, a concatenation) is left out.
    """
    root = _connected(graph)
    groups: dict[str, Group] = {}
    strange = {root(tensor.name) for tensor in (*graph.inputs, *graph.outputs)}
    for node in graph.nodes:
        plain, passes = _plain(node), _channelwise(node)
        for tensor in node.outputs:
            group = groups.setdefault(root(tensor.name), Group())
            if plain and node.op == "Conv":
                group.writers.append(node)
            elif not passes:
                strange.add(root(tensor.name))
            elif node.op == "Add":
                group.additions.append(node)
        for position, tensor in enumerate([] if passes else node.inputs):
            if is_variable(tensor) and plain and position == 0:
                groups.setdefault(root(tensor.name), Group()).readers.append(node)
            elif is_variable(tensor):
                strange.add(root(tensor.name))
    return [group for key, group in groups.items() if key not in strange and group.writers and group.readers]


def _connected(graph: gs.Graph) -> Callable[[str], str]:
    """Name of a tensor -> a name that all tensors with the same channels give."""
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


def _plain(node: gs.Node) -> bool:
    """Whether a node is a convolution in one group or a matrix product with its rows transposed, both with bias."""
    constant = len(node.inputs) == 3 and all(isinstance(tensor, gs.Constant) for tensor in node.inputs[1:])
    if node.op == "Conv":
        return constant and node.attrs.get("group", 1) == 1
    return constant and node.op == "Gemm" and bool(node.attrs.get("transB", 0)) and not node.attrs.get("transA", 0)
