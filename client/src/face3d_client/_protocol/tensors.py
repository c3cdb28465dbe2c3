"""Strict reader of the tensors in an answer; nothing in them is trusted, by gRPC or HTTP.

A server that lies, or something else that answers at its address, must cost a typed error and no more: every size is
compared with what is there before memory is taken for it.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from face3d_client._errors import BadResponse

__all__ = ["MAX_ANSWER", "Tensor", "read_tensors"]

MAX_ANSWER: Final = 128 << 20
"""Bytes of the largest answer that is read.

The largest true one has 120 MB: a texture of 4096 x 4096 pixels that cannot be compressed (50 MB as PNG) in `texture`
and again inside `mesh`, there with a normal map of 2048 x 2048 (13 MB), and 4 MB of the rest.
"""

_Shape: TypeAlias = "tuple[int | None, ...]"  # None: any length
_ROWS: Final = -1  # as many as the request has photographs: a batch of one, or those of a person

# Of the ensembles' configurations, the batch in front.
_OUTPUTS: Final[Mapping[str, tuple[str, _Shape]]] = {
    "mesh": ("BYTES", (1, 1)),
    "texture": ("BYTES", (1, 1)),
    "preview": ("BYTES", (1, 1)),
    "vertices": ("FP32", (_ROWS, None, 3)),
    "vertices_neutral": ("FP32", (1, None, 3)),
    "landmarks": ("FP32", (_ROWS, 68, 2)),
    "landmarks_3d": ("FP32", (_ROWS, 68, 3)),
    "coefficients": ("FP32", (_ROWS, 257)),
    "certainty": ("FP32", (_ROWS, 4)),
    "visibility": ("UINT8", (1, 1, 1024, 1024)),
    "face": ("FP32", (_ROWS, 15)),
    "camera": ("FP32", (_ROWS, 8)),
    "warnings": ("BYTES", (_ROWS, None)),
    "texture_warnings": ("BYTES", (1, None)),
    "face_model": ("INT64", (1, 1)),
    "faces": ("FP32", (1, None, 15)),
    "embedding": ("FP32", (1, None)),
    "quality": ("FP32", (1, 4)),
    "embedder": ("INT64", (1, 1)),
    "similarity": ("FP32", (_ROWS,)),
    "weights": ("FP32", (_ROWS,)),
    "reference": ("INT64", (1,)),
    "blendshapes": ("FP32", (1, 52)),
    "rotation": ("FP32", (1, 4)),
}
# Of `fuse`, whose request is a pair of pictures and no batch.
_FUSED: Final[Mapping[str, tuple[str, _Shape]]] = {
    "picture": ("BYTES", (1,)),
    "mask": ("BYTES", (1,)),
    "warnings": ("BYTES", (None,)),
}
_NUMBERS: Final[Mapping[str, str]] = {"FP32": "<f4", "UINT8": "|u1", "INT64": "<i8"}


@dataclass(frozen=True)
class Tensor:
    """An output as it arrived, unchecked.

    Attributes:
        name: as the server calls it.
        datatype: in the protocol's words: FP32, BYTES, ...
        shape: the batch in front.
        raw: its elements, little-endian; BYTES elements each behind their length in four bytes.
    """

    name: Any
    datatype: Any
    shape: Sequence[Any]
    raw: bytes


def read_tensors(wanted: Iterable[str], tensors: Sequence[Tensor], rows: int = 1) -> dict[str, NDArray[Any]]:
    """Check the outputs that were asked for and read them as arrays.

    Args:
        wanted: their names.
        tensors: what came back.
        rows: photographs of the request.

    Raises:
        BadResponse: one is missing, twice there, of another type or shape, or of other bytes than its shape says;
            numbers that are not finite; something nobody asked for.
    """
    named: dict[str, Tensor] = {}
    asked = tuple(wanted)
    for tensor in tensors:
        if tensor.name not in asked:
            raise BadResponse(f"the server sent {tensor.name!r}, which was not asked for. {_CHECK}")
        if tensor.name in named:
            raise BadResponse(f"the server sent {tensor.name!r} twice. {_CHECK}")
        named[tensor.name] = tensor
    if missing := [name for name in asked if name not in named]:
        raise BadResponse(f"the server did not send {', '.join(missing)}. {_CHECK}")
    known = _FUSED if "picture" in asked else _OUTPUTS
    return {name: _array(named[name], *known[name], rows) for name in asked}


_CHECK: Final = "Is it a Face3D server, of the same version as this client?"


def _array(tensor: Tensor, datatype: str, dims: _Shape, rows: int) -> NDArray[Any]:
    shape = tuple(rows if length == _ROWS else length for length in dims)
    given = tuple(tensor.shape)
    fits = len(given) == len(shape) and all(
        type(there) is int and (there == length if length is not None else there >= 0)
        for there, length in zip(given, shape, strict=True)
    )
    if tensor.datatype != datatype or not fits:
        raise BadResponse(
            f"{tensor.name} came as {tensor.datatype!r} {list(given)[:8]!r}, "
            f"not as {datatype} {_shape_text(shape)}. {_CHECK}"
        )
    count = math.prod(given)
    if datatype == "BYTES":
        return _byte_elements(tensor, count).reshape(given)
    dtype = np.dtype(_NUMBERS[datatype])
    if count * dtype.itemsize != len(tensor.raw):
        raise BadResponse(f"{tensor.name} has {len(tensor.raw)} bytes and not {count * dtype.itemsize}. {_CHECK}")
    array: NDArray[Any] = np.frombuffer(tensor.raw, dtype).reshape(given)
    if dtype.kind == "f" and not np.isfinite(array).all():
        raise BadResponse(f"{tensor.name} holds numbers that are not finite. {_CHECK}")
    return array


def _byte_elements(tensor: Tensor, count: int) -> NDArray[np.object_]:
    """Split elements of type BYTES (KServe v2, binary tensor extension): a length in four bytes, then the bytes."""
    raw, place = tensor.raw, 0
    if 4 * count > len(raw):
        raise BadResponse(f"{tensor.name} has {len(raw)} bytes for {count} elements. {_CHECK}")
    texts = np.empty(count, np.object_)
    for index in range(count):
        if place + 4 > len(raw):
            raise BadResponse(f"{tensor.name} ends amid an element. {_CHECK}")
        (length,) = struct.unpack_from("<I", raw, place)
        place += 4
        if place + length > len(raw):
            raise BadResponse(f"{tensor.name} ends amid an element. {_CHECK}")
        texts[index] = bytes(raw[place : place + length])
        place += length
    if place != len(raw):
        raise BadResponse(f"{tensor.name} has {len(raw) - place} bytes too many. {_CHECK}")
    return texts


def _shape_text(shape: _Shape) -> str:
    return "[" + ", ".join("n" if length is None else str(length) for length in shape) + "]"
