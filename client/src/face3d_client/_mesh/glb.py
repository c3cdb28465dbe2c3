"""Strict reader of the GLB files (glTF 2.0) that the service writes.

General readers take memory for whatever a file says; here every size is compared with the bytes that are there.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from face3d_client._errors import BadResponse
from face3d_client._mesh.surface import Surface

__all__ = ["check_glb", "embedded_image", "surface_from_glb"]

_MM_PER_M: Final = 1000.0
_COMPONENTS: Final = {5121: "<u1", 5123: "<u2", 5125: "<u4", 5126: "<f4"}  # glTF 2.0, 3.6.2.2
_WIDTHS: Final = {"SCALAR": 1, "VEC2": 2, "VEC3": 3}
_MAX_JSON: Final = 1 << 20  # bytes; the service's has about two thousand


@dataclass(frozen=True)
class _File:
    """The two chunks of a GLB: its JSON, and the only buffer."""

    tree: dict[str, Any]
    buffer: memoryview

    def view(self, number: Any) -> tuple[memoryview, int | None]:
        """Return the bytes of a buffer view and its stride (None: no gaps)."""
        view = self.tree["bufferViews"][_checked_size(number)]
        begin, length = _checked_size(view.get("byteOffset", 0)), _checked_size(view["byteLength"])
        if _checked_size(view["buffer"]) != 0 or begin + length > len(self.buffer):
            raise ValueError("a view reaches beyond the file")
        stride = view.get("byteStride")
        return self.buffer[begin : begin + length], None if stride is None else _checked_size(stride)

    def array(self, number: Any, width: int) -> NDArray[Any]:
        """Read the elements (N, width) of an accessor."""
        accessor = self.tree["accessors"][_checked_size(number)]
        if "sparse" in accessor or _WIDTHS[accessor["type"]] != width:
            raise ValueError("an accessor is of another kind")
        dtype = np.dtype(_COMPONENTS[accessor["componentType"]])
        count, offset = _checked_size(accessor["count"]), _checked_size(accessor.get("byteOffset", 0))
        content, stride = self.view(accessor["bufferView"])
        step = stride or width * dtype.itemsize
        if (
            count == 0
            or step < width * dtype.itemsize
            or offset + step * (count - 1) + width * dtype.itemsize > len(content)
        ):
            raise ValueError("an accessor reaches beyond its view")
        return np.ndarray((count, width), dtype, content, offset, (step, dtype.itemsize)).copy()


def check_glb(glb: bytes) -> bytes:
    """Return the file if it begins as a GLB of version 2 and has the length that it says.

    Raises:
        BadResponse: it is not so.
    """
    if len(glb) < 20 or struct.unpack_from("<4sII", glb) != (b"glTF", 2, len(glb)):
        raise BadResponse("the server sent a mesh that is no GLB of version 2. Is it a Face3D server?")
    return glb


def surface_from_glb(glb: bytes, texture: bytes) -> Surface:
    """Read the only mesh of a GLB that this service wrote; metres become millimetres.

    Args:
        glb: the file.
        texture: the picture to put on it: the one inside, or a better copy of that.

    Raises:
        BadResponse: not such a GLB.
    """
    try:
        file = _read_chunks(glb)
        (mesh,) = file.tree["meshes"]
        (primitive,) = mesh["primitives"]
        attributes = primitive["attributes"]
        vertices = file.array(attributes["POSITION"], 3)
        uv = file.array(attributes["TEXCOORD_0"], 2)
        faces = file.array(primitive["indices"], 1).reshape(-1, 3)
        if vertices.dtype != np.float32 or uv.dtype != np.float32 or len(uv) != len(vertices):
            raise ValueError("its vertices or texture coordinates are of another kind")
        if faces.dtype == np.float32 or int(faces.max()) >= len(vertices):
            raise ValueError("a triangle names a vertex that is not there")
        if not (np.isfinite(vertices).all() and np.isfinite(uv).all()):
            raise ValueError("its numbers are not finite")
    except _MALFORMED as error:
        raise _malformed(error) from error
    return Surface(
        vertices=(vertices * _MM_PER_M).astype(np.float32),
        faces=faces.astype(np.int32),
        uv=np.column_stack([uv[:, 0], 1 - uv[:, 1]]).astype(np.float32),  # v points down in glTF
        texture=texture,
    )


def embedded_image(glb: bytes) -> bytes:
    """Extract the first picture file inside a GLB, unchanged.

    Raises:
        BadResponse: not a GLB, or one without a picture inside.
    """
    try:
        file = _read_chunks(glb)
        content, _ = file.view(file.tree["images"][0]["bufferView"])
    except _MALFORMED as error:
        raise _malformed(error) from error
    # Some writers count the padding in; neither PNG nor JPEG ends in a zero.
    return bytes(content).rstrip(b"\0")


# What a file that is not as it says raises on its way through here; all of these are about its contents.
_MALFORMED: Final = (ValueError, KeyError, IndexError, TypeError, AttributeError, struct.error, RecursionError)


def _read_chunks(glb: bytes) -> _File:
    """Find the chunks (glTF 2.0, 4.4): a JSON one, then a binary one, each after its length and type."""
    check_glb(glb)
    json_size, json_type = struct.unpack_from("<I4s", glb, 12)
    if json_type != b"JSON" or json_size > min(_MAX_JSON, len(glb) - 28):
        raise ValueError("it has no JSON chunk and binary chunk of its size")
    size, kind = struct.unpack_from("<I4s", glb, 20 + json_size)
    begin = 28 + json_size
    if kind != b"BIN\0" or begin + size > len(glb):
        raise ValueError("it has no binary chunk of its size")
    tree = json.loads(glb[20 : 20 + json_size])
    if not isinstance(tree, dict):
        raise ValueError("its JSON is no object")
    if any(set(node) & {"matrix", "translation", "rotation", "scale"} for node in tree.get("nodes", ())):
        raise ValueError("its mesh is moved by a node, as the service's never is")
    return _File(tree, memoryview(glb)[begin : begin + size])


def _checked_size(number: Any) -> int:
    """Check a number of bytes or elements, or an index: a whole number, not negative."""
    if type(number) is not int or number < 0:
        raise ValueError(f"{str(number)[:20]} is no size")
    return number


def _malformed(error: Exception) -> BadResponse:
    return BadResponse(f"the server sent a GLB that is not as this service writes it ({error}).")
