"""One material's triangles of a mesh, as plain arrays."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from face3d_client._mesh.pictures import open_texture

__all__ = ["SWATCH", "Material", "Part", "linear", "srgb", "vertex_normals", "weld"]

SWATCH: Final = 16  # pixels of a side of one colour: filters of a viewer that shrinks a picture reach so far
_WHITE: Final = (1.0, 1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Material:
    """What a part looks like, in the terms of glTF 2.0 (metallic-roughness, no metal).

    Attributes:
        name: ``skin``, ``eye_left``, ``eye_right``, ``teeth``, ``mouth`` or ``lashes``.
        image: a PNG or JPEG file whose row 0 is at v = 1. None: the colours are those of `factor` and of the part.
        factor: red, green, blue, alpha, linear, 0..1; multiplies the picture.
        roughness: 0 is a mirror, 1 is chalk.
        double_sided: whether triangles are seen from behind too.
        blended: whether the picture's alpha counts: what is behind shows through.
    """

    name: str = "skin"
    image: bytes | None = None
    factor: tuple[float, float, float, float] = _WHITE
    roughness: float = 0.8
    double_sided: bool = False
    blended: bool = False

    def picture(self) -> Image.Image | None:
        """Decode the picture, multiplied by the factor, to RGB, or to RGBA where it is blended."""
        if self.image is None:
            return None
        picture = open_texture(self.image, "RGBA" if self.blended else "RGB")
        if self.factor == _WHITE:
            return picture
        values = np.arange(256) / 255
        tables = [srgb(linear(values) * channel) for channel in self.factor[:3]]
        tables += [values * self.factor[3]] if self.blended else []
        return picture.point(np.rint(np.concatenate(tables) * 255).astype(int).tolist())


@dataclass(frozen=True, eq=False)
class Part:
    """Triangles of one material, over *places*: a place is a vertex with one texture coordinate.

    Attributes:
        material: what they look like.
        vertices: float32 (M, 3) mm. Places of the same vertex have the same numbers.
        normals: float32 (M, 3), unit.
        uv: float32 (M, 2), 0..1, v up.
        faces: int32 (T, 3), counter-clockwise seen from outside.
        vertex: (M,) which of V vertices each place is, numbered by their first places; see `weld`.
        quads: Q: the first 2 Q triangles are the halves (a, b, c), (a, c, d) of Q quads (a, b, c, d).
        colours: float32 (M, 3), linear, 0..1: multiplies the material's; None: white.
        shapes: float32 (S, M, 3) mm: what weight 1 of each morph target moves the places by; None: there are none.
    """

    material: Material
    vertices: NDArray[np.float32]
    normals: NDArray[np.float32]
    uv: NDArray[np.float32]
    faces: NDArray[np.int32]
    vertex: NDArray[np.intp]
    quads: int = 0
    colours: NDArray[np.float32] | None = None
    shapes: NDArray[np.float32] | None = None

    @cached_property
    def first(self) -> NDArray[np.intp]:
        """(V,): the first place of each vertex, ascending."""
        return np.unique(self.vertex, return_index=True)[1]

    @property
    def quad_faces(self) -> NDArray[np.int32]:
        """int32 (Q, 4): the quads."""
        pairs = self.faces[: 2 * self.quads].reshape(-1, 6)
        return pairs[:, [0, 1, 2, 5]]

    @property
    def triangle_faces(self) -> NDArray[np.int32]:
        """int32 (T - 2 Q, 3): the triangles that are half of no quad."""
        return self.faces[2 * self.quads :]

    def with_vertices(self, vertices: NDArray[np.float32]) -> Part:
        """Move the places to `vertices` (M, 3) mm; normals follow, the shapes stay behind."""
        normals = vertex_normals(vertices, self.faces, self.vertex)
        return replace(self, vertices=vertices, normals=normals, shapes=None)

    def morphed(self, weights: NDArray[np.float32]) -> Part:
        """Move the places by weights (S,) of the shapes, which are used up."""
        if self.shapes is None or not weights.any():
            return replace(self, shapes=None)
        used = np.flatnonzero(weights)
        moves = np.tensordot(weights[used], self.shapes[used], axes=1)
        # Parts that no weight moves keep the normals of the file.
        return self.with_vertices(self.vertices + moves) if moves.any() else replace(self, shapes=None)

    def transformed(self, matrix: NDArray[np.float64]) -> Part:
        """Turn and shift by a rigid float64 (4, 4)."""
        turn = matrix[:3, :3].astype(np.float32)
        return replace(
            self,
            vertices=self.vertices @ turn.T + matrix[:3, 3].astype(np.float32),
            normals=self.normals @ turn.T,
            shapes=None if self.shapes is None else self.shapes @ turn.T,
        )

    def tile(self) -> Image.Image:
        """Make a picture for the part's texture coordinates: its own, or one of its (mean) colour. See `Material`."""
        picture = self.material.picture()
        if picture is not None:
            return picture
        colour = np.array(self.material.factor[:3])
        if self.colours is not None:
            colour = colour * self.colours.mean(0)
        red, green, blue = np.rint(srgb(colour) * 255).astype(int).tolist()
        return Image.new("RGB", (SWATCH, SWATCH), (red, green, blue))

    def vertex_colours(self) -> NDArray[np.uint8]:
        """uint8 (M, 3): the sRGB colour at each place."""
        picture = self.material.picture()
        if picture is None:
            linear_colour = np.broadcast_to(np.array(self.material.factor[:3], np.float64), self.vertices.shape)
        else:
            texture = np.asarray(picture.convert("RGB"))
            height, width = texture.shape[:2]
            columns = np.clip(np.rint(self.uv[:, 0] * width - 0.5), 0, width - 1).astype(np.intp)
            rows = np.clip(np.rint((1 - self.uv[:, 1]) * height - 0.5), 0, height - 1).astype(np.intp)
            if self.colours is None:
                sampled: NDArray[np.uint8] = texture[rows, columns]
                return sampled
            linear_colour = linear(texture[rows, columns] / 255)
        shaded = linear_colour if self.colours is None else linear_colour * self.colours
        colours: NDArray[np.uint8] = np.rint(srgb(shaded) * 255).astype(np.uint8)
        return colours


