"""A rigged head as the service writes it, made from the repository's head model without a server.

One primitive for each material, its quads first; skin and eyes with pictures, mouth and teeth with a colour and the
light at their vertices, lashes with a picture that has alpha. Also in another layout that glTF allows: everything in
integers, which the node's scale and translation bring back to metres.
"""

from __future__ import annotations

import functools
import io
import json
import struct
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from networks import arkit
from networks.head_model import HeadModel, split_quads

MODEL: Final = Path(__file__).resolve().parents[2] / "weights" / "head_model.npz"
MATERIALS: Final = ("skin", "eye_left", "eye_right", "teeth", "mouth", "lashes")
COLOURS: Final = {
    "teeth": (0.78, 0.74, 0.66, 1),
    "mouth": (0.5, 0.15, 0.14, 1),
    "lashes": (0.02, 0.01, 0.01, 1),
}  # linear
_STEPS: Final = 32767
_TYPES: Final = {"b": 5120, "B": 5121, "h": 5122, "H": 5123, "I": 5125, "f": 5126}


@functools.cache
def model() -> HeadModel:
    """The repository's head model."""
    return HeadModel.load(MODEL)


@functools.cache
def morphs() -> NDArray[np.float32]:
    """(52, N, 3) decimetres."""
    return arkit.shapes(model())


class _Writer:
    """Buffer views and accessors of a GLB."""

    def __init__(self) -> None:
        self.binary = bytearray()
        self.views: list[dict[str, Any]] = []
        self.accessors: list[dict[str, Any]] = []

    def view(self, data: bytes, **more: Any) -> int:
        self.binary.extend(bytes(-len(self.binary) % 4))
        self.views.append({"buffer": 0, "byteOffset": len(self.binary), "byteLength": len(data), **more})
        self.binary.extend(data)
        return len(self.views) - 1

    def accessor(self, values: NDArray[Any], target: int | None = None, **more: Any) -> int:
        """Write (N, width) elements, each row at a multiple of four bytes where it is of vertices."""
        width = values.shape[1]
        kind = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4"}[width]
        step = width * values.dtype.itemsize
        view: dict[str, Any] = {} if target is None else {"target": target}
        if target == 34962 and step % 4:
            padded = np.zeros((len(values), step + -step % 4), np.uint8)
            padded[:, :step] = np.ascontiguousarray(values).view(np.uint8).reshape(len(values), step)
            data, view["byteStride"] = padded.tobytes(), padded.shape[1]
        else:
            data = np.ascontiguousarray(values).tobytes()
        self.accessors.append(
            {
                "bufferView": self.view(data, **view), "componentType": _TYPES[values.dtype.char],
                "count": len(values), "type": kind, **more,
            }
        )  # fmt: skip
        return len(self.accessors) - 1

    def sparse(self, deltas: NDArray[Any], **more: Any) -> int:
        """Write (N, 3) elements of which most are zero."""
        moved = np.flatnonzero(deltas.any(1)).astype(np.uint16)
        entry: dict[str, Any] = {
            "componentType": _TYPES[deltas.dtype.char], "count": len(deltas), "type": "VEC3",
            "min": deltas.min(0).tolist(), "max": deltas.max(0).tolist(), **more,
        }  # fmt: skip
        if len(moved):
            entry["sparse"] = {
                "count": len(moved),
                "indices": {"bufferView": self.view(moved.tobytes()), "componentType": _TYPES["H"]},
                "values": {"bufferView": self.view(np.ascontiguousarray(deltas[moved]).tobytes())},
            }
        self.accessors.append(entry)
        return len(self.accessors) - 1


