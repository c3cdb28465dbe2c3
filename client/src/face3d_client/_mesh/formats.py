"""Encoders of OBJ, PLY, STL, USDZ and NPZ, and one function that writes a file whole or not at all."""

from __future__ import annotations

import io
import re
import uuid
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from face3d_client._mesh.part import Part
from face3d_client._mesh.solid import solid_triangles
from face3d_client._mesh.surface import Surface

__all__ = [
    "PARTS",
    "SUFFIXES",
    "UNITS",
    "npz_bytes",
    "obj_files",
    "ply_files",
    "safe_stem",
    "scale_of",
    "stl_bytes",
    "surface_files",
    "write_files",
    "write_whole",
]

_MM_TO: Final[dict[str, float]] = {"m": 0.001, "mm": 1.0}
UNITS: Final[dict[str, Literal["m", "mm"]]] = {
    ".glb": "m", ".obj": "m", ".ply": "mm", ".stl": "mm", ".usdz": "m", ".npz": "mm",
}  # fmt: skip
SUFFIXES: Final = tuple(UNITS)
# Names of pictures beside a file: STEM_texture.png is the skin's.
PARTS: Final = ("texture", "atlas", "eye_left", "eye_right", "teeth", "mouth", "lashes")


def surface_files(
    surface: Callable[[], Surface], name: str, units: Literal["m", "mm"] | None = None
) -> dict[str, bytes]:
    """Encode a mesh in the format that a file's suffix names.

    Args:
        surface: makes the mesh; called once the suffix is known to be one of these.
        name: of the file: .obj, .ply, .stl or .usdz.
        units: of its coordinates. None: metres in OBJ and USDZ, millimetres in PLY and STL.

    Returns:
        Contents by file name, `name` last.

    Raises:
        ValueError: another suffix.
        ModuleNotFoundError: USDZ, and usd-core is not installed.
    """
    stem, suffix = Path(name).stem, Path(name).suffix.lower()
    scale = scale_of(name, units)
    if suffix == ".obj":
        return obj_files(surface(), stem, name, scale)
    if suffix == ".ply":
        return ply_files(surface(), stem, name, scale)
    if suffix == ".stl":
        return {name: stl_bytes(surface(), scale)}
    from face3d_client._mesh.usd import usdz_bytes

    return {name: usdz_bytes(surface(), safe_stem(stem), scale)}


def scale_of(name: str, units: Literal["m", "mm"] | None) -> float:
    """Find the file units per millimetre.

    Raises:
        ValueError: a suffix that is none of `SUFFIXES`.
    """
    suffix = Path(name).suffix.lower()
    if suffix not in UNITS:
        raise ValueError(f"{name!r}: the suffix is one of {', '.join(UNITS)}")
    return _MM_TO[units or UNITS[suffix]]


def safe_stem(stem: str) -> str:
    """Make a name for objects, materials and the files that others refer to: without spaces and signs.

    Many readers of OBJ and PLY end a name at its first space. A name that had to be changed gets a checksum, so that
    the files of "a b.obj" and "a_b.obj" are not the same.
    """
    safe = re.sub(r"[^\w.-]+", "_", stem).lstrip("-") or "_"
    return safe if safe == stem else f"{safe}-{zlib.crc32(stem.encode(errors='surrogateescape')):08x}"


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


def stl_bytes(surface: Surface, scale: float = 1.0) -> bytes:
    """Encode a binary STL, shape only: a head as a closed body; slicers read its numbers as millimetres."""
    vertices, faces = solid_triangles(surface)
    corners = vertices[faces] * np.float32(scale)
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-30)
    record = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
    triangles = np.zeros(len(corners), record)
    triangles["normal"] = normals
    triangles["corners"] = corners
    header = b"face3d binary STL, y up".ljust(80)
    return header + np.uint32(len(corners)).tobytes() + triangles.tobytes()


