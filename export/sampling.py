"""A graph with one GridSample cut in two there, for the service's CPU backend, which has OpenCV sample in between.

ONNX Runtime's GridSample takes a quarter of the texture network's time on a CPU, three times what OpenCV takes for the
same picture in bytes. The halves are files of their own beside the whole graph, which every other runtime loads; the
gate judges them, and `difference` holds them against the whole. `server/backends/onnxruntime/sampling.py` runs them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from export.graph import IR_VERSION
from export.graphsurgeon import gs
from export.session import Feed, Session, loaded
from server.backends.onnxruntime.sampling import AFTER, BEFORE, PICTURE, WHOLE, SampledSession

# OpenCV places a sample to 1/32 of a pixel and rounds it. So texels differ by a level or two, and a few more where the
# crop's black beyond the photograph begins and a threshold decides what was seen.
FAR = 8  # levels of 0..255
MOST_FAR = 1e-3  # of the texels
MOST_SQUARED_ERROR = 1e-5  # of pictures in 0..1; the INT8 gate's bound is 500 times that


def cut(model: onnx.ModelProto) -> tuple[onnx.ModelProto, onnx.ModelProto] | None:
    """The two halves of a graph, or None where there is not one GridSample that OpenCV can do.

    That is: bilinear, black beyond the picture, corners not aligned, on a uint8 input of the graph with three planes.

    Returns:
        before: the graph's inputs -> ``grid`` and what is handed on; after: ``sampled`` (uint8), ``mirrored`` (the same
        from right to left, where the graph makes use of it) and what is handed on -> the graph's outputs.
    """
    inferred = onnx.shape_inference.infer_shapes(model)
    graph = gs.import_onnx(inferred)
    sampler = _sampler(graph)
    if sampler is None:
        return None
    picture = sampler.inputs[0].inputs[0].inputs[0]
    first = _ancestors(sampler.inputs[1])
    handed = {
        tensor.name: tensor
        for node in graph.nodes
        if id(node) not in first
        for tensor in node.inputs
        if tensor is not sampler.inputs[1] and tensor.inputs and id(tensor.inputs[0]) in first
    }
    after = graph.copy()
    tensors = after.tensors()
    sampled = gs.Variable("sampled", np.uint8, ["batch", 3, *sampler.outputs[0].shape[2:]])
    cast = next(node for node in after.nodes if node.name == sampler.inputs[0].inputs[0].name)
    colour = tensors[sampler.outputs[0].name]
    colour.inputs.clear()
    after.nodes.append(gs.Node("Cast", "Cast_sampled", dict(cast.attrs), [sampled], [colour]))
    inputs = [sampled]
    for node in [node for node in after.nodes if _mirrors(node, colour)]:
        # A mirrored copy of bytes costs nothing; ONNX Runtime's Slice with a step of -1 goes number by number.
        inputs = [sampled, gs.Variable("mirrored", np.uint8, sampled.shape)]
        (turned,) = node.outputs
        turned.inputs.clear()
        after.nodes.append(gs.Node("Cast", "Cast_mirrored", dict(cast.attrs), [inputs[1]], [turned]))
        break
    for name in handed:
        tensors[name].inputs.clear()
    after.inputs = [*inputs, *(tensors[name] for name in handed)]
    grid = sampler.inputs[1]
    graph.outputs = [grid, *handed.values()]
    halves = [gs.export_onnx(part.cleanup().toposort()) for part in (graph, after)]
    for half in halves:
        del half.graph.value_info[:]
        half.ir_version = IR_VERSION
        onnx.helper.set_model_props(half, {PICTURE: picture.name})
        onnx.checker.check_model(half)
    return halves[0], halves[1]


def _sampler(graph: gs.Graph) -> gs.Node | None:
    samplers = [node for node in graph.nodes if node.op == "GridSample"]
    if len(samplers) != 1:
        return None
    (node,) = samplers
    usual = {"mode": "bilinear", "padding_mode": "zeros", "align_corners": 0}
    if any(node.attrs.get(name, value) not in (value, "linear") for name, value in usual.items()):
        return None
    source = node.inputs[0].inputs
    if not source or source[0].op != "Cast":
        return None
    picture = source[0].inputs[0]
    is_input = any(picture is tensor for tensor in graph.inputs)
    return node if is_input and picture.dtype == np.uint8 and picture.shape[1] == 3 else None


def _mirrors(node: gs.Node, colour: gs.Tensor) -> bool:
    """Whether a node turns ``colour`` (B, 3, h, w) round, left to right, and does nothing else."""
    if node.op != "Slice" or node.inputs[0] is not colour or len(node.inputs) != 5:
        return False
    if not all(isinstance(value, gs.Constant) for value in node.inputs[1:]):
        return False
    start, end, axis, step = (value.values.tolist() for value in node.inputs[1:])
    return start == [-1] and end[0] < -(2**31) and axis in ([3], [-1]) and step == [-1]


def _ancestors(tensor: gs.Tensor) -> set[int]:
    """Identities of the nodes that a tensor is computed by."""
    found: set[int] = set()
    waiting = list(tensor.inputs)
    while waiting:
        node = waiting.pop()
        if id(node) not in found:
            found.add(id(node))
            waiting += [producer for value in node.inputs for producer in value.inputs]
    return found


def as_served(model: onnx.ModelProto) -> Session:
    """A graph as the service's CPU backend runs it: cut where that can be done, else whole."""
    halves = cut(model)
    return served(halves) if halves else Session(model)


def served(halves: tuple[onnx.ModelProto, onnx.ModelProto]) -> Session:
    """Both halves with the sampling between them, as the service runs them."""
    before, after = (loaded(half) for half in halves)
    return Session(SampledSession(before, after))


@dataclass(frozen=True)
class Difference:
    """How far the cut graph's uint8 outputs lie from the whole one's."""

    far: float
    """Share of the values that are more than `FAR` levels away."""
    squared: float
    """Mean squared error, 0..1."""

    def __str__(self) -> str:
        verdict = "ok" if self.small else "too far, the whole graph is served"
        return f"{self.far:.2%} of the values are {FAR} levels away, squared error {self.squared:.1g} ({verdict})"

    @property
    def small(self) -> bool:
        """Whether the halves may stand for the whole."""
        return self.far <= MOST_FAR and self.squared <= MOST_SQUARED_ERROR


def difference(model: onnx.ModelProto, halves: tuple[onnx.ModelProto, onnx.ModelProto], feed: Feed) -> Difference:
    """Both ways on one feed; an output that is not uint8 has to agree to the bit."""
    wanted, given = Session(model)(feed), served(halves)(feed)
    far, squared = 0.0, 0.0
    for name, value in wanted.items():
        if value.dtype != np.uint8:
            far = far if np.array_equal(value, given[name]) else 1.0
            continue
        apart = np.abs(value.astype(np.int16) - given[name])
        far, squared = max(far, float(np.mean(apart > FAR))), max(squared, float(np.mean((apart / 255) ** 2)))
    return Difference(far, squared)


def write(folder: Path, whole: Path, halves: tuple[onnx.ModelProto, onnx.ModelProto]) -> None:
    """Put the halves into a version folder, marked with the digest of the whole graph's file."""
    digest = hashlib.sha256(whole.read_bytes()).hexdigest()
    for name, half in zip((BEFORE, AFTER), halves, strict=True):
        onnx.helper.set_model_props(half, {**_props(half), WHOLE: digest})
        onnx.save(half, folder / name)


def _props(model: onnx.ModelProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in model.metadata_props}
