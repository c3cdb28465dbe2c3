"""A textured triangle mesh as plain arrays, and how to get one out of a GLB."""

from __future__ import annotations

import io
import json
import struct
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ._errors import FaceModelMismatch

if TYPE_CHECKING:
    import trimesh

__all__ = ["Surface", "embedded_image", "surface_from_glb"]

_MM_PER_M: Final = 1000.0


@dataclass(frozen=True, eq=False)
class Surface:
    """A textured mesh.

    Attributes:
        vertices: float32 (N, 3) mm, y up, facing +z.
        faces: int32 (F, 3), counter-clockwise seen from outside.
        uv: float32 (N, 2), 0..1, v up.
        texture: a PNG or JPEG file whose row 0 is at v = 1.
    """

    vertices: NDArray[np.float32]
    faces: NDArray[np.int32]
    uv: NDArray[np.float32]
    texture: bytes

    def with_vertices(self, vertices: NDArray[np.float32]) -> Surface:
        """The same triangles and texture on other vertices (N, 3) mm.

        Raises:
            FaceModelMismatch: another number of vertices.
        """
        if vertices.shape != self.vertices.shape:
            raise FaceModelMismatch(
                f"{len(vertices)} vertices do not fit triangles made for {len(self.vertices)}: the server mixes two "
                "face models. Export the face model and the regressor together."
            )
        return replace(self, vertices=np.asarray(vertices, np.float32))

    def texture_image(self) -> Image.Image:
        """The texture decoded, RGB."""
        with Image.open(io.BytesIO(self.texture)) as opened:
            return opened.convert("RGB")

    @cached_property
    def normals(self) -> NDArray[np.float32]:
        """float32 (N, 3): unit normals of the vertices, the area-weighted mean of the triangles around each."""
        corners = self.vertices[self.faces].astype(np.float64)
        weighted = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        sums = np.zeros(self.vertices.shape)
        for corner in range(3):
            np.add.at(sums, self.faces[:, corner], weighted)
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        # A vertex without a triangle still needs a unit vector: the face looks along +z.
        return np.where(lengths > 0, sums / np.maximum(lengths, 1e-300), (0.0, 0.0, 1.0)).astype(np.float32)

    def to_trimesh(self, scale: float = 1.0) -> trimesh.Trimesh:
        """A trimesh with texture and normals, vertices in the same order; `scale` times millimetres."""
        import trimesh
        from trimesh.visual import material as materials
        from trimesh.visual import texture as textures

        # Partly untyped, in some versions only.
        pbr: Any = materials.PBRMaterial
        visuals: Any = textures.TextureVisuals

        material = pbr(
            name="face",
            baseColorTexture=self.texture_image(),
            baseColorFactor=[255, 255, 255, 255],
            metallicFactor=0.0,
            roughnessFactor=0.8,
        )
        return trimesh.Trimesh(
            vertices=self.vertices.astype(np.float64) * scale,
            faces=self.faces,
            vertex_normals=self.normals,
            visual=visuals(uv=self.uv, material=material),
            process=False,  # merging vertices would break their order, which is the face model's
        )


def surface_from_glb(glb: bytes, texture: bytes) -> Surface:
    """Read the only mesh of a GLB that this service wrote; metres become millimetres.

    Args:
        glb: the file.
        texture: the picture to put on it: the one inside, or a better copy of that.
    """
    import trimesh

    mesh: Any = trimesh.load(io.BytesIO(glb), file_type="glb", force="mesh", process=False)
    return Surface(
        vertices=(np.asarray(mesh.vertices) * _MM_PER_M).astype(np.float32),
        faces=np.asarray(mesh.faces, np.int32),
        uv=np.asarray(mesh.visual.uv, np.float32),
        texture=texture,
    )


def embedded_image(glb: bytes) -> bytes:
    """The first picture file inside a GLB, untouched (glTF 2.0, section 4.4: a JSON chunk, then a binary one).

    Raises:
        ValueError: not a GLB, or one without a picture inside.
    """
    try:
        magic, version, _ = struct.unpack_from("<4sII", glb, 0)
        json_size, json_type = struct.unpack_from("<I4s", glb, 12)
        if (magic, version, json_type) != (b"glTF", 2, b"JSON"):
            raise ValueError("this is not a GLB of version 2")
        tree = json.loads(glb[20 : 20 + json_size])
        view = tree["bufferViews"][tree["images"][0]["bufferView"]]
        begin = 20 + json_size + 8 + view.get("byteOffset", 0)
        # Some writers count the padding in; neither PNG nor JPEG ends in a zero.
        return glb[begin : begin + view["byteLength"]].rstrip(b"\0")
    except (struct.error, KeyError, IndexError) as error:
        raise ValueError(f"this GLB has no picture inside ({error})") from error
