"""A head as a closed body, for printing."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from face3d_client._mesh.part import Part
from face3d_client._mesh.surface import Surface

__all__ = ["solid_triangles"]

# The sockets lie up to three millimetres behind the eyeballs: an eyeball's back grows by this into the head.
_GROWTH_MM: Final = 4.0
# Cosines against the direction of gaze between which that growth begins and is whole: behind the lids only.
_GROWTH_BEGINS, _GROWTH_WHOLE = -0.1, -0.5

Triangles = tuple[NDArray[np.float32], NDArray[np.int32]]


def solid_triangles(surface: Surface) -> Triangles:
    """Make a body of a head: the skin, closed across the neck, with the eyeballs in it; a face alone stays open.

    Teeth, tongue and lashes are left out: they are hidden, or thinner than what prints. With manifold3d installed the
    three bodies become one without cuts; else they overlap, which slicers join.

    Returns:
        vertices float32 (V, 3) mm, triangles int32 (T, 3).
    """
    if surface.name != "head":
        return surface.opaque().vertices, surface.opaque().faces
    skin, *others = surface.parts
    bodies = [_closed(*_welded(skin))]
    bodies += [_grown(part) for part in others if part.material.name.startswith("eye")]
    return _united(bodies) if importlib.util.find_spec("manifold3d") else _together(bodies)


def _welded(part: Part) -> Triangles:
    faces = part.vertex[part.faces].astype(np.int32)
    first, second, third = faces.T
    whole = (first != second) & (second != third) & (third != first)
    return part.vertices[part.first], faces[whole]


def _closed(vertices: NDArray[np.float32], faces: NDArray[np.int32]) -> Triangles:
    """Close every hole by a fan of triangles around its middle."""
    edges = faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2)
    size = len(vertices)
    keys, turned = edges[:, 0] * np.int64(size) + edges[:, 1], edges[:, 1] * np.int64(size) + edges[:, 0]
    rim = edges[~np.isin(keys, turned)]
    following = dict(rim.tolist())
    fans, middles = [faces], [vertices]
    while following:
        start, follower = following.popitem()
        loop = [start]
        while follower != start:
            loop.append(follower)
            follower = following.pop(follower)
        middle = size + len(middles) - 1
        middles.append(vertices[loop].mean(0, keepdims=True))
        fans.append(
            np.array([[after, before, middle] for before, after in zip(loop, loop[1:] + loop[:1], strict=True)])
        )
    return np.concatenate(middles), np.concatenate(fans).astype(np.int32)


def _grown(eye: Part) -> Triangles:
    """Let an eyeball grow into the head behind it, so that no gap stays between them."""
    vertices, faces = _welded(eye)
    centre = (vertices.min(0) + vertices.max(0)) / 2
    # The iris is in the middle of the eye's picture.
    front = eye.vertices[np.argmin(np.linalg.norm(eye.uv - 0.5, axis=1))] - centre
    away = vertices - centre
    away /= np.linalg.norm(away, axis=1, keepdims=True)
    cosine = away @ (front / np.linalg.norm(front))
    share = np.clip((_GROWTH_BEGINS - cosine) / (_GROWTH_BEGINS - _GROWTH_WHOLE), 0, 1)[:, np.newaxis]
    return (vertices + _GROWTH_MM * share * away).astype(np.float32), faces


def _together(bodies: list[Triangles]) -> Triangles:
    begins = np.cumsum([0] + [len(vertices) for vertices, _ in bodies[:-1]])
    faces = [faces + begin for (_, faces), begin in zip(bodies, begins, strict=True)]
    return np.concatenate([vertices for vertices, _ in bodies]), np.concatenate(faces).astype(np.int32)


def _united(bodies: list[Triangles]) -> Triangles:
    manifold: Any = importlib.import_module("manifold3d")
    solids = [
        manifold.Manifold(manifold.Mesh(np.ascontiguousarray(vertices, np.float32), faces.astype(np.uint32)))
        for vertices, faces in bodies
    ]
    if any(solid.status() != manifold.Error.NoError for solid in solids):
        return _together(bodies)
    mesh = manifold.Manifold.batch_boolean(solids, manifold.OpType.Add).to_mesh()
    return np.asarray(mesh.vert_properties, np.float32)[:, :3], np.asarray(mesh.tri_verts).astype(np.int32)
