"""One texture chart for the whole skin: face, ears, neck and scalp without a seam, sockets inside their openings.

The skin is cut along the back of the head, from the neck's rim to the crown, which makes it a disk (its sockets close
the eyes and the mouth). A disk is flattened by convex combinations onto a convex outline (W. T. Tutte, "How to draw a
graph", 1963; M. S. Floater, "Mean value coordinates", 2003): distorted, but without a folded triangle. From there
`training.flattening` moves it to where texels lie as dense and as square as they are wanted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from scipy.sparse.linalg import splu

from networks.head_model import split_quads
from training.flattening import Superellipse, relax
from training.head_source import Source
from training.topology import boundary_loops

Float = npt.NDArray[np.float64]
Int = npt.NDArray[np.int64]

# The outline is a superellipse of this power: strictly convex, as the proof needs, and nearly a square.
_OUTLINE_POWER = 12.0
_OUTLINE_RADIUS = 0.496  # of 1; two texels of 512 are left around it for filtering
# Share of the outline's length that belongs to the neck's rim: all of the lower edge and the ends of both sides.
_RIM_SHARE = 0.42
# The cut ends where the scalp, seen from this place inside of the skull, lies this far behind the vertical.
_CROWN_PIVOT_CM, _CROWN_DEGREES = np.array([0.0, 4.0, 1.0]), 25.0
_EAR_CM = np.array([8.2, 2.0, 1.0])


@dataclass(frozen=True)
class Chart:
    """A flattened disk.

    Attributes:
        uv: (M, 2) float64 in 0..1, u to the model's left, v up.
        vertex: (M,) int64, the mesh vertex of each place; those on the cut have two places.
        faces: (F, 4) int64 into ``uv``, in the order of the faces given.
    """

    uv: Float
    vertex: Int
    faces: Int


def skin_chart(source: Source, skin: npt.NDArray[np.bool_]) -> Chart:
    """Lay out the skin.

    Args:
        source: the parts.
        skin: (F,) which of the source's faces; they are quads and their vertices come first.
    """
    faces, mirror = source.faces[skin], source.mirror
    count = int(faces.max()) + 1
    mirror = mirror[:count]
    points = (source.neutral[:count] + source.neutral[mirror] * [-1, 1, 1]) / 2  # alike on both sides to the last bit
    every = np.arange(count)
    narrow = (faces.astype(np.int32), points.astype(np.float32), mirror.astype(np.int32), every.astype(np.int32))
    triangles = split_quads(*narrow).astype(np.int64)
    path = _back_of_head(points, faces)
    opened, vertex = cut_open(triangles, path)
    opened_faces = faces.copy()
    for t, k in np.argwhere(opened != triangles):  # heads of the quads come first, then their tails, in order
        corners = opened_faces[t % len(faces)]
        corners[corners == triangles[t, k]] = opened[t, k]
    other_side = np.concatenate([mirror, np.array(path[:-1])])
    other_side[path[:-1]] = count + np.arange(len(path) - 1)
    outline = np.array(boundary_loops(opened)[0])[::-1]  # loops run against the triangles
    front = np.flatnonzero((np.abs(points[vertex[outline], 0]) < 1e-6) & (points[vertex[outline], 2] > 0))[0]
    uv = flatten(points[vertex], opened, np.roll(outline, -front), other_side, _density(source, points)[vertex])
    return Chart(uv, vertex, opened_faces)


def _back_of_head(points: Float, faces: Int) -> list[int]:
    """Vertices of the cut: along the midline, from the neck's rim at the back up to the crown."""
    edges = np.unique(np.sort(np.concatenate([faces[:, [k, (k + 1) % 4]] for k in range(4)]), 1), axis=0)
    middle = edges[(np.abs(points[edges, 0]) < 1e-6).all(1)]
    neighbours: dict[int, list[int]] = {}
    for a, b in middle.tolist():
        neighbours.setdefault(a, []).append(b)
        neighbours.setdefault(b, []).append(a)
    ends = [v for v, near in neighbours.items() if len(near) == 1]
    path = [min(ends, key=lambda v: float(points[v, 2]))]
    while True:
        ahead = [v for v in neighbours[path[-1]] if v not in path[-2:]]
        path.append(ahead[0])
        x = points[ahead[0]] - _CROWN_PIVOT_CM
        if x[1] > 0 and np.degrees(np.arctan2(-x[2], x[1])) < _CROWN_DEGREES:
            return path


