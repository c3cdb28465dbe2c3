"""The mesh that a request asked for, with its materials, as a GLB file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import arkit
import numpy as np
from colours import eye_picture
from finish import encode
from glb import Part, write_glb
from head import F32
from irises import Irises
from materials import LASHES, MATERIALS, RELIEF, SKIN, lashes_png, materials_of
from numpy.typing import NDArray
from preview import Painted
from rig import rig_of
from surface import Primitive, Surface

U8 = NDArray[np.uint8]


@dataclass(frozen=True)
class Figure:
    """A shape to be written.

    Attributes:
        surface: of the face model.
        mesh: ``head`` or ``face``.
        vertices: float32 [N, 3], decimetres, in the frame of the file.
        turn: float32 [3, 3], from the head's frame to the file's: ``there = here @ turn``.
        light: float32 [N], how much light a vertex gets, 0..1; None for a face model without a head.
        irises: colours of the eyes.
        expression: float32 [64] of ``vertices``; None leaves morph targets out.
    """

    surface: Surface
    mesh: str
    vertices: F32
    turn: F32
    light: F32 | None
    irises: Irises
    expression: F32 | None

    def write(self, textures: Sequence[tuple[str, bytes, str]], extras: dict[str, Any]) -> bytes:
        """Write the GLB file.

        Args:
            textures: of the skin, its colours and, where it has one, its normal map: name, bytes of a PNG or JPEG file,
                media type.
            extras: what to say about the mesh.
        """
        surface, vertices = self.surface, self.vertices
        weights: list[float] = []
        if self.expression is not None:
            assert surface.head is not None
            rig = rig_of(surface, self.mesh, self.turn)
            weights = [round(float(w), 5) for w in arkit.weights(surface.head, self.expression)]
            vertices = rig.rest_shape(vertices, np.array(weights, np.float32))
            extras = {**extras, "targetNames": list(arkit.NAMES)}
        normals = surface.normals(vertices)
        primitives = surface.primitives(self.mesh)
        parts = []
        for k, primitive in enumerate(primitives):
            at = primitive.vertex
            targets = None if self.expression is None else rig.targets[k]
            parts.append(
                Part(
                    k, vertices.take(at, axis=0), normals.take(at, axis=0), primitive.uv_down, primitive.triangles,
                    len(primitive.quads), self._colours(primitive), targets,
                )
            )  # fmt: skip
        materials, pictures = materials_of([p.material for p in primitives], relief=len(textures) > 1)
        own = {SKIN: textures[0], RELIEF: textures[-1]}
        images = [own[picture] if picture in own else self._picture(picture) for picture in pictures]
        name = "head" if surface.head is not None and self.mesh == "head" else "face"
        return write_glb(name, parts, materials, images, extras, weights, surface.credit)

    def painted(self, texture: U8) -> Painted:
        """Gather what the preview draws: all but the lashes, with a skin's texture uint8 [side, side, 3]."""
        normals = self.surface.normals(self.vertices)
        primitives = [p for p in self.surface.primitives(self.mesh) if p.material != LASHES]
        counts = [len(p.vertex) for p in primitives]
        vertex = np.concatenate([p.vertex for p in primitives])
        pictures: list[U8] = []
        for p in primitives:
            _, picture, colour = MATERIALS[p.material]
            if picture == SKIN:
                pictures.append(texture)
            elif picture and self.surface.head is not None:
                pictures.append(eye_picture(self.surface.head.iris_radius, self.irises.iris, self.irises.white))
            else:
                pictures.append(np.full((1, 1, 3), colour, np.uint8))
        starts = np.cumsum([0, *counts[:-1]])
        return Painted(
            vertices=self.vertices[vertex],
            normals=normals[vertex],
            uv=np.concatenate([p.uv for p in primitives]),
            light=np.concatenate([self._light(p) for p in primitives]),
            triangles=np.concatenate([p.triangles + int(s) for p, s in zip(primitives, starts, strict=True)]),
            part=np.repeat(np.arange(len(primitives)), [len(p.triangles) for p in primitives]),
            pictures=tuple(pictures),
        )

    def _light(self, primitive: Primitive) -> F32:
        colours = self._colours(primitive)
        return np.ones(len(primitive.vertex), np.float32) if colours is None else colours[:, 0]

    def _picture(self, name: str) -> tuple[str, bytes, str]:
        if name == LASHES:
            return name, lashes_png(), "image/png"
        assert self.surface.head is not None
        return (
            name,
            encode(eye_picture(self.surface.head.iris_radius, self.irises.iris, self.irises.white), "jpeg"),
            "image/jpeg",
        )

    def _colours(self, primitive: Primitive) -> F32 | None:
        if self.light is None or primitive.material not in ("eye_left", "eye_right", "teeth", "mouth"):
            return None
        return np.repeat(self.light[primitive.vertex][:, None], 3, axis=1)
