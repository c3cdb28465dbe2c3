"""Embedders in ArcFace's format: a published ONNX graph, a face of 112 px -> a vector, under the embedder's contract.

Such a file does not say how it wants its pixels, so the recipe is named by whoever has the file. The graph stays as it
is; before it stands the preparation of pixels, behind it the division by the length and the fingerprint.
Format and template: Deng et al., "ArcFace", 2019, and the files published with InsightFace and AdaFace.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import onnx
from onnx import TensorProto, compose, helper, numpy_helper, version_converter

from export.errors import ExportError
from export.graph import BATCH, IR_VERSION, OPSET, set_shape, shape_of
from export.session import Session
from networks.embedder.embedder import Embedder
from networks.embedder.onnx_weights import MAX_BYTES
from networks.embedder.sface import SIDE

_PREFIX = "published/"
_LONGEST = 4096  # numbers of a vector
_LEAST = 1e-12  # length that is divided by at least


@dataclass(frozen=True)
class Recipe:
    """Preparation of pixels: (pixel - mean) * scale of 0..255; ``flip``: in the order blue, green, red."""

    mean: float
    scale: float
    flip: bool = False


RECIPES = MappingProxyType(
    {
        "arcface": Recipe(127.5, 1 / 127.5),
        "arcface-128": Recipe(127.5, 1 / 128),
        "arcface-bgr": Recipe(127.5, 1 / 127.5, flip=True),
        "arcface-0-255": Recipe(0.0, 1.0),
    }
)
"""Recipes by name: `arcface` (InsightFace's), `arcface-128` (MobileFaceNets), `arcface-bgr` (AdaFace), and
`arcface-0-255` (graphs that prepare their pixels themselves, as the ONNX model zoo's)."""


def graph_of(path: Path, recipe: str) -> onnx.ModelProto:
    """Read a published graph and put it under the embedder's contract.

    Args:
        path: ONNX file with one input float32 [n,3,112,112] and one output float32 [n,D].
        recipe: a name in `RECIPES`.

    Returns:
        A checked graph: `aligned` uint8 [batch,3,112,112] -> `embedding` float32 [batch,D] of length 1, `embedder`
        int64 [batch,1].

    Raises:
        ExportError: the file is missing, damaged, of another interface, or cannot run in batches; another recipe.
    """
    if recipe not in RECIPES:
        raise ExportError(f"The pixels of {path} are prepared by one of {', '.join(RECIPES)}, not by '{recipe}'.")
    content = _content(path)
    published = _published(path, content)
    try:
        published = version_converter.convert_version(published, OPSET)
        net = compose.add_prefix(published, _PREFIX)
        composed = _composed(net, RECIPES[recipe], _fingerprint(content, recipe))
        onnx.checker.check_model(composed)
    except Exception as error:  # the converter's and the checker's own, of many types
        raise ExportError(f"{path} cannot be brought to opset {OPSET} ({_first_line(error)}).") from error
    length = _checked_length(path, composed)
    set_shape(composed.graph.output[0], [BATCH, length])
    return composed


def _content(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ExportError(f"{path} is larger than {MAX_BYTES >> 20} MiB: it is no embedder of this service.")
        return path.read_bytes()
    except OSError as error:
        raise ExportError(f"The weights {path} cannot be read ({error.strerror}).") from error


def _published(path: Path, content: bytes) -> onnx.ModelProto:
    """Parse and check a published graph; free its batch axis."""
    try:
        model = onnx.load_model_from_string(content)
        onnx.checker.check_model(model)
    except Exception as error:  # protobuf's and the checker's own, of many types
        raise ExportError(f"{path} is no ONNX file of one piece ({_first_line(error)}).") from error
    foreign = {entry.domain for entry in model.opset_import} - {"", "ai.onnx"}
    if (
        foreign
        or model.functions
        or any(value.data_location == TensorProto.EXTERNAL for value in model.graph.initializer)
    ):
        raise ExportError(f"{path} needs more than the file itself and ONNX's own operators: it cannot be taken.")
    constants = {value.name for value in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    outputs = list(model.graph.output)
    if (
        [value.type.tensor_type.elem_type for value in (*inputs, *outputs)] != [TensorProto.FLOAT] * 2
        or shape_of(inputs[0])[1:] != [3, SIDE, SIDE]
        or len(shape_of(outputs[0])) != 2
    ):
        shapes = ", ".join(f"{value.name} {shape_of(value)}" for value in (*inputs, *outputs))
        raise ExportError(
            f"{path} is no embedder in ArcFace's format, which takes float32 [n, 3, {SIDE}, {SIDE}] and gives one "
            f"vector a face: it has {shapes}."
        )
    del model.graph.input[:]
    model.graph.input.append(inputs[0])
    model.ir_version = max(model.ir_version, IR_VERSION)  # older ones want every constant among the inputs
    del model.graph.value_info[:]  # they may hold a fixed batch
    set_shape(model.graph.input[0], [BATCH, 3, SIDE, SIDE])
    set_shape(model.graph.output[0], [BATCH, "length"])
    return model


def _composed(net: onnx.ModelProto, recipe: Recipe, fingerprint: int) -> onnx.ModelProto:
    """Put the preparation of pixels before a graph, and length and fingerprint behind it."""
    constants = {
        "mean": np.float32(recipe.mean),
        "scale": np.float32(recipe.scale),
        "reversed": np.array([2, 1, 0], np.int64),
        "channels": np.array([1], np.int64),
        "least": np.float32(_LEAST),
        "fingerprint": np.array([[fingerprint]], np.int64),
    }
    pixels, raw = net.graph.input[0].name, net.graph.output[0].name
    before = [helper.make_node("Cast", ["aligned"], ["levels"], to=TensorProto.FLOAT)]
    if recipe.flip:
        before.append(helper.make_node("Gather", ["levels", "reversed"], ["ordered"], axis=1))
    else:
        del constants["reversed"]
    before += [
        helper.make_node("Sub", [before[-1].output[0], "mean"], ["centred"]),
        helper.make_node("Mul", ["centred", "scale"], [pixels]),
    ]
    behind = [
        helper.make_node("ReduceL2", [raw, "channels"], ["norm"], keepdims=1),
        helper.make_node("Max", ["norm", "least"], ["divisor"]),
        helper.make_node("Div", [raw, "divisor"], ["embedding"]),
        helper.make_node("Shape", ["aligned"], ["batch"], start=0, end=1),
        helper.make_node("Concat", ["batch", "channels"], ["rows"], axis=0),
        helper.make_node("Expand", ["fingerprint", "rows"], ["embedder"]),
    ]
    graph = helper.make_graph(
        [*before, *net.graph.node, *behind],
        "embedder",
        [helper.make_tensor_value_info("aligned", TensorProto.UINT8, [BATCH, 3, SIDE, SIDE])],
        [
            helper.make_tensor_value_info("embedding", TensorProto.FLOAT, [BATCH, None]),
            helper.make_tensor_value_info("embedder", TensorProto.INT64, [BATCH, 1]),
        ],
        [*net.graph.initializer, *(numpy_helper.from_array(np.asarray(v), name) for name, v in constants.items())],
    )
    opset = [helper.make_opsetid("", OPSET)]
    return helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION)


def _checked_length(path: Path, composed: onnx.ModelProto) -> int:
    """Run two faces; return the length of their vectors."""
    faces = np.random.default_rng(0).integers(0, 256, (2, 3, SIDE, SIDE)).astype(np.uint8)
    try:
        vectors = Session(composed)({Embedder.INPUTS[0]: faces})[Embedder.OUTPUTS[0]]
    except Exception as error:  # ONNX Runtime's own
        raise ExportError(f"{path} does not run with two faces at once ({_first_line(error)}).") from error
    if len(vectors) != 2 or not 2 <= vectors.shape[1] <= _LONGEST or not np.isfinite(vectors).all():
        raise ExportError(f"{path} gives {list(vectors.shape)} numbers for two faces, or such that are not finite.")
    return int(vectors.shape[1])


def _fingerprint(content: bytes, recipe: str) -> int:
    """Return 63 bits of SHA-256 over a file and its recipe: with other pixels it is another embedder."""
    digest = hashlib.sha256(content + recipe.encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:200]