def _density(source: Source, points: Float) -> Float:
    """(P,) wanted texels for a length, relative to the cheeks' 1: more at eyes, nose and mouth, less behind."""
    marks = points[source.landmarks]
    x, y, z = points.T
    front = _smoothstep(z, 1.0, 7.0) * _smoothstep(y, -11.5, -8.5) * (1 - _smoothstep(y, 8.5, 12.0))
    density = 0.30 + 0.70 * front
    for centre, radius, more in (
        (marks[36:42].mean(0), 1.8, 0.9),
        (marks[42:48].mean(0), 1.8, 0.9),
        (marks[48:60].mean(0), 2.2, 0.6),
        (marks[33], 1.6, 0.4),
    ):
        density += more * np.exp(-((np.linalg.norm(points - centre, axis=1) / radius) ** 2))
    ear = np.linalg.norm(np.stack([np.abs(x), y, z], 1) - _EAR_CM, axis=1)
    density = np.maximum(density, 0.55 * np.exp(-((ear / 3.2) ** 4)))
    density *= 1 - 0.45 * (1 - _smoothstep(y, -16.0, -12.0))  # shoulders
    linings = np.setdiff1d(
        source.vertices("mouth_socket", "eye_socket_left", "eye_socket_right"), source.vertices("face")
    )
    density[linings] = 0.18
    return np.asarray(density)


def _smoothstep(x: Float, low: float, high: float) -> Float:
    t = np.clip((x - low) / (high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t))


def cut_open(triangles: Int, path: list[int]) -> tuple[Int, Int]:
    """Cut a mesh along a path of vertices that starts on its boundary.

    Args:
        triangles: (F, 3), manifold, counter-clockwise seen from outside.
        path: vertices from the boundary inwards, each joined to the next by an edge; the last one stays whole.

    Returns:
        triangles (F, 3) of the opened mesh and the old vertex of each new one (M,). The side to the right of the path
        (seen from outside, walking along it) keeps the old numbers.
    """
    count = int(triangles.max()) + 1
    directed = {
        (int(t[k]), int(t[(k + 1) % 3])): f for f, t in enumerate(triangles) for k in range(3)
    }  # edge -> the triangle on its left
    on_left: dict[int, set[int]] = {v: set() for v in path[:-1]}
    for k, v in enumerate(path[:-1]):
        # Walk around v, from the edge that leaves along the path, over the triangles to its left.
        face = directed[(v, path[k + 1])]
        stop = path[k - 1] if k else None
        while True:
            on_left[v].add(face)
            a, b, c = triangles[face]
            following = int({a: c, b: a, c: b}[v])  # the corner before v in this triangle
            if following == stop or (v, following) not in directed:
                break
            face = directed[(v, following)]
    opened, twin = triangles.copy(), {}
    for k, v in enumerate(path[:-1]):
        twin[v] = count + k
        for face in on_left[v]:
            opened[face][opened[face] == v] = count + k
    return opened, np.concatenate([np.arange(count), np.array(path[:-1], np.int64)])


