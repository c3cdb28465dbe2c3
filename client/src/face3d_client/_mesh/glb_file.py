"""Strict reader of a GLB container (glTF 2.0): chunks, buffer views, accessors.

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

__all__ = ["COMPONENTS", "MALFORMED", "GlbFile", "check_glb", "join_glb", "malformed", "read_glb", "whole"]

# glTF 2.0, 3.6.2.2: numbers of component types, and what a normalised one is divided by (3.6.2.2, decoding).
COMPONENTS: Final = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
_WIDTHS: Final = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}
_MAX_JSON: Final = 4 << 20  # bytes; a rigged head's has about two hundred thousand
# What a file that is not as it says raises on its way through here; all of these are about its contents.
MALFORMED: Final = (
    ValueError, KeyError, IndexError, TypeError, AttributeError, struct.error, RecursionError, OverflowError,
)  # fmt: skip


@dataclass(frozen=True)
class GlbFile:
    """The two chunks of a GLB: its JSON, and the only buffer."""

    tree: dict[str, Any]
    buffer: memoryview

    def span(self, number: Any) -> tuple[int, int, int | None]:
        """Return where a buffer view begins, its length, and its stride (None: no gaps)."""
        view = self.tree["bufferViews"][whole(number)]
        begin, length = whole(view.get("byteOffset", 0)), whole(view["byteLength"])
        if whole(view["buffer"]) != 0 or begin + length > len(self.buffer):
            raise ValueError("a view reaches beyond the file")
        stride = view.get("byteStride")
        return begin, length, None if stride is None else whole(stride)

    def view(self, number: Any) -> memoryview:
        """Return the bytes of a buffer view."""
        begin, length, _ = self.span(number)
        return self.buffer[begin : begin + length]

    def array(self, number: Any, width: int, count: int | None = None) -> NDArray[Any]:
        """Read the elements (N, width) of an accessor, normalised ones as float32.

        Args:
            number: of the accessor.
            width: numbers of an element.
            count: how many elements there have to be. None: any number but 0.
        """
        accessor = self.tree["accessors"][whole(number)]
        size = whole(accessor["count"])
        if _WIDTHS[accessor["type"]] not in ((3, 4) if width == 4 else (width,)):
            raise ValueError("an accessor is of another kind")
        if size == 0 or size != (size if count is None else count):
            raise ValueError("an accessor has another number of elements")
        width = _WIDTHS[accessor["type"]]
        dtype = np.dtype(COMPONENTS[accessor["componentType"]])
        if "bufferView" in accessor:
            values = self._elements(accessor["bufferView"], accessor, dtype, size, width)
        elif count is None:
            raise ValueError("an accessor has no elements")  # memory is taken for what is there, or was counted before
        else:
            values = np.zeros((size, width), dtype)
        if "sparse" in accessor:
            self._replace(values, accessor["sparse"])
        if accessor.get("normalized") and dtype.kind != "f":
            values = np.maximum(values.astype(np.float32) / np.float32(np.iinfo(dtype).max), np.float32(-1))
        return values

    def _elements(self, view: Any, entry: dict[str, Any], dtype: Any, count: int, width: int) -> NDArray[Any]:
        offset = whole(entry.get("byteOffset", 0))
        begin, length, stride = self.span(view)
        step = stride or width * dtype.itemsize
        if step < width * dtype.itemsize or offset + step * (count - 1) + width * dtype.itemsize > length:
            raise ValueError("an accessor reaches beyond its view")
        content = self.buffer[begin : begin + length]
        return np.ndarray((count, width), dtype, content, offset, (step, dtype.itemsize)).copy()

    def _replace(self, values: NDArray[Any], sparse: dict[str, Any]) -> None:
        """Put the elements of a sparse accessor (3.6.2.3) in their places."""
        indices, elements = sparse["indices"], sparse["values"]
        count = whole(sparse["count"])
        kind = np.dtype(COMPONENTS[indices["componentType"]])
        if kind.kind != "u" or not 0 < count <= len(values):
            raise ValueError("a sparse accessor is of another kind")
        places = self._elements(indices["bufferView"], indices, kind, count, 1)[:, 0]
        if int(places.max()) >= len(values):
            raise ValueError("a sparse accessor names an element that is not there")
        values[places] = self._elements(elements["bufferView"], elements, values.dtype, count, values.shape[1])


def check_glb(glb: bytes) -> bytes:
    """Return the file if it begins as a GLB of version 2 and has the length that it says.

    Raises:
        BadResponse: it is not so.
    """
    if len(glb) < 20 or struct.unpack_from("<4sII", glb) != (b"glTF", 2, len(glb)):
        raise BadResponse("the server sent a mesh that is no GLB of version 2. Is it a Face3D server?")
    return glb


def read_glb(glb: bytes) -> GlbFile:
    """Find the chunks (glTF 2.0, 4.4): a JSON one, then a binary one, each after its length and type.

    Raises:
        BadResponse: not a GLB.
        One of `MALFORMED`: its contents are not as they say.
    """
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
    return GlbFile(tree, memoryview(glb)[begin : begin + size])


def join_glb(tree: dict[str, Any], buffer: bytes | bytearray | memoryview) -> bytes:
    """Put the two chunks of a GLB together; `buffer` has a multiple of four bytes, as the one that was read."""
    text = json.dumps(tree, separators=(",", ":"), allow_nan=False).encode()
    text += b" " * (-len(text) % 4)
    head = struct.pack("<4sII", b"glTF", 2, 28 + len(text) + len(buffer))
    return b"".join(
        [head, struct.pack("<I4s", len(text), b"JSON"), text, struct.pack("<I4s", len(buffer), b"BIN\0"), buffer]
    )


def whole(number: Any) -> int:
    """Check a number of bytes or elements, or an index: a whole number, not negative."""
    if type(number) is not int or number < 0:
        raise ValueError(f"{str(number)[:20]} is no size")
    return number


def malformed(error: Exception) -> BadResponse:
    """Make the error that says what is wrong with a GLB."""
    return BadResponse(f"the server sent a GLB that is not as this service writes it ({error}).")
