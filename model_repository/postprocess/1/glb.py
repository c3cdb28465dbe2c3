"""A textured mesh as one binary glTF 2.0 file.

glTF's axes are those of the service (x right, y up, z to the viewer); its unit is the metre and its v points down.
Written by hand because it is short, and because a library would re-encode the texture and spend 32 bits on every index.
"""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]

_MAGIC, _VERSION, _JSON, _BIN = 0x46546C67, 2, 0x4E4F534A, 0x004E4942
_VERTICES, _INDICES = 34962, 34963  # what a buffer view is for
_UNSIGNED_SHORT, _UNSIGNED_INT, _FLOAT = 5123, 5125, 5126
_LINEAR, _MIPMAPS, _CLAMP = 9729, 9987, 33071
METRES_PER_DECIMETRE = 0.1


def write_glb(
    vertices: F32,
    normals: F32,
    uv: F32,
    triangles: NDArray[np.int32],
    texture: bytes,
    mime: str,
    extras: dict[str, Any],
) -> bytes:
    """One mesh called ``face`` with its texture inside.

    Args:
        vertices: float32 [N, 3], decimetres.
        normals: float32 [N, 3], unit.
        uv: float32 [N, 2], 0..1, v up.
        triangles: int32 [F, 3], counter-clockwise seen from outside.
        texture: an image file; its first row is v = 1.
        mime: ``image/png`` or ``image/jpeg``.
        extras: what else to say about the mesh; must fit into JSON.
    """
    wide = len(vertices) > 65535
    binary = bytearray()
    views: list[dict[str, Any]] = []

    def view(data: bytes, **more: int) -> int:
        binary.extend(bytes(-len(binary) % 4))
        views.append({"buffer": 0, "byteOffset": len(binary), "byteLength": len(data), **more})
        binary.extend(data)
        return len(views) - 1

    positions = np.ascontiguousarray(vertices * np.float32(METRES_PER_DECIMETRE), "<f4")
    columns = np.ascontiguousarray(positions.T)  # minima over the longer axis of [N, 3] take thirty times as long
    flipped = np.ascontiguousarray(np.column_stack([uv[:, 0], 1 - uv[:, 1]]), "<f4")
    indices = np.ascontiguousarray(triangles, "<u4" if wide else "<u2")
    accessors: list[dict[str, Any]] = [
        {
            "bufferView": view(positions.tobytes(), target=_VERTICES),
            "componentType": _FLOAT,
            "count": len(positions),
            "type": "VEC3",
            "min": columns.min(axis=1).tolist(),
            "max": columns.max(axis=1).tolist(),
        },
        {
            "bufferView": view(np.ascontiguousarray(normals, "<f4").tobytes(), target=_VERTICES),
            "componentType": _FLOAT,
            "count": len(normals),
            "type": "VEC3",
        },
        {
            "bufferView": view(flipped.tobytes(), target=_VERTICES),
            "componentType": _FLOAT,
            "count": len(flipped),
            "type": "VEC2",
        },
        {
            "bufferView": view(indices.tobytes(), target=_INDICES),
            "componentType": _UNSIGNED_INT if wide else _UNSIGNED_SHORT,
            "count": indices.size,
            "type": "SCALAR",
        },
    ]
    image = view(texture)
    document = {
        "asset": {"version": "2.0", "generator": "Face3D on Triton"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"name": "face", "mesh": 0}],
        "meshes": [
            {
                "name": "face",
                "primitives": [
                    {"attributes": {"POSITION": 0, "NORMAL": 1, "TEXCOORD_0": 2}, "indices": 3, "material": 0}
                ],
                "extras": extras,
            }
        ],
        "materials": [
            {
                "name": "skin",
                "pbrMetallicRoughness": {
                    "baseColorTexture": {"index": 0},
                    "metallicFactor": 0.0,
                    "roughnessFactor": 0.8,
                },
                "doubleSided": True,  # the face is an open sheet
            }
        ],
        "textures": [{"source": 0, "sampler": 0}],
        "samplers": [{"magFilter": _LINEAR, "minFilter": _MIPMAPS, "wrapS": _CLAMP, "wrapT": _CLAMP}],
        "images": [{"name": "face", "bufferView": image, "mimeType": mime}],
        "accessors": accessors,
        "bufferViews": views,
        "buffers": [{"byteLength": len(binary)}],
    }
    header = json.dumps(document, separators=(",", ":"), allow_nan=False).encode()
    header += b" " * (-len(header) % 4)
    binary.extend(bytes(-len(binary) % 4))
    total = 12 + 8 + len(header) + 8 + len(binary)
    return b"".join(
        [
            struct.pack("<III", _MAGIC, _VERSION, total),
            struct.pack("<II", len(header), _JSON),
            header,
            struct.pack("<II", len(binary), _BIN),
            bytes(binary),
        ]
    )
