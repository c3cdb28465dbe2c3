"""Tables from UV space to the mesh, computed once, so that no rasteriser is needed at run time."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

Float = npt.NDArray[np.float64]
Int = npt.NDArray[np.int64]

# Triangles tried for each point, nearest centres first: enough for meshes whose neighbours differ tenfold in size.
_CANDIDATES = 48


def locate(points: Float, uv: Float, triangles: Int) -> tuple[Int, Float]:
    """Find the triangle that contains each UV point.

    Args:
        points: (P, 2) float, in the UV plane.
        uv: (N, 2) float, UV of each vertex.
        triangles: (F, 3) int.

    Returns:
        index (P,) int64 and barycentrics (P, 3) float64. Outside all triangles: the nearest one, barycentrics clamped
        to it.
    """
    corners = uv[triangles]
    _, nearest = cKDTree(corners.mean(1)).query(points, k=min(_CANDIDATES, len(triangles)))
    nearest = nearest.reshape(len(points), -1)
    index = nearest[:, 0].astype(np.int64)
    bary = np.zeros((len(points), 3))
    best = np.full(len(points), -np.inf)
    for k in range(nearest.shape[1]):
        t = nearest[:, k]
        a, b, c = corners[t, 0], corners[t, 1], corners[t, 2]
        area = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])
        area = np.where(np.abs(area) < 1e-14, 1e-14, area)
        wb = ((points[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (points[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])) / area
        wc = ((b[:, 0] - a[:, 0]) * (points[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (points[:, 0] - a[:, 0])) / area
        weights = np.stack([1 - wb - wc, wb, wc], 1)
        better = weights.min(1) > best
        best[better], index[better], bary[better] = weights.min(1)[better], t[better], weights[better]
    bary = np.clip(bary, 0, None)
    return index, bary / bary.sum(1, keepdims=True)


def texels(size: int, uv: Float, triangles: Int) -> tuple[Int, npt.NDArray[np.float32]]:
    """Compute the corner vertices and barycentric weights of each texel.

    Args:
        size: texels along a side of the texture.
        uv: (N, 2) float, UV of each vertex.
        triangles: (F, 3) int.

    Returns:
        vertices (size * size, 3) int64 and weights (size * size, 3) float32, by rows, row 0 at v = 1.
    """
    axis = (np.arange(size) + 0.5) / size
    u, v = np.meshgrid(axis, 1 - axis)
    index, bary = locate(np.stack([u.ravel(), v.ravel()], 1), uv, triangles)
    return triangles[index], bary.astype(np.float32)


def adjacency(triangles: Int, vertices: int) -> Int:
    """List the triangles around each of N vertices: (N, D) int64, padded with F (one past the last triangle)."""
    order = np.argsort(triangles.ravel(), kind="stable")
    vertex = triangles.ravel()[order]
    degree = np.bincount(vertex, minlength=vertices)
    table = np.full((vertices, max(int(degree.max()), 1)), len(triangles), np.int64)
    start = np.concatenate([[0], np.cumsum(degree)[:-1]])
    table[vertex, np.arange(len(vertex)) - start[vertex]] = order // 3
    return table
