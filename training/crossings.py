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
    """Return whether the segment from p to q passes through triangle a, b, c (T. Moeller and B. Trumbore, 1997)."""
    # Number by number: a small array for each vector would take ten times as long.
    dx, dy, dz = q[0] - p[0], q[1] - p[1], q[2] - p[2]
    ex, ey, ez = b[0] - a[0], b[1] - a[1], b[2] - a[2]
    fx, fy, fz = c[0] - a[0], c[1] - a[1], c[2] - a[2]
    sx, sy, sz = p[0] - a[0], p[1] - a[1], p[2] - a[2]
    hx, hy, hz = dy * fz - dz * fy, dz * fx - dx * fz, dx * fy - dy * fx
    determinant = ex * hx + ey * hy + ez * hz
    if abs(determinant) < 1e-14:
        return False
    u = (sx * hx + sy * hy + sz * hz) / determinant
    if u < 0.0 or u > 1.0:
        return False
    gx, gy, gz = sy * ez - sz * ey, sz * ex - sx * ez, sx * ey - sy * ex
    v = (dx * gx + dy * gy + dz * gz) / determinant
    if v < 0.0 or u + v > 1.0:
        return False
    t = (fx * gx + fy * gy + fz * gz) / determinant
    return bool(0.0 <= t <= 1.0)


@numba.njit(cache=True)
def _apart(low: FloatArray, high: FloatArray, t: int, o: int) -> bool:
    """Return whether the boxes of two triangles have nothing in common."""
    return bool(
        low[t, 0] > high[o, 0]
        or low[o, 0] > high[t, 0]
        or low[t, 1] > high[o, 1]
        or low[o, 1] > high[t, 1]
        or low[t, 2] > high[o, 2]
        or low[o, 2] > high[t, 2]
    )


@numba.njit(cache=True)
def _joined(triangles: IntArray, t: int, o: int) -> bool:
    """Return whether two triangles share a vertex."""
    for i in range(3):
        for j in range(3):
            if triangles[t, i] == triangles[o, j]:
                return True
    return False


@numba.njit(cache=True)
def _search(
    points: FloatArray,
    triangles: IntArray,
    boxes: tuple[FloatArray, FloatArray],
    cells: tuple[IntArray, IntArray],
    start: IntArray,
    owner: IntArray,
    shape: IntArray,
) -> npt.NDArray[np.bool_]:
    crosses = np.zeros(len(triangles), np.bool_)
    first, last = cells
    for t in range(len(triangles)):
        for x in range(first[t, 0], last[t, 0] + 1):
            for y in range(first[t, 1], last[t, 1] + 1):
                for z in range(first[t, 2], last[t, 2] + 1):
                    cell = (x * shape[1] + y) * shape[2] + z
                    for k in range(start[cell], start[cell + 1]):
                        o = owner[k]
                        if o == t or (crosses[t] and crosses[o]):
                            continue
                        if _apart(boxes[0], boxes[1], t, o) or _joined(triangles, t, o):
                            continue
                        a, b, c = points[triangles[o, 0]], points[triangles[o, 1]], points[triangles[o, 2]]
                        for i in range(3):
                            if _pierces(points[triangles[t, i]], points[triangles[t, (i + 1) % 3]], a, b, c):
                                crosses[t] = True
                                crosses[o] = True
                                break
    return crosses


def crossing(points: FloatArray, triangles: IntArray) -> npt.NDArray[np.bool_]:
    """Find which triangles, bool (T,), cross one that they share no vertex with.

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
        points.astype(np.float64), triangles.astype(np.int64), (low, high), (first, last), start, owner[order], shape
    )
    return found