def flatten(points: Float, triangles: Int, outline: Int, mirror: Int, density: Float) -> Float:
    """Flatten a disk onto the texture square, alike on both sides.

    Args:
        points: (N, 3), a mesh that is alike on both sides of x = 0.
        triangles: (F, 3), a disk; mirrored triangles are triangles.
        outline: vertices of its boundary, counter-clockwise seen from outside, the first in the middle of the lower
            edge (the front of the neck's rim).
        mirror: (N,) the vertex on the other side.
        density: (N,) wanted texels for a length, relative.

    Returns:
        uv (N, 2).
    """
    uv = np.zeros((len(points), 2))
    uv[outline] = _outline(points, outline, density)
    uv[outline] = (uv[outline] + uv[mirror[outline]] * [-1, 1] + [1, 0]) / 2
    free = np.setdiff1d(np.arange(len(points)), outline)
    weights = _mean_value_weights(points, triangles)
    weights = (weights + weights[mirror][:, mirror]) / 2
    laplacian = (sp.diags(np.asarray(weights.sum(1)).ravel()) - weights).tocsr()
    right = -laplacian[free][:, outline] @ uv[outline]
    uv[free] = splu(laplacian[free][:, free].tocsc()).solve(np.asarray(right))
    # One half is enough: the other is its mirror image, and the midline stays where it is.
    half, within = np.unique(triangles[points[triangles].mean(1)[:, 0] > 0], return_inverse=True)
    curve = Superellipse(np.isin(half, outline), _OUTLINE_RADIUS, _OUTLINE_POWER)
    middle = np.abs(uv[half, 0] - 0.5) < 1e-9
    found = relax(points[half], within.reshape(-1, 3), uv[half], density[half], middle, curve)
    uv[half], uv[mirror[half]] = found, found * [-1, 1] + [1, 0]
    uv[half[middle], 0] = 0.5
    return uv


def _outline(points: Float, outline: Int, density: Float) -> Float:
    """(K, 2) places on the superellipse for the boundary's vertices; see `flatten`."""
    ring = points[outline]
    step = np.linalg.norm(np.roll(ring, -1, 0) - ring, axis=1)
    step *= (density[outline] + density[np.roll(outline, -1)]) / 2
    cut = np.flatnonzero(np.abs(ring[:, 0]) < 1e-6)[1:]  # the vertices on the back's midline
    first, last = int(cut.min()), int(cut.max())
    along = np.concatenate([[0], np.cumsum(step)])
    rim = along[first] + along[-1] - along[last]
    seam = along[last] - along[first]
    rank = np.arange(len(ring))
    on_seam = (rank >= first) & (rank < last)
    share = np.where(on_seam, (1 - _RIM_SHARE) / seam, _RIM_SHARE / rim)
    place = np.concatenate([[0], np.cumsum(step * share)])[:-1]
    fine = np.linspace(0, 2 * np.pi, 20001) - np.pi / 2  # from the middle of the lower edge, counter-clockwise
    c, s = np.cos(fine), np.sin(fine)
    radius = (np.abs(c) ** _OUTLINE_POWER + np.abs(s) ** _OUTLINE_POWER) ** (-1 / _OUTLINE_POWER)
    curve = 0.5 + _OUTLINE_RADIUS * np.stack([radius * c, radius * s], 1)
    length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(curve, axis=0), axis=1))])
    return np.stack([np.interp(place, length / length[-1], curve[:, k]) for k in (0, 1)], 1)


def _mean_value_weights(points: Float, triangles: Int) -> sp.csr_matrix:
    """(N, N) positive weights of each vertex's neighbours."""
    n = len(points)
    rows, columns, values = [], [], []
    for k in range(3):
        i, j, m = triangles[:, k], triangles[:, (k + 1) % 3], triangles[:, (k + 2) % 3]
        a, b = points[j] - points[i], points[m] - points[i]
        la, lb = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
        angle = np.arccos(np.clip((a * b).sum(1) / (la * lb), -1, 1))
        half = np.tan(np.clip(angle, 0.02, 3.0) / 2)
        rows += [i, i]
        columns += [j, m]
        values += [half / la, half / lb]
    return sp.csr_matrix((np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape=(n, n))
