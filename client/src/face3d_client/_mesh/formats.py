"""Encoders of GLB, OBJ, PLY, STL and NPZ, and one function that writes a file whole or not at all."""

from __future__ import annotations

import io
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from face3d_client._mesh.surface import Surface

__all__ = [
    "SUFFIXES",
    "UNITS",
    "glb_bytes",
    "npz_bytes",
    "obj_files",
    "ply_bytes",
    "stl_bytes",
    "surface_files",
    "write_files",
    "write_whole",
]

_MM_TO: Final[dict[str, float]] = {"m": 0.001, "mm": 1.0}
UNITS: Final[dict[str, Literal["m", "mm"]]] = {".glb": "m", ".obj": "m", ".ply": "mm", ".stl": "mm", ".npz": "mm"}
SUFFIXES: Final = tuple(UNITS)


def surface_files(
    surface: Callable[[], Surface], name: str, units: Literal["m", "mm"] | None = None
) -> dict[str, bytes]:
    """Encode a mesh in the format that a file's suffix names.

    Args:
        surface: makes the mesh; called once the suffix is known to be one of a mesh.
        name: of the file: .glb, .obj, .ply or .stl.
        units: of its coordinates. None: metres in GLB and OBJ, millimetres in PLY and STL.

    Returns:
        Contents by file name, `name` last.

    Raises:
        ValueError: another suffix.
    """
    stem, suffix = Path(name).stem, Path(name).suffix.lower()
    if suffix not in UNITS:
        raise ValueError(f"{name!r}: the suffix is one of {', '.join(UNITS)}")
    scale = _MM_TO[units or UNITS[suffix]]
    if suffix == ".obj":
        return obj_files(surface(), stem, name, scale)
    encoders: dict[str, Callable[[Surface, float], bytes]] = {".glb": glb_bytes, ".ply": ply_bytes, ".stl": stl_bytes}
    return {name: encoders[suffix](surface(), scale)}


def write_files(folder: Path, contents: Mapping[str, bytes]) -> list[Path]:
    """Write files in their order, each whole or not at all; return their paths."""
    return [write_whole(folder / name, content) for name, content in contents.items()]


def write_whole(path: Path, content: bytes) -> Path:
    """Write a file that appears whole or not at all: under a temporary name first, then renamed. Return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".face3d-{uuid.uuid4().hex}.part")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return path


def glb_bytes(surface: Surface, scale: float = 0.001) -> bytes:
    """Encode a GLB with texture and normals inside. `scale`: file units per millimetre (glTF asks for metres)."""
    mesh: Any = surface.to_trimesh(scale)  # its export is typed for every format at once
    glb: bytes = mesh.export(file_type="glb", include_normals=True)
    return glb


def stl_bytes(surface: Surface, scale: float = 1.0) -> bytes:
    """Encode a binary STL, shape only; slicers read its numbers as millimetres."""
    corners = surface.vertices[surface.faces] * np.float32(scale)
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-30)
    record = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
    triangles = np.zeros(len(corners), record)
    triangles["normal"] = normals
    triangles["corners"] = corners
    header = b"face3d binary STL, y up".ljust(80)
    return header + np.uint32(len(corners)).tobytes() + triangles.tobytes()


def ply_bytes(surface: Surface, scale: float = 1.0) -> bytes:
    """Encode a binary PLY: vertices with normals, texture coordinates (s, t; t up) and the texture's colour at each."""
    vertex = np.dtype(
        [(name, "<f4") for name in ("x", "y", "z", "nx", "ny", "nz", "s", "t")]
        + [(name, "u1") for name in ("red", "green", "blue")]
    )
    rows = np.zeros(len(surface.vertices), vertex)
    for names, columns in (
        (("x", "y", "z"), surface.vertices * np.float32(scale)),
        (("nx", "ny", "nz"), surface.normals),
        (("s", "t"), surface.uv),
        (("red", "green", "blue"), _vertex_colours(surface)),
    ):
        for index, name in enumerate(names):
            rows[name] = columns[:, index]
    triangles = np.zeros(len(surface.faces), np.dtype([("count", "u1"), ("vertices", "<i4", 3)]))
    triangles["count"] = 3
    triangles["vertices"] = surface.faces
    comment = f"comment face3d: y up, facing +z, unit {_unit(scale)}"
    header = ["ply", "format binary_little_endian 1.0", comment, f"element vertex {len(rows)}"]
    header += [f"property {'uchar' if vertex[name] == np.uint8 else 'float'} {name}" for name in vertex.names or ()]
    header += [f"element face {len(triangles)}", "property list uchar int vertex_indices", "end_header", ""]
    return "\n".join(header).encode() + rows.tobytes() + triangles.tobytes()


def _vertex_colours(surface: Surface) -> NDArray[np.uint8]:
    texture = np.asarray(surface.texture_image())
    height, width = texture.shape[:2]
    columns = np.clip(np.rint(surface.uv[:, 0] * width - 0.5), 0, width - 1).astype(np.intp)
    rows = np.clip(np.rint((1 - surface.uv[:, 1]) * height - 0.5), 0, height - 1).astype(np.intp)
    colours: NDArray[np.uint8] = texture[rows, columns]
    return colours


def obj_files(surface: Surface, stem: str, name: str, scale: float = 0.001) -> dict[str, bytes]:
    """Encode an OBJ with its material and texture: the OBJ last, so that where it is, the others are too.

    y up and facing +z, which Blender's importer (forward -Z, up Y) turns upright, facing its front view; v up.
    """
    texture = f"{stem}.png"
    material = f"{stem}.mtl"
    mtl = f"# face3d\nnewmtl face\nKa 1 1 1\nKd 1 1 1\nKs 0 0 0\nillum 1\nmap_Kd {texture}\n"
    lines = [f"# face3d: y up, facing +z, unit {_unit(scale)}", f"mtllib {material}", "o face"]
    lines += _rows("v", surface.vertices * np.float64(scale), 7)
    lines += _rows("vt", surface.uv, 6)
    lines += _rows("vn", surface.normals, 4)
    lines.append("usemtl face")
    lines += ["f {0}/{0}/{0} {1}/{1}/{1} {2}/{2}/{2}".format(*corners) for corners in (surface.faces + 1).tolist()]
    obj = "\n".join(lines) + "\n"
    return {texture: _png_texture(surface), material: mtl.encode(), name: obj.encode()}


def _unit(scale: float) -> str:
    return next(name for name, factor in _MM_TO.items() if factor == scale)


def _rows(key: str, values: NDArray[Any], digits: int) -> list[str]:
    layout = f"{key} " + " ".join([f"%.{digits}f"] * values.shape[1])
    return [layout % tuple(row) for row in values.tolist()]


def _png_texture(surface: Surface) -> bytes:
    if surface.texture.startswith(b"\x89PNG"):
        return surface.texture
    buffer = io.BytesIO()
    surface.texture_image().save(buffer, "PNG")
    return buffer.getvalue()


def npz_bytes(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Encode arrays of numbers or texts, compressed; without pickled objects (loads with ``allow_pickle=False``)."""
    buffer = io.BytesIO()
    keywords: Any = arrays  # NumPy's annotations take any of them for its own `allow_pickle`
    np.savez_compressed(buffer, **keywords)
    return buffer.getvalue()
