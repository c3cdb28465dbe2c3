"""Meshes out of the GLB files that the service writes, and those files with another pose, unit or expression.

A file is changed where it stands: its pictures, materials and morph targets stay as the server made them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from face3d_client._mesh.glb_file import COMPONENTS, MALFORMED, GlbFile, check_glb, join_glb, malformed, read_glb, whole
from face3d_client._mesh.part import Material, Part, vertex_normals, weld
from face3d_client._mesh.surface import Surface

__all__ = ["check_glb", "embedded_image", "glb_with_pose", "glb_with_vertices", "surface_from_glb"]

_MM_PER_M: Final = 1000.0
_MAX_PARTS: Final = 16
_MAX_MOVES: Final = 8 << 20  # vertices of all morph targets together; a head has 1.3 million, which take 16 MB


def surface_from_glb(glb: bytes, texture: bytes | None = None) -> Surface:
    """Read the only mesh of a GLB that this service wrote; metres become millimetres.

    Args:
        glb: the file.
        texture: the picture to put on the first part, a better copy of the one inside. None: the one inside.

    Raises:
        BadResponse: not such a GLB.
    """
    try:
        file = read_glb(glb)
        mesh = _only_mesh(file.tree)
        primitives = mesh["primitives"]
        if not 0 < len(primitives) <= _MAX_PARTS:
            raise ValueError(f"its mesh has {len(primitives)} parts")
        names = _target_names(mesh)
        parts = [_part(file, primitive, len(names)) for primitive in primitives]
        weights = dict(zip(names, map(_number, mesh.get("weights") or [0.0] * len(names)), strict=True))
        name, extras = str(mesh.get("name", "face"))[:100], mesh.get("extras") or {}
        posed, neutral = extras.get("pose") == "camera", extras.get("expression") == "neutral"
    except MALFORMED as error:
        raise malformed(error) from error
    if texture is not None:
        parts[0] = replace(parts[0], material=replace(parts[0].material, image=texture))
    return Surface(tuple(parts), name, weights, posed, neutral)


def _only_mesh(tree: dict[str, Any]) -> dict[str, Any]:
    """Find the mesh, which stands where its vertices say."""
    if any(set(node) & {"matrix", "translation", "rotation", "scale"} for node in tree.get("nodes", ())):
        raise ValueError("its mesh is moved by a node, as the service's never is")
    mesh: dict[str, Any]
    (mesh,) = tree["meshes"]
    return mesh


def _target_names(mesh: dict[str, Any]) -> list[str]:
    """Read the names of the morph targets, none where there are none."""
    if not mesh["primitives"][0].get("targets"):
        return []
    names = [str(name)[:100] for name in mesh["extras"]["targetNames"]]
    if len(set(names)) != len(names):
        raise ValueError("two morph targets have the same name")
    return names


def _part(file: GlbFile, primitive: dict[str, Any], targets: int) -> Part:
    attributes = primitive["attributes"]
    positions = file.array(attributes["POSITION"], 3)
    count = len(positions)
    uv = file.array(attributes["TEXCOORD_0"], 2, count).astype(np.float32)
    faces = file.array(primitive["indices"], 1)
    if primitive.get("mode", 4) != 4 or faces.dtype.kind != "u" or len(faces) % 3 or int(faces.max()) >= count:
        raise ValueError("a triangle names a vertex that is not there")
    faces = faces.reshape(-1, 3).astype(np.int32)
    quads = whole((primitive.get("extras") or {}).get("quads", 0))
    if 2 * quads > len(faces):
        raise ValueError("it has fewer triangles than halves of quads")
    if positions.dtype != np.float32:
        raise ValueError("its vertices are of another kind")
    vertices = (positions * _MM_PER_M).astype(np.float32)
    shapes = None
    if targets:
        moves = [entry["POSITION"] for entry in primitive["targets"]]
        if len(moves) != targets or targets * count > _MAX_MOVES:
            raise ValueError("its morph targets are too many or too few")
        shapes = np.stack([file.array(move, 3, count).astype(np.float32) for move in moves]) * np.float32(_MM_PER_M)
    normals = file.array(attributes["NORMAL"], 3, count).astype(np.float32) if "NORMAL" in attributes else None
    colours = file.array(attributes["COLOR_0"], 4, count)[:, :3] if "COLOR_0" in attributes else None
    for values in (vertices, uv, shapes, normals, colours):
        if values is not None and not np.isfinite(values).all():
            raise ValueError("its numbers are not finite")
    vertex = weld(positions)  # by the numbers of the file
    return Part(
        material=_material(file, primitive.get("material")),
        vertices=vertices,
        normals=vertex_normals(vertices, faces, vertex) if normals is None else _unit(normals),
        uv=np.column_stack([uv[:, 0], 1 - uv[:, 1]]),  # v points down in glTF
        faces=faces,
        vertex=vertex,
        quads=quads,
        colours=None if colours is None else colours.astype(np.float32),
        shapes=shapes,
    )


def _unit(normals: NDArray[np.float32]) -> NDArray[np.float32]:
    unit: NDArray[np.float32] = normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), np.float32(1e-12))
    return unit


def _material(file: GlbFile, number: Any) -> Material:
    """Read a material (glTF 2.0, 3.9)."""
    if number is None:
        return Material()
    entry = file.tree["materials"][whole(number)]
    metal = entry.get("pbrMetallicRoughness", {})
    red, green, blue, alpha = (_number(value) for value in metal.get("baseColorFactor", (1, 1, 1, 1)))
    image = None
    if "baseColorTexture" in metal:
        texture = file.tree["textures"][whole(metal["baseColorTexture"]["index"])]
        image = _image(file, texture["source"])
    return Material(
        name=str(entry.get("name", "skin"))[:100],
        image=image,
        factor=(red, green, blue, alpha),
        roughness=_number(metal.get("roughnessFactor", 1.0)),
        double_sided=bool(entry.get("doubleSided", False)),
        blended=entry.get("alphaMode", "OPAQUE") != "OPAQUE",
    )


def _image(file: GlbFile, number: Any) -> bytes:
    content = file.view(file.tree["images"][whole(number)]["bufferView"])
    # Some writers count the padding in; neither PNG nor JPEG ends in a zero.
    return bytes(content).rstrip(b"\0")


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{str(value)[:20]} is no number")
    return float(value)


def embedded_image(glb: bytes) -> bytes:
    """Extract the first picture file inside a GLB, unchanged.

    Raises:
        BadResponse: not a GLB, or one without a picture inside.
    """
    try:
        return _image(read_glb(glb), 0)
    except MALFORMED as error:
        raise malformed(error) from error


def glb_with_pose(
    glb: bytes,
    matrix: NDArray[np.float64] | None = None,
    scale: float = 1.0,
    weights: Mapping[str, float] | None = None,
) -> bytes:
    """Change pose, size and expression of a GLB; vertices, materials, pictures and morph targets stay as they are.

    Args:
        glb: a file that `surface_from_glb` reads.
        matrix: rigid float64 (4, 4) in millimetres. None: where it is.
        scale: file units per metre.
        weights: of its morph targets, those left out are 0. None: as they are.
    """
    from trimesh import transformations

    quaternion: Any = transformations.quaternion_from_matrix  # untyped

    file = read_glb(glb)
    tree = file.tree
    if weights is not None:
        (mesh,) = tree["meshes"]
        mesh["weights"] = [float(weights.get(name, 0.0)) for name in _target_names(mesh)]
    if matrix is not None or scale != 1.0:
        placed = np.eye(4) if matrix is None else matrix
        (node,) = tree["nodes"]
        node["rotation"] = np.roll(quaternion(placed), -1).tolist()  # x, y, z, w
        node["translation"] = (placed[:3, 3] * (scale / _MM_PER_M)).tolist()
        node["scale"] = [scale] * 3
    return join_glb(tree, file.buffer)


def glb_with_vertices(glb: bytes, part: Part, scale: float = 1.0) -> bytes:
    """Move the vertices of a GLB of one part in its buffer.

    Args:
        glb: a file with one part whose positions are float32.
        part: what they are moved to, mm.
        scale: file units per metre.
    """
    try:
        file = read_glb(glb)
        (primitive,) = file.tree["meshes"][0]["primitives"]
        buffer = bytearray(file.buffer)
        positions = part.vertices * np.float32(scale / _MM_PER_M)
        _write(file, buffer, primitive["attributes"]["POSITION"], positions)
        bounds = {"min": positions.min(0).tolist(), "max": positions.max(0).tolist()}
        file.tree["accessors"][primitive["attributes"]["POSITION"]] |= bounds
        if "NORMAL" in primitive["attributes"]:
            _write(file, buffer, primitive["attributes"]["NORMAL"], part.normals)
        return join_glb(file.tree, buffer)
    except MALFORMED as error:
        raise malformed(error) from error


def _write(file: GlbFile, buffer: bytearray, number: Any, values: NDArray[np.float32]) -> None:
    """Replace the elements of an accessor by `values` (N, 3), in the type that it has."""
    accessor = file.tree["accessors"][whole(number)]
    view = file.tree["bufferViews"][whole(accessor["bufferView"])]
    there = file.array(number, 3, len(values))  # every size is checked here
    dtype = np.dtype(COMPONENTS[accessor["componentType"]])
    if "sparse" in accessor or there.dtype != np.float32:
        raise ValueError("its vertices are of another kind")
    begin = view.get("byteOffset", 0) + accessor.get("byteOffset", 0)
    strides = (view.get("byteStride") or 3 * dtype.itemsize, dtype.itemsize)
    target: NDArray[Any] = np.ndarray((len(values), 3), dtype, buffer, begin, strides)
    target[:] = values if dtype.kind == "f" else np.rint(values * np.iinfo(dtype).max)