def glb(
    rigged: bool = True,
    scaled: bool = False,
    identity: NDArray[np.float32] | None = None,
    expression: dict[str, float] | None = None,
    skin: Image.Image | None = None,
    mesh: str = "head",
) -> bytes:
    """Write a head.

    Args:
        rigged: with morph targets and weights; else the expression is in the shape.
        scaled: positions in integers and a node that scales them, normals of 8 bits; else as the service does.
        identity: (80,) coefficients. None: the mean head.
        expression: weights by Apple's names.
        skin: its picture. None: the model's mean albedo.
        mesh: ``head``, or ``face``: the skin of the face only.
    """
    head, out = model(), _Writer()
    base = head.shape(np.zeros(80, np.float32) if identity is None else identity, np.zeros(64, np.float32))
    weights = np.array([(expression or {}).get(name, 0.0) for name in arkit.NAMES], np.float32)
    shape = base if rigged else base + np.tensordot(weights, morphs(), 1)
    metres = shape[head.vertex] * np.float32(0.1)
    normals = _normals(shape)[head.vertex]
    low, high = metres.min(0), metres.max(0)
    centre, scale = (low + high) / 2, float((high - low).max() / 2)
    primitives, materials, images = [], [], []
    for number, name in enumerate(MATERIALS):
        parts = [part for part, m in zip(head.part_names, head.part_materials, strict=True) if m == name]
        if mesh == "face" and name == "skin":
            parts = ["face"]
        places, triangles, quads = _triangles(head, parts)
        positions, attributes = metres[places], {}
        shapes = morphs()[:, head.vertex[places]] * np.float32(0.1) if rigged else None
        step = scale if scaled else 1.0
        shapes = None if shapes is None else np.rint(shapes / step * _STEPS).astype(np.int16)
        if scaled:
            positions = np.rint((positions - centre) / scale * _STEPS).astype(np.int16)
        kind = np.int8 if scaled else np.int16
        rounded = np.rint(normals[places] * np.iinfo(kind).max).astype(kind)
        attributes["NORMAL"] = out.accessor(rounded, 34962, normalized=True)
        extent = {"min": positions.min(0).tolist(), "max": positions.max(0).tolist()}
        attributes["POSITION"] = out.accessor(
            positions, 34962, **extent, **({"normalized": True} if scaled else {})
        )  # fmt: skip
        uv = np.column_stack([head.uv[places, 0], 1 - head.uv[places, 1]])
        attributes["TEXCOORD_0"] = out.accessor(np.rint(uv * 65535).astype(np.uint16), 34962, normalized=True)
        if name in ("mouth", "teeth"):
            light = np.clip(0.4 + 6 * (metres[places, 2:] - metres[places, 2].min()), 0, 1)
            packed = np.rint(np.repeat(light, 3, 1) * 255).astype(np.uint8)
            attributes["COLOR_0"] = out.accessor(packed, 34962, normalized=True)
        primitive: dict[str, Any] = {
            "attributes": attributes, "indices": out.accessor(triangles.reshape(-1, 1), 34963), "material": number,
            "extras": {"quads": quads},
        }  # fmt: skip
        if shapes is not None:
            primitive["targets"] = [{"POSITION": out.sparse(row, normalized=True)} for row in shapes]
        primitives.append(primitive)
        metal: dict[str, Any] = {"metallicFactor": 0.0, "roughnessFactor": 0.15 if "eye" in name else 0.8}
        picture = {"skin": skin or _albedo(), "eye_left": _iris(), "eye_right": _iris(), "lashes": _lashes()}.get(name)
        if picture is not None:
            metal["baseColorTexture"] = {"index": len(images)}
            images.append((name, *_file(picture)))
        if name in COLOURS:
            metal["baseColorFactor"] = list(COLOURS[name])
        sheet = {"doubleSided": True, "alphaMode": "BLEND"} if name == "lashes" else {}
        materials.append({"name": name, "pbrMetallicRoughness": metal, **sheet})
    extras: dict[str, Any] = {"mesh": mesh, "pose": "canonical", "expression": "photo", "units": "metre"}
    whole: dict[str, Any] = {"name": mesh, "primitives": primitives, "extras": extras}
    if rigged:
        whole["weights"] = weights.tolist()
        extras["targetNames"] = list(arkit.NAMES)
    node: dict[str, Any] = {"name": mesh, "mesh": 0}
    if scaled:
        node |= {"translation": centre.tolist(), "scale": [scale] * 3}
    tree = {
        "asset": {"version": "2.0"}, "scene": 0, "scenes": [{"nodes": [0]}], "nodes": [node], "meshes": [whole],
        "materials": materials, "textures": [{"source": n, "sampler": 0} for n in range(len(images))],
        "samplers": [{"magFilter": 9729, "minFilter": 9987, "wrapS": 33071, "wrapT": 33071}],
        "images": [
            {"name": name, "bufferView": out.view(data), "mimeType": kind} for name, data, kind in images
        ],
        "accessors": out.accessors, "bufferViews": out.views, "buffers": [{"byteLength": 0}],
    }  # fmt: skip
    tree["extensionsUsed"] = tree["extensionsRequired"] = ["KHR_mesh_quantization"]
    return pack(tree, bytes(out.binary))


