"""The surface of the face model that this version belongs to: what does not change from face to face."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from head import Head
from lining import Lining
from numpy.typing import NDArray
from options import MESHES, Refused
from texels import Texels

F32 = NDArray[np.float32]
I32 = NDArray[np.int32]

# Faces around nearly every vertex of a mesh of quads.
USUAL = 4


@dataclass(frozen=True)
class Primitive:
    """The part of a mesh that has one material, over M places of its own.

    A place is a vertex with one texture coordinate; vertices on a seam have several.

    Attributes:
        material: its name.
        vertex: int32 [M], the face model's vertex of each place.
        uv: float32 [M, 2] in 0..1, v up.
        quads: int32 [Q, 4] places, counter-clockwise seen from outside, a quad's shorter diagonal between its first
            and its third corner.
        singles: int32 [T, 3] places of the triangles that belong to no quad.
    """

    material: str
    vertex: I32
    uv: F32
    quads: I32
    singles: I32

    @cached_property
    def uv_down(self) -> F32:
        """The texture coordinates as glTF has them: float32 [M, 2], v down."""
        return np.ascontiguousarray(np.column_stack([self.uv[:, 0], 1 - self.uv[:, 1]]), np.float32)

    @cached_property
    def triangles(self) -> I32:
        """int32 [2 Q + T, 3] places: the quads' triangles (a, b, c) and (a, c, d) in turn, then the single ones."""
        split = self.quads[:, [0, 1, 2, 0, 2, 3]].reshape(-1, 3)
        return np.ascontiguousarray(np.concatenate([split, self.singles]), np.int32)


