"""Eyeballs of a decoded head: settled behind the lids, turned to where they look.

The model's shapes are linear: a lid slides on a straight line over a round eyeball, and lids differ from person to
person more than a fitted eyeball can follow. What is left, a few tenths of a millimetre, is put right here, in some
tenths of a millisecond, with nothing but NumPy.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from head import F32, Head
from numpy.typing import NDArray

# How far an eyeball may come through a lid's vertices (decimetres): a lid's own thickness is not modelled.
ALLOWED_DM = 0.0015
_STEPS = 12
# A full correction overshoots where the lid runs along the ray; most of it, repeated, does not.
_PART = 0.7


def settle(head: Head, vertices: F32, allowed: float = ALLOWED_DM) -> F32:
    """Move each eyeball away from the lids it comes through.

    Args:
        head: what the shapes are of.
        vertices: [N, 3] float32, decimetres, head frame.
        allowed: decimetres by which an eyeball may stand out of a lid's vertex.

    Returns:
        [N, 3]; only eyeballs differ, moved as a whole by a millimetre at most in ordinary faces.
    """
    settled = vertices.copy()
    for side in range(2):
        centre, axis = head.eye(vertices, side)
        size = float(np.linalg.norm(np.subtract(*vertices[head.eye_poles[side]])))
        frame = _frame(axis, side)
        lids, shift = vertices[head.lids[side]] - centre, np.zeros(3, np.float32)
        for _ in range(_STEPS):
            arms = lids - shift
            distance = np.linalg.norm(arms, axis=1)
            cut = size * _radius(head.eye_radius, (arms / distance[:, None]) @ frame.T) - distance
            worst = int(cut.argmax())
            if cut[worst] <= allowed:
                break
            shift -= _PART * (cut[worst] - allowed) * arms[worst] / distance[worst]
        settled[head.eyes[side]] += shift
    return settled


def aim(head: Head, vertices: F32, side: int, direction: F32) -> F32:
    """Turn an eyeball about its centre until it looks along a direction.

    Args:
        head: what the shapes are of.
        vertices: [N, 3] float32, decimetres.
        side: 0 the left eye (+x), 1 the right one.
        direction: [3] unit, in the frame of ``vertices``.

    Returns:
        [N, 3]; only that eyeball differs. Turn first, then `settle`: a turned cornea stands out elsewhere.
    """
    centre, axis = head.eye(vertices, side)
    cross, cosine = _cross(axis, direction), float(axis @ direction)
    skew = np.array([[0, -cross[2], cross[1]], [cross[2], 0, -cross[0]], [-cross[1], cross[0], 0]])
    turn = np.eye(3) + skew + skew @ skew / (1 + cosine)  # Rodrigues; the two are never opposite
    aimed = vertices.copy()
    eye = head.eyes[side]
    aimed[eye] = (vertices[eye] - centre) @ turn.T.astype(np.float32) + centre
    return aimed


def _frame(axis: F32, side: int) -> F32:
    """Return [3, 3] rows: outwards (+x for the left eye, -x for the right), up, along the axis of an eyeball."""
    across = np.array([axis[2], 0.0, -axis[0]])  # up, (0, 1, 0), times the axis
    across /= np.linalg.norm(across)
    up = _cross(axis, across)
    frame: F32 = np.stack([across if side == 0 else -across, up, axis]).astype(np.float32)
    return frame


def _cross(a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
    """Cross product of two vectors [3], without what NumPy's spends on other shapes."""
    (ax, ay, az), (bx, by, bz) = a, b
    return np.array([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx])


def _radius(table: F32, rays: F32) -> F32:
    """Look up an eyeball's radius, in distances of its poles, along unit rays [R, 3] in its frame: bilinear.

    The table [A, T] has azimuths from -180 to 180 degrees and tilts from 0 to 180 degrees, both ends included.
    """
    azimuths, tilts = table.shape
    rays = np.nan_to_num(rays)  # of a shape in which all points are one, which only a caller of this model can send
    column = (np.arctan2(rays[:, 1], rays[:, 0]) / (2 * np.pi) + 0.5) * (azimuths - 1)
    row = np.arccos(np.clip(rays[:, 2], -1, 1)) / np.pi * (tilts - 1)
    a, t = np.minimum(column.astype(int), azimuths - 2), np.minimum(row.astype(int), tilts - 2)
    u, v = column - a, row - t
    low = table[a, t] * (1 - u) + table[a + 1, t] * u
    high = table[a, t + 1] * (1 - u) + table[a + 1, t + 1] * u
    return np.asarray(low * (1 - v) + high * v, np.float32)
