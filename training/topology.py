"""The face model's own topology: one disk from hair line to throat, eyes and mouth closed, a UV map without seams.

The exact heads of ICT-FaceKit light (MIT, (c) 2020 USC ICT) have open eyes, an open mouth and a mesh of their own. Here
the holes get patches, the resulting disk is flattened (Tutte's embedding, hence provably without a fold), and a new
mesh is laid over the flattened disk. Every new vertex is a fixed linear combination of source vertices, so each shape
of the source arrives on the new topology exactly: registration without a fitting step.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from scipy.sparse.linalg import spsolve
from scipy.spatial import Delaunay, cKDTree

from networks.uv_table import locate

Float = npt.NDArray[np.float64]
Int = npt.NDArray[np.int64]

# Rings of a patch that closes a hole, as fractions of the way from the rim's centre to the rim.
_PATCH_RINGS = (0.72, 0.42)
# How far the middle of a patch stands before (+) or behind (-) the plane of its rim, in centimetres: an eyeball bulges
# about 2.5 mm out of its lids; the inside of a mouth lies behind the lips.
_EYE_BULGE_CM = 0.28
_MOUTH_BULGE_CM = -0.55
# The throat is cut along a plane that runs from below the chin (y = -10.9 cm at z = 10) up to the ear lobes (y = -3.5
# at z = 0): what lies behind it a portrait seldom shows, and a neck that ends at chin height looks like a bust, not a
# collar.
_CUT_HEIGHT_CM, _CUT_SLOPE = -3.5, -0.74


@dataclass(frozen=True)
class Topology:
    """A mesh whose vertices are linear combinations of source vertices.

    Attributes:
        triangles: (F, 3) int64, counter-clockwise seen from outside.
        uv: (N, 2) float64 in 0..1, u to the model's left (the viewer's right), v up. One UV per vertex.
        weights: (N, M) sparse; ``weights @ source`` maps any shape or displacement of the M source vertices.
        offset: (N, 3) float64 centimetres, added to positions only (the bulge of eye and mouth patches).
        landmarks: (68,) int64, iBUG-68 order.
        mirror: (N,) int64, the vertex on the other side of the face.
    """

    triangles: Int
    uv: Float
    weights: sp.csr_matrix
    offset: Float
    landmarks: Int
    mirror: Int


def boundary_loops(triangles: Int) -> list[list[int]]:
    """Find the boundary loops of a manifold mesh, shortest first; each runs against its triangles' direction."""
    edges = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    directed = set(map(tuple, edges.tolist()))
    following = {b: a for a, b in directed if (b, a) not in directed}
    loops, left = [], set(following)
    while left:
        start = min(left)
        loop, current = [start], following[start]
        left.discard(start)
        while current != start:
            loop.append(current)
            left.discard(current)
            current = following[current]
        loops.append(loop)
    return sorted(loops, key=len)


def _cut_throat(neutral: Float, triangles: Int) -> tuple[Int, sp.csr_matrix]:
    """Cut the mesh along the throat plane -> triangles, weights (M', M); new vertices split the edges that cross it."""
    height = neutral[:, 1] - (_CUT_HEIGHT_CM + _CUT_SLOPE * neutral[:, 2])
    rows, columns, values = list(range(len(neutral))), list(range(len(neutral))), [1.0] * len(neutral)
    split: dict[tuple[int, int], int] = {}
    following = len(neutral)

    def crossing(a: int, b: int) -> int:
        nonlocal following
        key = (min(a, b), max(a, b))
        if key not in split:
            share = height[a] / (height[a] - height[b])
            rows.extend([following] * 2)
            columns.extend([a, b])
            values.extend([1 - share, share])
            split[key] = following
            following += 1
        return split[key]

    out: list[tuple[int, int, int]] = []
    for triangle in triangles.tolist():
        above = [bool(height[v] > 0) for v in triangle]
        if all(above):
            out.append(tuple(triangle))
        elif sum(above) == 1:
            k = above.index(True)
            a, b, c = triangle[k], triangle[(k + 1) % 3], triangle[(k + 2) % 3]
            out.append((a, crossing(a, b), crossing(a, c)))
        elif sum(above) == 2:
            k = above.index(False)
            a, b, c = triangle[k], triangle[(k + 1) % 3], triangle[(k + 2) % 3]
            ab, ac = crossing(b, a), crossing(c, a)
            out += [(b, c, ab), (c, ac, ab)]
    return np.array(out, np.int64), sp.csr_matrix((values, (rows, columns)), shape=(following, len(neutral)))


