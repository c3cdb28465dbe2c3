"""A mesh with materials and morph targets as one binary glTF 2.0 file.

glTF's axes are those of the service (x right, y up, z to the viewer); its unit is the metre and its v points down.
Written by hand because it is short, and because a library would re-encode the texture and spend 32 bits on every
number. Positions stay float32, so that the mesh needs no scale on its node, and so do texture coordinates, which some
readers do not take as integers; normals and displacements are 16 bit (KHR_mesh_quantization).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
I16 = NDArray[np.int16]
I32 = NDArray[np.int32]

_MAGIC, _VERSION, _JSON, _BIN = 0x46546C67, 2, 0x4E4F534A, 0x004E4942
_VERTICES, _INDICES = 34962, 34963  # what a buffer view is for
_UNSIGNED_BYTE, _SHORT, _UNSIGNED_SHORT, _UNSIGNED_INT, _FLOAT = 5121, 5122, 5123, 5125, 5126
_LINEAR, _MIPMAPS, _CLAMP = 9729, 9987, 33071
METRES_PER_DECIMETRE = 0.1
# Metres of one step of a displacement: normalised 16-bit integers count in 32767ths.
STEP = 1 / 32767
# Displacements shorter than this are left out: a fifth of the places that statistics move at all.
LEAST_DM = 2e-4


@dataclass(frozen=True)
class Targets:
    """Morph targets of a primitive, most of whose places they leave alone.

    Attributes:
        places: one array uint16 or uint32 [n] a target, ascending.
        steps: one array int16 [n, 3] a target: displacements in `STEP` metres.
    """

    places: tuple[NDArray[Any], ...]
    steps: tuple[I16, ...]

    @classmethod
    def of(cls, displacements: F32, places: int) -> Targets:
        """Keep what moves by `LEAST_DM` or more.

        Args:
            displacements: float32 [K, M, 3], decimetres, M = ``places``.
            places: M.
        """
        kind = np.uint16 if places <= 65535 else np.uint32
        far = np.abs(displacements).max(axis=2) >= LEAST_DM
        rounded = np.rint(displacements * np.float32(METRES_PER_DECIMETRE / STEP)).astype(np.int16)
        at, steps = [], []
        for target, moves in zip(rounded, far, strict=True):
            moved = np.flatnonzero(moves)
            moved = moved if len(moved) else np.array([0])  # glTF wants at least one
            at.append(moved.astype(kind))
            steps.append(np.ascontiguousarray(target[moved]))
        return cls(tuple(at), tuple(steps))


@dataclass(frozen=True)
class Part:
    """A primitive of M places.

    Attributes:
        material: index into the file's materials.
        positions: float32 [M, 3], decimetres.
        normals: float32 [M, 3], unit.
        uv: float32 [M, 2] in 0..1, v down.
        triangles: int32 [F, 3] places, counter-clockwise seen from outside.
        quads: how many quads the first triangles are, two each.
        colours: float32 [M, 3] linear 0..1 that the material is multiplied by, or None.
        targets: morph targets, or None.
    """

    material: int
    positions: F32
    normals: F32
    uv: F32
    triangles: I32
    quads: int
    colours: F32 | None = None
    targets: Targets | None = None


@dataclass
class _Buffer:
    """The binary part of the file, and what its JSON says about it."""

    chunks: list[bytes | memoryview] = field(default_factory=list)
    length: int = 0
    views: list[dict[str, Any]] = field(default_factory=list)
    accessors: list[dict[str, Any]] = field(default_factory=list)

    def view(self, data: bytes | NDArray[Any], **more: int) -> int:
        # Chunks are joined once: a growing buffer would copy a megabyte several times.
        chunk = data if isinstance(data, bytes) else data.reshape(-1).data.cast("B")
        start = self.length + -self.length % 4
        self.views.append({"buffer": 0, "byteOffset": start, "byteLength": len(chunk), **more})
        self.chunks += [bytes(start - self.length), chunk]
        self.length = start + len(chunk)
        return len(self.views) - 1

    def accessor(self, **content: Any) -> int:
        self.accessors.append(content)
        return len(self.accessors) - 1

    def positions(self, vertices: F32) -> int:
        metres = np.ascontiguousarray(vertices * np.float32(METRES_PER_DECIMETRE), "<f4")
        columns = np.ascontiguousarray(metres.T)  # minima over the longer axis of [M, 3] take thirty times as long
        return self.accessor(
            bufferView=self.view(metres, target=_VERTICES), componentType=_FLOAT, count=len(metres),
            type="VEC3", min=columns.min(axis=1).tolist(), max=columns.max(axis=1).tolist(),
        )  # fmt: skip

    def normals(self, normals: F32) -> int:
        padded = np.zeros((len(normals), 4), "<i2")  # attributes begin at multiples of four bytes
        padded[:, :3] = np.rint(normals * np.float32(32767))
        return self.accessor(
            bufferView=self.view(padded, target=_VERTICES, byteStride=8), componentType=_SHORT,
            normalized=True, count=len(normals), type="VEC3",
        )  # fmt: skip

    def uv(self, uv: F32) -> int:
        return self.accessor(
            bufferView=self.view(np.ascontiguousarray(uv, "<f4"), target=_VERTICES), componentType=_FLOAT,
            count=len(uv), type="VEC2",
        )  # fmt: skip

    def colours(self, colours: F32) -> int:
        padded = np.full((len(colours), 4), 255, np.uint8)
        padded[:, :3] = np.rint(np.clip(colours, 0, 1) * 255)
        return self.accessor(
            bufferView=self.view(padded, target=_VERTICES, byteStride=4), componentType=_UNSIGNED_BYTE,
            normalized=True, count=len(colours), type="VEC3",
        )  # fmt: skip

    def indices(self, triangles: I32, places: int) -> int:
        wide = places > 65535
        return self.accessor(
            bufferView=self.view(np.ascontiguousarray(triangles, "<u4" if wide else "<u2"), target=_INDICES),
            componentType=_UNSIGNED_INT if wide else _UNSIGNED_SHORT, count=triangles.size, type="SCALAR",
        )  # fmt: skip

    def targets(self, targets: Targets, places: int) -> list[dict[str, int]]:
        """Add one view of all indices and one of all displacements; a sparse accessor for each target."""
        at = self.view(b"".join(_padded(np.ascontiguousarray(rows).tobytes()) for rows in targets.places))
        steps = self.view(b"".join(_padded(np.ascontiguousarray(rows, "<i2").tobytes()) for rows in targets.steps))
        found, at_offset, step_offset = [], 0, 0
        for rows, moved in zip(targets.places, targets.steps, strict=True):
            columns = np.ascontiguousarray(moved.T)
            low, high = columns.min(axis=1), columns.max(axis=1)
            if len(rows) < places:  # the places that stay count as well
                low, high = np.minimum(low, 0), np.maximum(high, 0)
            kind = _UNSIGNED_INT if rows.dtype.itemsize == 4 else _UNSIGNED_SHORT
            sparse = {
                "count": len(rows),
                "indices": {"bufferView": at, "byteOffset": at_offset, "componentType": kind},
                "values": {"bufferView": steps, "byteOffset": step_offset},
            }
            found.append({
                "POSITION": self.accessor(
                    componentType=_SHORT, normalized=True, count=places, type="VEC3", min=low.tolist(),
                    max=high.tolist(), sparse=sparse,
                )
            })  # fmt: skip
            at_offset += len(rows) * rows.dtype.itemsize + -(len(rows) * rows.dtype.itemsize) % 4
            step_offset += moved.nbytes + -moved.nbytes % 4
        return found


def write_glb(
    name: str,
    parts: Sequence[Part],
    materials: Sequence[Mapping[str, Any]],
    images: Sequence[tuple[str, bytes, str]],
    extras: Mapping[str, Any],
    weights: Sequence[float] = (),
    credit: str = "",
) -> bytes:
    """Write one mesh in one node, with its textures inside.

    Args:
        name: of the node and the mesh.
        parts: its primitives.
        materials: glTF's; texture k is image k.
        images: name, bytes of a PNG or JPEG file whose first row is v = 1, and its media type.
        extras: what else to say about the mesh; must fit into JSON.
        weights: of the morph targets.
        credit: who holds the copyright, under which licence.
    """
    buffer = _Buffer()
    primitives = [_primitive(buffer, part) for part in parts]
    pictures = [{"name": called, "bufferView": buffer.view(data), "mimeType": mime} for called, data, mime in images]
    mesh: dict[str, Any] = {"name": name, "primitives": primitives, "extras": dict(extras)}
    if weights:
        mesh["weights"] = list(weights)
    asset = {"version": "2.0", "generator": "Face3D on Triton", **({"copyright": credit} if credit else {})}
    document = {
        "asset": asset,
        "extensionsUsed": ["KHR_mesh_quantization"],
        "extensionsRequired": ["KHR_mesh_quantization"],
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"name": name, "mesh": 0}],
        "meshes": [mesh],
        "materials": list(materials),
        "textures": [{"source": k, "sampler": 0} for k in range(len(pictures))],
        "samplers": [{"magFilter": _LINEAR, "minFilter": _MIPMAPS, "wrapS": _CLAMP, "wrapT": _CLAMP}],
        "images": pictures,
        "accessors": buffer.accessors,
        "bufferViews": buffer.views,
        "buffers": [{"byteLength": buffer.length}],
    }
    header = json.dumps(document, separators=(",", ":"), allow_nan=False).encode()
    header += b" " * (-len(header) % 4)
    padding = bytes(-buffer.length % 4)
    total = 12 + 8 + len(header) + 8 + buffer.length + len(padding)
    return b"".join(
        [
            struct.pack("<III", _MAGIC, _VERSION, total),
            struct.pack("<II", len(header), _JSON),
            header,
            struct.pack("<II", buffer.length + len(padding), _BIN),
            *buffer.chunks,
            padding,
        ]
    )


def _primitive(buffer: _Buffer, part: Part) -> dict[str, Any]:
    attributes = {
        "POSITION": buffer.positions(part.positions),
        "NORMAL": buffer.normals(part.normals),
        "TEXCOORD_0": buffer.uv(part.uv),
    }
    if part.colours is not None:
        attributes["COLOR_0"] = buffer.colours(part.colours)
    primitive: dict[str, Any] = {
        "attributes": attributes,
        "indices": buffer.indices(part.triangles, len(part.positions)),
        "material": part.material,
        "extras": {"quads": part.quads},
    }
    if part.targets is not None:
        primitive["targets"] = buffer.targets(part.targets, len(part.positions))
    return primitive


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