def pack(tree: dict[str, Any], binary: bytes) -> bytes:
    """Put the two chunks of a GLB together."""
    binary += bytes(-len(binary) % 4)
    tree["buffers"][0]["byteLength"] = len(binary)
    text = json.dumps(tree, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    return b"".join(
        [
            struct.pack("<4sII", b"glTF", 2, 28 + len(text) + len(binary)),
            struct.pack("<I4s", len(text), b"JSON"), text, struct.pack("<I4s", len(binary), b"BIN\0"), binary,
        ]
    )  # fmt: skip


def _triangles(head: HeadModel, parts: list[str]) -> tuple[NDArray[np.intp], NDArray[np.uint16], int]:
    """Places of a primitive, its triangles over them with the quads' pairs first, and the number of quads."""
    faces = head.faces[head.faces_of(*parts)]
    quads, singles = faces[faces[:, 3] >= 0], faces[faces[:, 3] < 0][:, :3]
    halves = split_quads(quads, head.mean[head.vertex], head.mirror, head.vertex)
    # A quad is turned so that its diagonal goes from its first corner.
    turned = np.where((halves[: len(quads), 2] == quads[:, 2])[:, None], quads, np.roll(quads, -1, 1))
    pairs = np.stack([turned[:, [0, 1, 2]], turned[:, [0, 2, 3]]], 1).reshape(-1, 3)
    places, numbers = np.unique(np.concatenate([pairs, singles]), return_inverse=True)
    return places.astype(np.intp), numbers.reshape(-1, 3).astype(np.uint16), len(quads)


def _normals(shape: NDArray[np.float32]) -> NDArray[np.float32]:
    triangles = model().vertex[model().triangles()]
    corners = shape[triangles].astype(np.float64)
    weighted = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    sums = np.zeros(shape.shape)
    for corner in range(3):
        np.add.at(sums, triangles[:, corner], weighted)
    unit: NDArray[np.float32] = (sums / np.linalg.norm(sums, axis=1, keepdims=True)).astype(np.float32)
    return unit


@functools.cache
def _albedo(side: int = 512) -> Image.Image:
    """The mean albedo of the skin, spread from the vertices over the chart by their nearest one."""
    from scipy.spatial import cKDTree

    head = model()
    places = _triangles(head, list(head.skin))[0]
    row, column = np.mgrid[0:side, 0:side]
    points = np.stack([(column + 0.5) / side, 1 - (row + 0.5) / side], -1).reshape(-1, 2)
    distance, near = cKDTree(head.uv[places]).query(points, 3)
    share = 1 / (distance + 1e-4)
    share /= share.sum(1, keepdims=True)
    colour = (head.albedo_mean[head.vertex[places]][near] * share[..., None]).sum(1)
    return Image.fromarray(colour.reshape(side, side, 3).clip(0, 255).astype(np.uint8))


@functools.cache
def _iris(side: int = 128) -> Image.Image:
    """White, a brown ring and a black disk around the middle."""
    y, x = (np.mgrid[0:side, 0:side] + 0.5) / side - 0.5
    radius = np.hypot(x, y) / model().iris_radius
    colour = np.where((radius < 1)[..., None], (96, 62, 38), (232, 226, 220))
    colour = np.where((radius < 0.4)[..., None], (12, 10, 10), colour)
    return Image.fromarray(colour.astype(np.uint8))


@functools.cache
def _lashes() -> Image.Image:
    """White strands, transparent between them and toward their tips (v = 1)."""
    row, column = np.mgrid[0:32, 0:128]
    alpha = np.where((column % 8 < 3) & (row > 6), 255, 0)
    return Image.fromarray(np.dstack([np.full((32, 128, 3), 255), alpha]).astype(np.uint8))


def _file(picture: Image.Image) -> tuple[bytes, str]:
    buffer = io.BytesIO()
    if picture.mode == "RGBA":
        picture.save(buffer, "PNG")
        return buffer.getvalue(), "image/png"
    picture.save(buffer, "JPEG", quality=90)
    return buffer.getvalue(), "image/jpeg"