def close_holes(neutral: Float, triangles: Int, loops: list[list[int]]) -> tuple[Int, sp.csr_matrix, Float]:
    """Fill each loop with rings and a centre vertex -> triangles, weights (M', M), offsets (M', 3) centimetres.

    A loop below y = 0 is the mouth and sinks in; the others are eyes and bulge out.
    """
    bulges = [_MOUTH_BULGE_CM if neutral[loop].mean(0)[1] < 0 else _EYE_BULGE_CM for loop in loops]
    count = len(neutral)
    rows, columns, values = list(range(count)), list(range(count)), [1.0] * count
    offsets = [np.zeros(3)] * count
    extra: list[tuple[int, int, int]] = []
    following = count

    for loop, bulge in zip(loops, bulges, strict=True):
        n, previous = len(loop), list(loop)
        for ring in _PATCH_RINGS:
            current = list(range(following, following + n))
            following += n
            for k, vertex in enumerate(current):
                rows += [vertex] * (n + 1)
                columns += [*loop, loop[k]]
                values += [(1 - ring) / n] * n + [ring]
                offsets.append(np.array([0.0, 0.0, bulge * (1 - ring**2)]))
            for k in range(n):
                a, b, c, d = previous[k], previous[(k + 1) % n], current[k], current[(k + 1) % n]
                extra += [(a, b, c), (b, d, c)]
            previous = current
        centre = following
        following += 1
        rows += [centre] * n
        columns += loop
        values += [1 / n] * n
        offsets.append(np.array([0.0, 0.0, bulge]))
        extra += [(previous[k], previous[(k + 1) % n], centre) for k in range(n)]
    weights = sp.csr_matrix((values, (rows, columns)), shape=(following, count))
    return np.concatenate([triangles, np.array(extra, np.int64)]), weights, np.array(offsets)


def _squircle(angle: Float, power: float = 5.0) -> Float:
    """Return the points (n, 2) of a rounded square (superellipse) at the given angles, radius 0.49 about (0.5, 0.5)."""
    c, s = np.cos(angle), np.sin(angle)
    radius = (np.abs(c) ** power + np.abs(s) ** power) ** (-1 / power)
    return np.stack([0.5 + 0.49 * radius * c, 0.5 + 0.49 * radius * s], 1)


def _flatten(points: Float, triangles: Int, rim: list[int], mirror: Int, importance: Float) -> Float:
    """Embed the mesh in the plane (Tutte, positive weights): neighbours of important vertices are pushed apart.

    W. T. Tutte, "How to draw a graph", 1963: with a convex rim and positive weights the map has no fold.
    """
    edges = np.unique(
        np.sort(np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]]), 1), axis=0
    )
    length = np.linalg.norm(points[edges[:, 0]] - points[edges[:, 1]], axis=1)
    weight = 1.0 / (length**0.9 + 0.02) / importance[edges].mean(1)
    n = len(points)
    adjacency = sp.coo_matrix((weight, (edges[:, 0], edges[:, 1])), shape=(n, n))
    adjacency = adjacency + adjacency.T
    laplacian = (sp.diags(np.asarray(adjacency.sum(1)).ravel()) - adjacency).tocsr()

    centre = np.array([0.0, 1.5])
    angle = np.arctan2(points[rim, 1] - centre[1], points[rim, 0] - centre[0])
    order = np.argsort(angle)
    loop = np.array(rim)[order]
    step = np.linalg.norm(points[loop] - np.roll(points[loop], 1, 0), axis=1)
    arc = np.cumsum(step) / step.sum() * 2 * np.pi
    # Half way between arc length (even texels) and direction (no shear), turned so that both agree on average.
    direction = np.unwrap(angle[order])
    blend = 0.5 * direction + 0.5 * (arc + (direction - arc).mean())
    uv = np.zeros((n, 2))
    uv[loop] = _squircle(blend)
    reflected = uv[mirror[loop]] * [-1, 1] + [1, 0]
    uv[loop] = (uv[loop] + reflected) / 2
    free = np.setdiff1d(np.arange(n), loop)
    right = -laplacian[free][:, loop] @ uv[loop]
    uv[free] = np.stack([spsolve(laplacian[free][:, free].tocsc(), right[:, k]) for k in (0, 1)], 1)
    return (uv + uv[mirror] * [-1, 1] + [1, 0]) / 2


