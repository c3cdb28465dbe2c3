"""A textured triangle mesh as plain arrays."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from face3d_client._errors import BadResponse, FaceModelMismatch

if TYPE_CHECKING:
    import trimesh

__all__ = ["Surface", "check_texture", "open_texture"]

_SIGNATURES: Final = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")  # how PNG and JPEG files begin
_MAX_TEXELS: Final = 4096 * 4096  # the largest texture has 2048 x 2048, a preview less


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
        """Put the same triangles and texture on other vertices (N, 3) mm.

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
        """Decode the texture to RGB."""
        return open_texture(self.texture)

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
        """Make a trimesh with texture and normals, vertices in the same order, in millimetres times `scale`."""
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


def check_texture(data: bytes) -> bytes:
    """Return a texture's or preview's file if it begins as a PNG or JPEG.

    Raises:
        BadResponse: neither PNG nor JPEG.
    """
    if not data.startswith(_SIGNATURES):
        raise BadResponse("the server sent a picture that is neither PNG nor JPEG. Is it a Face3D server?")
    return data


def open_texture(data: bytes) -> Image.Image:
    """Decode a texture's or preview's file to RGB pixels.

    Raises:
        BadResponse: neither PNG nor JPEG, larger than any that the service makes, or damaged.
    """
    try:
        with Image.open(io.BytesIO(check_texture(data)), formats=("PNG", "JPEG")) as opened:
            if opened.width * opened.height <= _MAX_TEXELS:
                return opened.convert("RGB")
            raise BadResponse(f"the server sent a picture of {opened.width} x {opened.height} pixels.")
    except BadResponse:
        raise
    except Exception as error:  # decoders raise nearly anything on hostile bytes
        raise BadResponse(f"the server sent a picture that cannot be decoded ({error}).") from error
