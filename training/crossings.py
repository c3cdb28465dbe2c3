"""Where a surface cuts itself: pairs of triangles that cross, found over a grid of cells."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.floating[Any]]
IntArray = npt.NDArray[np.integer[Any]]


@numba.njit(cache=True)
def _pierces(p: FloatArray, q: FloatArray, a: FloatArray, b: FloatArray, c: FloatArray) -> bool:
    """Whether the segment from p to q passes through triangle a, b, c (T. Moeller and B. Trumbore, 1997)."""
    d, e, f, s = q - p, b - a, c - a, p - a
    h = np.array([d[1] * f[2] - d[2] * f[1], d[2] * f[0] - d[0] * f[2], d[0] * f[1] - d[1] * f[0]])
    determinant = e[0] * h[0] + e[1] * h[1] + e[2] * h[2]
    if abs(determinant) < 1e-14:
        return False
    u = (s[0] * h[0] + s[1] * h[1] + s[2] * h[2]) / determinant
    if u < 0.0 or u > 1.0:
        return False
    g = np.array([s[1] * e[2] - s[2] * e[1], s[2] * e[0] - s[0] * e[2], s[0] * e[1] - s[1] * e[0]])
    v = (d[0] * g[0] + d[1] * g[1] + d[2] * g[2]) / determinant
    if v < 0.0 or u + v > 1.0:
        return False
    t = (f[0] * g[0] + f[1] * g[1] + f[2] * g[2]) / determinant
    return bool(0.0 <= t <= 1.0)


@numba.njit(cache=True)
def _search(
    points: FloatArray,
    triangles: IntArray,
    low: IntArray,
    high: IntArray,
    start: IntArray,
    owner: IntArray,
    shape: IntArray,
) -> npt.NDArray[np.bool_]:
    crosses = np.zeros(len(triangles), np.bool_)
    for t in range(len(triangles)):
        for x in range(low[t, 0], high[t, 0] + 1):
            for y in range(low[t, 1], high[t, 1] + 1):
                for z in range(low[t, 2], high[t, 2] + 1):
                    cell = (x * shape[1] + y) * shape[2] + z
                    for k in range(start[cell], start[cell + 1]):
                        o = owner[k]
                        if o == t or (crosses[t] and crosses[o]):
                            continue
                        joined = False
                        for i in range(3):
                            for j in range(3):
                                joined |= triangles[t, i] == triangles[o, j]
                        if joined:
                            continue
                        a, b, c = points[triangles[o, 0]], points[triangles[o, 1]], points[triangles[o, 2]]
                        for i in range(3):
                            if _pierces(points[triangles[t, i]], points[triangles[t, (i + 1) % 3]], a, b, c):
                                crosses[t] = True
                                crosses[o] = True
                                break
    return crosses


def crossing(points: FloatArray, triangles: IntArray) -> npt.NDArray[np.bool_]:
    """(T,) which triangles cross one that they share no vertex with.

    Args:
        points: (N, 3).
        triangles: (T, 3).
    """
    corners = points[triangles].astype(np.float64)
    low, high = corners.min(1), corners.max(1)
    size = 2 * float(np.median(high - low)) + 1e-9
    origin = low.min(0)
    first = np.floor((low - origin) / size).astype(np.int64)
    last = np.floor((high - origin) / size).astype(np.int64)
    shape = last.max(0) + 1
    span = last - first + 1
    count = span.prod(1)
    owner = np.repeat(np.arange(len(triangles)), count)
    within = np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count)
    sy, sz = np.repeat(span[:, 1], count), np.repeat(span[:, 2], count)
    cell = np.repeat(first, count, axis=0) + np.stack([within // (sy * sz), within // sz % sy, within % sz], 1)
    flat = (cell[:, 0] * shape[1] + cell[:, 1]) * shape[2] + cell[:, 2]
    order = np.argsort(flat, kind="stable")
    start = np.concatenate([[0], np.cumsum(np.bincount(flat, minlength=int(shape.prod())))])
    found: npt.NDArray[np.bool_] = _search(
        points.astype(np.float64), triangles.astype(np.int64), first, last, start, owner[order], shape
    )
    return found
