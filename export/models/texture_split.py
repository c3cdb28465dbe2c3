"""Split the texture graph into parts for the service's CPU backend, which runs SciPy and OpenCV between them.

A few image operations take half of the texture network's time in ONNX Runtime on a CPU; SciPy and OpenCV are several
times as fast. The parts are files beside the whole graph, which every other runtime loads. The gate judges the parts,
and `split_error` compares them with the whole graph. `server/backends/onnxruntime/parts.py` runs and documents them.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from export.graphsurgeon import gs, to_model
from export.session import Feed, Session, loaded
from server.backends.onnxruntime.parts import FILL, TABLE, WHOLE, PartsSession, Table, enlarged

# OpenCV rounds a sample's position to 1/32 of a pixel. So texels differ by a level or two, and a few by more at the
# photograph's border, where a threshold decides their visibility.
LEVEL_TOLERANCE = 8  # levels of 0..255
MAX_OUTLIER_SHARE = 1e-3  # of the texels
MAX_SQUARED_ERROR = 2e-5  # of pictures in 0..1; the INT8 gate's bound is 250 times that
# Inputs and outputs of the filling, by names of `TextureNet.INNER`.
_INPUTS, _OUTPUTS = ("small", "small_seen"), ("like", "guess", "gain")


@dataclass(frozen=True)
class SplitGraph:
    """The graph of the filling, and the tables for what is computed around it."""

    fill: onnx.ModelProto
    table: Table


def split(model: onnx.ModelProto) -> SplitGraph | None:
    """Split a texture graph; None where it lacks the tensors to split at."""
    graph = gs.import_onnx(onnx.shape_inference.infer_shapes(model))
    tensors = graph.tensors()
    if not {"attributes", *_INPUTS, *_OUTPUTS} <= set(tensors):
        return None
    size = int(next(value.shape[2] for value in graph.outputs if value.name == "visibility"))
    rows, triangles, skin = _mesh(tensors["shapes"])
    corners, weights = _table(tensors["attributes"])
    maps = np.stack([_map(tensors, name) for name in ("outside", "beard", "chin")])
    fill = graph.copy()
    parts = fill.tensors()
    fill.outputs, fill.inputs = ([parts[name] for name in names] for names in (_OUTPUTS, _INPUTS))
    for tensor in fill.inputs:
        tensor.inputs.clear()
    return SplitGraph(to_model(fill), Table(rows, triangles, skin, corners, weights, size, maps))


def _map(tensors: Mapping[str, gs.Tensor], name: str) -> NDArray[np.uint8]:
    """Read a buffer of `UVSampler`, 0..1, as (t, t) 0..255."""
    (found,) = (tensor for known, tensor in tensors.items() if known.endswith(f"sampler.{name}"))
    return np.asarray(np.rint(found.values[0, 0] * 255), np.uint8)


def _mesh(shapes: gs.Tensor) -> tuple[NDArray[np.int32], NDArray[np.int32], int]:
    """Read from the nodes that gather vertices: which ones, the skin's triangles, and how many of them are skin's."""
    (node,) = shapes.outputs
    while (rows := _indices(node)) is None:
        (node,) = node.outputs[0].outputs
    gathered = node.outputs[0]
    for skin in (gathered, *(user.outputs[0] for user in gathered.outputs if user.op == "Slice")):
        triangles = [found for user in skin.outputs if (found := _indices(user)) is not None]
        if len(triangles) == 3:
            return rows, np.stack(triangles), int(skin.shape[1])
    raise AssertionError("no triangles are gathered of the vertices")


def _indices(node: gs.Node) -> NDArray[np.int32] | None:
    """Return the rows that a node gathers; None for another node, or where it takes one row of an axis away."""
    if node.op != "Gather" or not isinstance(node.inputs[1], gs.Constant) or not node.inputs[1].values.ndim:
        return None
    indices: NDArray[np.int32] = node.inputs[1].values.astype(np.int32).ravel()
    return indices


def _table(attributes: gs.Tensor) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Read corners and weights from the nodes that gather vertices' attributes and multiply them."""
    gathered = [node for node in attributes.outputs if node.op == "Gather"]
    corners = [node.inputs[1].values.astype(np.int32).ravel() for node in gathered]
    weights = [
        next(
            value.values[..., 0].ravel()
            for value in node.outputs[0].outputs[0].inputs
            if isinstance(value, gs.Constant)
        )
        for node in gathered
    ]
    return np.stack(corners), np.stack(weights).astype(np.float32)


def session_of(parts: SplitGraph, exact: bool = False) -> Session:
    """Load the parts as the service does; ``exact``: with kernels that do not saturate."""
    return Session(PartsSession(loaded(parts.fill, exact=exact), parts.table))


@dataclass(frozen=True)
class SplitError:
    """Difference between the uint8 outputs of the parts and of the whole graph."""

    outliers: float
    """Share of the values that differ by more than `LEVEL_TOLERANCE` levels."""
    squared: float
    """Mean squared error, 0..1."""

    def __str__(self) -> str:
        verdict = "ok" if self.acceptable else "too far, the whole graph is served"
        return (
            f"{self.outliers:.2%} of the values are {LEVEL_TOLERANCE} levels away, squared error {self.squared:.1g} "
            f"({verdict})"
        )

    @property
    def acceptable(self) -> bool:
        """Tell whether the parts may replace the whole graph."""
        return self.outliers <= MAX_OUTLIER_SHARE and self.squared <= MAX_SQUARED_ERROR


def split_error(model: onnx.ModelProto, parts: SplitGraph, feed: Feed) -> SplitError:
    """Run whole graph and parts on one feed; return the larger error of both pictures."""
    expected, actual = Session(model)(feed), session_of(parts)(feed)
    pictures = {name: value for name, value in expected.items() if value.dtype == np.uint8}
    levels = [
        np.abs(value.astype(np.int16) - enlarged(actual[name], value.shape[-1])) for name, value in pictures.items()
    ]
    return SplitError(
        max(float(np.mean(distance > LEVEL_TOLERANCE)) for distance in levels),
        max(float(np.mean((distance / 255) ** 2)) for distance in levels),
    )


def write(folder: Path, whole: Path, parts: SplitGraph) -> None:
    """Write the parts into a version folder, with the whole graph's metadata and the digest of its file."""
    digest = hashlib.sha256(whole.read_bytes()).hexdigest()
    metadata = {entry.key: entry.value for entry in onnx.load(whole, load_external_data=False).metadata_props}
    onnx.helper.set_model_props(parts.fill, {**metadata, WHOLE: digest})
    onnx.save(parts.fill, folder / FILL)
    dataclasses.replace(parts.table, whole=digest).save(folder / TABLE)