@dataclass(frozen=True, eq=False)
class Surface:
    """The surface of a face model of N vertices, M places and F faces.

    Attributes:
        faces: int32 [F, 4] places, -1 in the last column of a triangle.
        material: uint8 [F], index into ``materials``; faces of a material stand together.
        materials: their names, in the order of a mesh's primitives.
        in_face: bool [F], whether the face belongs to the mesh ``face``.
        uv: float32 [M, 2] in 0..1, v up; each material has a square of its own.
        vertex: int32 [M], the vertex of each place.
        fingerprint: of the face model; the regressor's has to be the same.
        name, credit: of the face model; who made it under which licence.
        mean: float32 [N, 3], the mean neutral shape, decimetres, head frame.
        head: what a head has that a face has not; None for a face model of a face alone.
        lining: where its texture shows mouth and sockets; None likewise.
        texels: where the texels of its skin lie on it; None in a file of an older export.
    """

    faces: I32
    material: NDArray[np.uint8]
    materials: tuple[str, ...]
    in_face: NDArray[np.bool_]
    uv: F32
    vertex: I32
    fingerprint: int
    name: str
    mean: F32
    credit: str = ""
    head: Head | None = None
    lining: Lining | None = None
    texels: Texels | None = None

    @classmethod
    def from_file(cls, path: Path) -> Surface:
        """Read ``topology.npz``, which export writes beside this file.

        Raises:
            ValueError: it is of another layout, its faces name places that are not there, or texture coordinates lie
                outside of 0..1.
        """
        with np.load(path, allow_pickle=False) as file:
            data = {key: file[key] for key in file.files}
        if not {"faces", "mean"} <= set(data):
            raise ValueError(f"{path.name} was written by an older export: run the export again")
        surface = cls.from_arrays(data)
        if surface.faces[:, :3].min() < 0 or surface.faces.max() >= len(surface.uv):
            raise ValueError(f"{path.name}: faces name places that are not there: run the export again")
        if surface.uv.min() < 0 or surface.uv.max() > 1:
            raise ValueError(f"{path.name}: texture coordinates are not within 0..1: run the export again")
        return surface

    @classmethod
    def from_arrays(cls, data: Mapping[str, Any]) -> Surface:
        """Take a surface out of the arrays of ``topology.npz``, by name."""
        return cls(
            faces=np.ascontiguousarray(data["faces"], np.int32),
            material=np.ascontiguousarray(data["material"], np.uint8),
            materials=tuple(str(name) for name in data["materials"]),
            in_face=np.ascontiguousarray(data["in_face"], bool),
            uv=np.ascontiguousarray(data["uv"], np.float32),
            vertex=np.ascontiguousarray(data["vertex"], np.int32),
            fingerprint=int(data["fingerprint"].reshape(-1)[0]),
            name=str(data["name"]),
            mean=np.ascontiguousarray(data["mean"], np.float32),
            credit=str(data["credit"]),
            head=Head.from_arrays(data) if "expression" in data else None,
            lining=Lining.from_maps(data["lining"]) if "lining" in data else None,
            texels=Texels.from_arrays(data) if "texel_vertex" in data else None,
        )

    @cached_property
    def vertices(self) -> int:
        """N, how many vertices the face model has."""
        return int(self.vertex.max()) + 1

    def check(self, fingerprint: int, vertices: int) -> None:
        """Check that vertices come from this face model.

        Raises:
            Refused: ``FaceModelMismatch``.
        """
        if fingerprint != self.fingerprint or vertices != self.vertices:
            raise Refused(
                "FaceModelMismatch",
                f"the regressor speaks another face model ({_hex(fingerprint)}, {vertices} vertices) than this version "
                f"of postprocess ({self.name}, {_hex(self.fingerprint)}, {self.vertices} vertices): "
                "publish both from the same export.",
            )

    def primitives(self, mesh: str) -> tuple[Primitive, ...]:
        """Return the primitives of a mesh, ``head`` (all there is) or ``face``, those without a face left out."""
        return self._meshes[MESHES.index(mesh)]

    @cached_property
    def _meshes(self) -> tuple[tuple[Primitive, ...], ...]:
        everything = np.ones(len(self.faces), bool)
        return tuple(
            tuple(
                self._primitive(k, chosen & (self.material == k))
                for k in range(len(self.materials))
                if (chosen & (self.material == k)).any()
            )
            for chosen in (everything, self.in_face)
        )

    def _primitive(self, material: int, chosen: NDArray[np.bool_]) -> Primitive:
        faces = self.faces[chosen]
        places, numbers = np.unique(faces[faces >= 0], return_inverse=True)
        own = np.full(faces.shape, -1, np.int32)
        own[faces >= 0] = numbers.astype(np.int32)
        four = faces[:, 3] >= 0
        return Primitive(
            self.materials[material],
            self.vertex[places],
            np.ascontiguousarray(self.uv[places]),
            np.ascontiguousarray(own[four]),
            np.ascontiguousarray(own[~four, :3]),
        )

    def normals(self, vertices: F32) -> F32:
        """Compute unit normals [N, 3]: the sum of those of the faces around a vertex, weighted by their area.

        A vertex without a face looks along z.
        """
        # Coordinate by coordinate: an axis of three inside every operation would take most of the time.
        columns = [np.ascontiguousarray(column) for column in vertices.T]
        ((ax, bx, cx, dx), (ay, by, cy, dy), (az, bz, cz, dz)) = (
            [column.take(corner, mode="clip") for corner in self._corners] for column in columns
        )
        # Twice the area of a quad along its normal is the cross product of its diagonals.
        px, py, pz, qx, qy, qz = cx - ax, cy - ay, cz - az, dx - bx, dy - by, dz - bz
        faces = (py * qz - pz * qy, pz * qx - px * qz, px * qy - py * qx)
        count, (usual, crowded, more) = len(vertices), self._around
        sums = np.empty((3, count), np.float32)
        for total, face in zip(sums, faces, strict=True):
            padded = np.append(face, np.float32(0))
            np.add(*(padded.take(column, mode="clip") for column in usual[:2]), out=total)
            for column in usual[2:]:
                total += padded.take(column, mode="clip")
            np.add.at(total, crowded, padded.take(more))
        lengths = np.sqrt((sums * sums).sum(axis=0))
        lonely = lengths < 1e-12
        sums[:, lonely] = [[0], [0], [1]]
        lengths[lonely] = 1
        return np.ascontiguousarray((sums / lengths).T, np.float32)

    @cached_property
    def _corners(self) -> NDArray[np.intp]:
        """The faces as vertices, intp [4, F]; a triangle as a quad that ends where it begins."""
        closed = np.where(self.faces < 0, self.faces[:, :1], self.faces)
        return np.ascontiguousarray(self.vertex[closed].T, np.intp)

    @cached_property
    def _around(self) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
        """The faces around each vertex.

        Returns:
            [`USUAL`, N], the first faces of each vertex, F where it has fewer; vertices with more faces; those faces.
        """
        corners, faces = np.nonzero(self.faces.T >= 0)
        vertex = self._corners[corners, faces]
        order = np.argsort(vertex, kind="stable")
        vertex, faces = vertex[order], faces[order]
        rank = np.arange(len(vertex)) - np.searchsorted(vertex, vertex)
        usual = np.full((USUAL, self.vertices), len(self.faces))
        first = rank < USUAL
        usual[rank[first], vertex[first]] = faces[first]
        return usual, vertex[~first], faces[~first]


def _hex(fingerprint: int) -> str:
    return f"{fingerprint & (2**64 - 1):016x}"