def _mesh_plan(uv: Float, rim: list[int], features: Int, spacing: float) -> Float:
    """Plan the new mesh's vertices in the UV plane: a hexagonal lattice, the rim, and feature curves kept exactly."""
    keep = uv[np.unique(np.concatenate([features, np.array(rim)[:: max(1, len(rim) // 200)]]))]
    half = []
    for j, v in enumerate(np.arange(0.0, 1.0, spacing * np.sqrt(3) / 2)):
        start = 0.5 + (0.0 if j % 2 else spacing / 2)
        half += [(u, v) for u in np.arange(start, 1.0, spacing)]
    lattice = np.array(half)
    inside = (np.abs(lattice - 0.5) / (0.49 - 0.3 * spacing)) ** 5
    lattice = lattice[inside.sum(1) < 1]
    lattice = lattice[cKDTree(keep).query(lattice)[0] > 0.55 * spacing]
    on_axis = np.abs(lattice[:, 0] - 0.5) < 1e-9
    return np.concatenate([keep, lattice, lattice[~on_axis] * [-1, 1] + [1, 0]])


def build(neutral: Float, triangles: Int, landmarks68: Int, spacing: float = 0.0125) -> Topology:
    """Lay the project's mesh over the source face.

    Args:
        neutral: (M, 3) source mean face, centimetres, y up, z to the camera.
        triangles: (F, 3) source triangles of the face (ears and throat included).
        landmarks68: (68,) source vertex of each iBUG landmark.
        spacing: distance of new vertices in UV units.

    Raises:
        ValueError: if the source is not a disk with the three expected holes (eyes, mouth).
    """
    kept, cut = _cut_throat(neutral, triangles)
    used, compact = np.unique(kept, return_inverse=True)
    select = cut[used]
    points, faces = select @ neutral, compact.reshape(-1, 3)
    loops = boundary_loops(faces)
    if len(loops) != 4:
        raise ValueError(f"expected a rim and three holes (two eyes, a mouth), found {len(loops)} boundary loops")
    *holes, rim = loops
    closed, patch, patch_offset = close_holes(points, faces, holes)
    positions = patch @ points + patch_offset
    mirror = cKDTree(positions).query(positions * [-1, 1, 1])[1]

    # Texels where people look: eyes, mouth and nose large; ears enough to keep their shape. Centimetres and factors
    # were chosen by eye on checkerboard renders.
    eyes_mouth = positions[np.concatenate([np.array(h) for h in holes])]
    distance = cKDTree(eyes_mouth).query(positions)[0]
    nose_distance = np.linalg.norm(positions - neutral[landmarks68[33]], axis=1)
    importance = 1.0 + 16.0 * np.exp(-((distance / 2.2) ** 2)) + 4.0 * np.exp(-((nose_distance / 2.2) ** 2))
    importance[np.abs(positions[:, 0]) > 7.4] *= 2.5
    uv = _flatten(positions, closed, rim, mirror, importance)

    vertex_of = {int(v): k for k, v in enumerate(used)}
    marks = np.array([vertex_of[int(v)] for v in landmarks68])
    features = np.concatenate([np.concatenate([np.array(h) for h in holes]), marks, mirror[marks]])
    plan = _mesh_plan(uv, rim, features, spacing)
    plan = plan[np.unique(np.round(plan / (0.2 * spacing)).astype(np.int64), axis=0, return_index=True)[1]]
    new_triangles = Delaunay(plan).simplices.astype(np.int64)
    a, b, c = (plan[new_triangles[:, k]] for k in range(3))
    area = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])
    new_triangles[area < 0] = new_triangles[area < 0][:, [0, 2, 1]]
    new_triangles = new_triangles[np.abs(area) > 1e-7]

    index, bary = locate(plan, uv, closed)
    n = len(plan)
    lay = sp.csr_matrix((bary.ravel(), (np.repeat(np.arange(n), 3), closed[index].ravel())), shape=(n, len(positions)))
    tree = cKDTree(plan)
    return Topology(
        triangles=new_triangles,
        uv=plan,
        weights=(lay @ patch @ select).tocsr(),
        offset=lay @ patch_offset,
        landmarks=np.asarray(tree.query(uv[marks])[1], np.int64),
        mirror=np.asarray(tree.query(plan * [-1, 1] + [1, 0])[1], np.int64),
    )
