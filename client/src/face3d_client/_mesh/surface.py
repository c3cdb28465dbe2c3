"""A textured mesh of one or several parts, with morph targets where it is rigged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from face3d_client._errors import FaceModelMismatch
from face3d_client._mesh.atlas import Atlas, make_atlas
from face3d_client._mesh.part import Material, Part, vertex_normals, weld

if TYPE_CHECKING:
    import trimesh

__all__ = ["Surface"]


@dataclass(frozen=True, eq=False)
class Surface:
    """A textured mesh: y up, facing +z, millimetres.

    Attributes:
        parts: the first one is the skin.
        name: ``head`` or ``face``.
        weights: of the morph targets by name, in their order; empty where there are none.
        posed: whether it is turned and placed as in the photograph, not upright.
        neutral: whether its expression was left out by the server.
    """

    parts: tuple[Part, ...]
    name: str = "face"
    weights: Mapping[str, float] = field(default_factory=dict)
    posed: bool = False
    neutral: bool = False

    @classmethod
    def single(
        cls, vertices: NDArray[np.float32], faces: NDArray[np.int32], uv: NDArray[np.float32], texture: bytes
    ) -> Surface:
        """Make a mesh of one part: vertices (M, 3) mm, faces (T, 3), uv (M, 2) with v up, a PNG or JPEG file."""
        vertex = weld(vertices)
        normals = vertex_normals(vertices, faces, vertex)
        return cls((Part(Material(image=texture), vertices, normals, uv, faces, vertex),))

    @cached_property
    def vertices(self) -> NDArray[np.float32]:
        """float32 (M, 3) mm: the places of all parts, one after the other."""
        return np.concatenate([part.vertices for part in self.parts])

    @cached_property
    def normals(self) -> NDArray[np.float32]:
        """float32 (M, 3): unit normals of the places."""
        return np.concatenate([part.normals for part in self.parts])

    @cached_property
    def uv(self) -> NDArray[np.float32]:
        """float32 (M, 2), 0..1, v up: texture coordinates of the places, in the square of their own material."""
        return np.concatenate([part.uv for part in self.parts])

    @cached_property
    def faces(self) -> NDArray[np.int32]:
        """int32 (T, 3): triangles over all places, part after part."""
        begins = np.cumsum([0] + [len(part.vertices) for part in self.parts[:-1]])
        joined = [part.faces + begin for part, begin in zip(self.parts, begins, strict=True)]
        faces: NDArray[np.int32] = np.concatenate(joined).astype(np.int32)
        return faces

    @cached_property
    def part_of_face(self) -> NDArray[np.uint8]:
        """uint8 (T,): the part of each triangle."""
        return np.repeat(np.arange(len(self.parts), dtype=np.uint8), [len(part.faces) for part in self.parts])

    @cached_property
    def atlas(self) -> Atlas:
        """All pictures and colours of the parts in one picture."""
        return make_atlas(self.parts)

    def with_vertices(self, vertices: NDArray[np.float32]) -> Surface:
        """Put the same triangles and texture on other vertices (M, 3) mm.

        Raises:
            FaceModelMismatch: another number of vertices.
        """
        (part,) = self.parts
        if vertices.shape != part.vertices.shape:
            raise FaceModelMismatch(
                f"{len(vertices)} vertices do not fit triangles made for {len(part.vertices)}: the server mixes two "
                "face models. Export the face model and the regressor together."
            )
        return replace(self, parts=(part.with_vertices(np.asarray(vertices, np.float32)),))

    def morphed(self, weights: Mapping[str, float] | None = None) -> Surface:
        """Move the vertices as the morph targets say, which are used up.

        Args:
            weights: by name, 0..1; those left out are 0. None: the weights of the mesh.

        Raises:
            KeyError: no target has this name.
        """
        chosen = self.weights if weights is None else weights
        for name in chosen:
            if name not in self.weights:
                raise KeyError(name)
        values = np.array([chosen.get(name, 0.0) for name in self.weights], np.float32)
        return replace(self, parts=tuple(part.morphed(values) for part in self.parts), weights={})

    def opaque(self) -> Surface:
        """Leave out the parts that need transparency: the lashes."""
        return replace(self, parts=tuple(part for part in self.parts if not part.material.blended))

    def transformed(self, matrix: NDArray[np.float64]) -> Surface:
        """Turn and shift by a rigid float64 (4, 4) in millimetres."""
        return replace(self, parts=tuple(part.transformed(matrix) for part in self.parts))

    def to_trimesh(self, scale: float = 1.0) -> trimesh.Trimesh:
        """Make one trimesh of all parts, in millimetres times `scale`: vertices are the places, texture is `atlas`."""
        import trimesh
        from trimesh.visual import material as materials
        from trimesh.visual import texture as textures

        # Partly untyped, in some versions only.
        pbr: Any = materials.PBRMaterial
        visuals: Any = textures.TextureVisuals

        material = pbr(
            name=self.name,
            baseColorTexture=self.atlas.picture,
            baseColorFactor=[255, 255, 255, 255],
            metallicFactor=0.0,
            roughnessFactor=self.parts[0].material.roughness,
            doubleSided=any(part.material.double_sided for part in self.parts),
            # Blending would need an order among the triangles of a single mesh.
            alphaMode="MASK" if self.atlas.picture.mode == "RGBA" else "OPAQUE",
        )
        return trimesh.Trimesh(
            vertices=self.vertices.astype(np.float64) * scale,
            faces=self.faces,
            vertex_normals=self.normals,
            visual=visuals(uv=self.atlas.uv, material=material),
            process=False,  # merging vertices would break their order
        )
