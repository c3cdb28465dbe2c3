"""The part of the face model that a fusion draws, as the export wrote it into this version folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from fusion_refusals import Refused
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.spatial import cKDTree

F32 = NDArray[np.float32]
I32 = NDArray[np.int32]

# What a triangle shows: skin, the inside of an eye's opening, the inside of the mouth's.
SKIN, EYE, MOUTH = range(3)
# Share of the way through the outline's fade at which a place is wholly the source's: the blending fades it again.
WHOLE = 0.5
# Units of the texture, beyond its diagonal: how far a mouth is that the face model does not have. Finite, as it is
# interpolated.
NO_MOUTH = 2.0


@dataclass(frozen=True, eq=False)
class Region:
    """The front of a head: M places of a face model of N vertices, and F triangles over them.

    Attributes:
        triangles: int32 [F, 3] places, counter-clockwise seen from outside.
        kind: uint8 [F], SKIN, EYE or MOUTH.
        vertex: int32 [M], the face model's vertex of each place.
        uv: float32 [M, 2] in 0..1, v up, of the skin's texture.
        inside: float32 [M] 0..1, how far a place belongs to the face that is exchanged.
        freedom: float32 [M] 0..1, how much of the source's shape a place may take without moving the face's outline.
        from_mouth: float32 [M], how far a place lies from the opening between the lips, in units of the texture.
        vertices: N.
        fingerprint: of the face model; the regressor's has to be the same.
    """

    triangles: I32
    kind: NDArray[np.uint8]
    vertex: I32
    uv: F32
    inside: F32
    freedom: F32
    from_mouth: F32
    vertices: int
    fingerprint: int

    @classmethod
    def from_file(cls, path: Path) -> Region:
        """Read ``topology.npz``, which export writes beside this file.

        Raises:
            ValueError: its triangles name places that are not there.
        """
        with np.load(path, allow_pickle=False) as file:
            data = {key: file[key] for key in file.files}
        if data["triangles"].min() < 0 or data["triangles"].max() >= len(data["vertex"]):
            raise ValueError(f"{path.name}: triangles name places that are not there: run the export again")
        return cls.from_arrays(data)

    @classmethod
    def from_arrays(cls, data: Mapping[str, Any]) -> Region:
        """Take a region out of the arrays of ``topology.npz``, by name."""
        corners, kind = np.asarray(data["triangles"], np.int32), np.asarray(data["kind"], np.uint8)
        # Half of the triangles are the mouth's inside, which only says where a pixel lies that stays the target's.
        mouth = coarser(corners[kind == MOUTH], len(data["vertex"]))
        corners = np.concatenate([corners[kind != MOUTH], mouth])
        kind = np.concatenate([kind[kind != MOUTH], np.full(len(mouth), MOUTH, np.uint8)])
        used, numbers = np.unique(corners, return_inverse=True)
        uv = np.ascontiguousarray(data["uv"][used], np.float32)
        return cls(
            triangles=np.ascontiguousarray(numbers.reshape(-1, 3), np.int32),
            kind=kind,
            vertex=np.ascontiguousarray(data["vertex"][used], np.int32),
            uv=uv,
            inside=np.minimum(np.asarray(data["inside"][used], np.float32) / WHOLE, 1),
            freedom=np.ascontiguousarray(data["freedom"][used], np.float32),
            from_mouth=_from_mouth(np.asarray(data["triangles"]), np.asarray(data["kind"]), data["uv"], uv),
            vertices=int(data["vertices"]),
            fingerprint=int(data["fingerprint"].reshape(-1)[0]),
        )

    def check(self, fingerprint: int, vertices: int) -> None:
        """See that vertices come from this face model.

        Raises:
            Refused: ``FaceModelMismatch``.
        """
        if fingerprint != self.fingerprint or vertices != self.vertices:
            raise Refused(
                "FaceModelMismatch",
                f"the regressor speaks another face model ({fingerprint & (2**64 - 1):016x}, {vertices} vertices) than "
                f"this version of fusion ({self.fingerprint & (2**64 - 1):016x}, {self.vertices} vertices): "
                "publish both from the same export.",
            )

    def normals(self, places: F32) -> F32:
        """Unit normals [M, 3] of places [M, 3], weighted by the areas of the skin's triangles around each."""
        around, corners = self._skin
        (ax, bx, cx), (ay, by, cy), (az, bz, cz) = (np.ascontiguousarray(axis)[corners] for axis in places.T)
        bx, by, bz, cx, cy, cz = bx - ax, by - ay, bz - az, cx - ax, cy - ay, cz - az
        x, y, z = (around @ face for face in (by * cz - bz * cy, bz * cx - bx * cz, bx * cy - by * cx))
        length = np.maximum(np.sqrt(x * x + y * y + z * z), 1e-12)
        return np.asarray(np.stack([x / length, y / length, z / length], axis=1), np.float32)

    @cached_property
    def _skin(self) -> tuple[csr_array, I32]:
        """Which of the skin's triangles lie around each place, [M, S], and their corners, [3, S]."""
        corners = np.ascontiguousarray(self.triangles[self.kind == SKIN].T)
        triangle = np.tile(np.arange(corners.shape[1]), 3)
        ones = np.ones(len(triangle), np.float32)
        return csr_array((ones, (corners.ravel(), triangle)), shape=(len(self.vertex), corners.shape[1])), corners


def _from_mouth(triangles: I32, kind: NDArray[np.uint8], uv: F32, places: F32) -> F32:
    """Distance of places (n, 2) of the texture to where skin and the mouth's inside meet, or `NO_MOUTH`."""
    rim = np.intersect1d(triangles[kind == MOUTH], triangles[kind == SKIN])
    if not len(rim):
        return np.full(len(places), NO_MOUTH, np.float32)
    return np.asarray(cKDTree(uv[rim]).query(places)[0], np.float32)


def coarser(triangles: I32, places: int) -> I32:
    """Make a surface coarser: chosen places take their neighbours' part, those of its rim first.

    Args:
        triangles: int32 [F, 3], each of whose corners is below ``places``.
        places: how many there are.

    Returns:
        int32 [about F / 6, 3] over the same places.
    """
    edges = triangles[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    both = np.concatenate([edges, edges[:, ::-1]])
    both = both[np.argsort(both[:, 0], kind="stable")]
    start = np.searchsorted(both[:, 0], np.arange(places + 1))
    lines, times = np.unique(np.sort(edges, axis=1), axis=0, return_counts=True)
    rim = np.unique(lines[times == 1])
    chosen = np.full(places, -1, np.int32)
    for place in [*rim, *np.unique(triangles)]:
        if chosen[place] < 0:
            around = both[start[place] : start[place + 1], 1]
            chosen[around[chosen[around] < 0]] = place
            chosen[place] = place
    found = chosen[triangles]
    a, b, c = found.T
    return np.asarray(found[(a != b) & (b != c) & (c != a)], np.int32)