def ply_files(surface: Surface, stem: str, name: str, scale: float = 1.0) -> dict[str, bytes]:
    """Encode a binary PLY with its texture beside it: the PLY last.

    A vertex has its normal, its texture coordinates (s, t; t up) in the texture that the header names, and the colour
    there. Triangles, since not every reader takes faces of different lengths; without the lashes, since PLY has no
    transparency.
    """
    surface = surface.opaque()
    vertex = np.dtype(
        [(key, "<f4") for key in ("x", "y", "z", "nx", "ny", "nz", "s", "t")]
        + [(key, "u1") for key in ("red", "green", "blue")]
    )
    rows = np.zeros(len(surface.vertices), vertex)
    for names, columns in (
        (("x", "y", "z"), surface.vertices * np.float32(scale)),
        (("nx", "ny", "nz"), surface.normals),
        (("s", "t"), surface.atlas.uv),
        (("red", "green", "blue"), np.concatenate([part.vertex_colours() for part in surface.parts])),
    ):
        for index, key in enumerate(names):
            rows[key] = columns[:, index]
    faces = np.zeros(len(surface.faces), np.dtype([("count", "u1"), ("vertices", "<i4", 3)]))
    faces["count"] = 3
    faces["vertices"] = surface.faces
    texture = f"{safe_stem(stem)}_{'atlas' if len(surface.parts) > 1 else 'texture'}.png"
    header = ["ply", "format binary_little_endian 1.0", f"comment face3d: y up, facing +z, unit {_unit(scale)}"]
    header += [f"comment TextureFile {texture}", f"element vertex {len(rows)}"]
    header += [f"property {'uchar' if vertex[key] == np.uint8 else 'float'} {key}" for key in vertex.names or ()]
    header += [f"element face {len(faces)}", "property list uchar int vertex_indices", "end_header", ""]
    content = "\n".join(header).encode() + rows.tobytes() + faces.tobytes()
    return {texture: _png(surface.atlas.picture), name: content}


def obj_files(surface: Surface, stem: str, name: str, scale: float = 0.001) -> dict[str, bytes]:
    """Encode an OBJ with its materials and textures: the OBJ last, so that where it is, the others are too.

    y up and facing +z, which Blender's importer (forward -Z, up Y) turns upright, facing its front view; v up. Quads
    stay quads, and vertices on a seam stay one. A part without a picture gets one of a single colour: readers differ in
    how they take the colours of an MTL.
    """
    safe = safe_stem(stem)
    files: dict[str, bytes] = {}
    mtl = ["# face3d"]
    lines = [f"# face3d: y up, facing +z, unit {_unit(scale)}", f"mtllib {safe}.mtl", f"o {safe}"]
    vertices = textures = 0
    for number, part in enumerate(surface.parts):
        material = f"{safe}_{part.material.name}"
        texture = f"{safe}_{part.material.name if number else 'texture'}.png"
        files[texture] = _part_texture(part)
        mtl += [f"newmtl {material}", "Ka 1 1 1", "Kd 1 1 1", "Ks 0 0 0", "illum 1", f"map_Kd {texture}"]
        mtl += [f"map_d {texture}"] if part.material.blended else []
        lines += _rows("v", part.vertices[part.first] * np.float64(scale), 7)
        lines += _rows("vt", part.uv, 6)
        lines += _rows("vn", part.normals[part.first], 4)
        lines += [f"g {material}", f"usemtl {material}"]
        lines += _obj_faces(part, vertices + 1, textures + 1)
        vertices += len(part.first)
        textures += len(part.uv)
    obj = "\n".join(lines) + "\n"
    return files | {f"{safe}.mtl": ("\n".join(mtl) + "\n").encode(), name: obj.encode()}


def _obj_faces(part: Part, vertex: int, texture: int) -> list[str]:
    """Write faces whose first vertex and texture coordinate have these numbers."""
    lines: list[str] = []
    for polygons in (part.quad_faces, part.triangle_faces):
        corners = np.stack([part.vertex[polygons] + vertex, polygons + texture], -1).tolist()
        lines += ["f " + " ".join(f"{v}/{t}/{v}" for v, t in polygon) for polygon in corners]
    return lines


def _unit(scale: float) -> str:
    return next(name for name, factor in _MM_TO.items() if factor == scale)


def _rows(key: str, values: NDArray[Any], digits: int) -> list[str]:
    layout = f"{key} " + " ".join([f"%.{digits}f"] * values.shape[1])
    return [layout % tuple(row) for row in values.tolist()]


def _part_texture(part: Part) -> bytes:
    """Make the picture of a part as a PNG file, the one that it has where that is one."""
    image = part.material.image
    if image is not None and image.startswith(b"\x89PNG") and not part.material.blended:
        return image
    return _png(part.tile())


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def npz_bytes(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Encode arrays of numbers or texts, compressed; without pickled objects (loads with ``allow_pickle=False``)."""
    buffer = io.BytesIO()
    keywords: Any = arrays  # NumPy's annotations take any of them for its own `allow_pickle`
    np.savez_compressed(buffer, **keywords)
    return buffer.getvalue()