def weld(vertices: NDArray[np.float32]) -> NDArray[np.intp]:
    """Find which places (M, 3) are one vertex, because they have the same numbers: (M,) int, by first places."""
    rows = np.ascontiguousarray(vertices, np.float32) + np.float32(0)  # -0 becomes 0
    _, first, inverse = np.unique(rows.view(np.dtype((np.void, 12))).ravel(), return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.intp)
    rank[np.argsort(first)] = np.arange(len(first))
    vertex: NDArray[np.intp] = rank[inverse.ravel()]
    return vertex


def vertex_normals(
    vertices: NDArray[np.float32], faces: NDArray[np.int32], vertex: NDArray[np.intp]
) -> NDArray[np.float32]:
    """Compute the unit normals float32 (M, 3): the area-weighted mean of the triangles around each vertex.

    Args:
        vertices: (M, 3), the places.
        faces: (T, 3).
        vertex: (M,) which places are one vertex, see `weld`.
    """
    corners = vertices[faces].astype(np.float64)
    weighted = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    joined = vertex[faces]
    sums = np.zeros(vertices.shape)
    for corner in range(3):
        np.add.at(sums, joined[:, corner], weighted)
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    # A vertex without a triangle still needs a unit vector: the face looks along +z.
    unit = np.where(lengths > 0, sums / np.maximum(lengths, 1e-300), (0.0, 0.0, 1.0)).astype(np.float32)
    normals: NDArray[np.float32] = unit[vertex]
    return normals


def linear(values: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Convert sRGB values 0..1 to linear ones (IEC 61966-2-1)."""
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def srgb(values: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Convert linear values to sRGB ones (IEC 61966-2-1), clipped to 0..1."""
    bounded = np.clip(values, 0, 1)
    return np.where(bounded <= 0.0031308, bounded * 12.92, 1.055 * bounded ** (1 / 2.4) - 0.055)
