"""The shape that is drawn: the target's head and expression, with as much of the source's features as is asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from photographs import Photograph
from region import Region

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

# How much of the difference between the two expressions is drawn beyond the target's. The regressor finds less of an
# expression than there is: what it missed of the source's is left in the skin, and what it missed of the target's is
# not in its shape. Both point the same way.
BEYOND = 0.05
# Decimetres between which the movements of two mouths are the same and another, and which places are their rims.
APART, RIM = (0.03, 0.036), 0.03
# Of so many places one says how two shapes lie over each other: ten thousand say no more.
EVERY = 4


def fused_shape(source: F32, target: F32, region: Region, share: float) -> F32:
    """Return the posed shape to draw.

    Identity: the target's neutral shape, moved towards the source's by ``share`` times the place's freedom; so the
    outline stays the target's, and what is drawn meets what is left. Pose and camera: the target's, as both models are
    linear. Expression: the target's, and `BEYOND` it, away from the source's; likewise free.

    Args:
        source, target: float32 [3, N, 3] decimetres: posed, with expression, neutral.
        region: whose M places are returned.
        share: 0 for the target's shape, 1 for the source's.

    Returns:
        float32 [M, 3] decimetres, camera frame.
    """
    posed, expressive, neutral = target[:, region.vertex]
    other = source[2][region.vertex]
    weights = region.inside.astype(np.float64)
    # Size and place of the whole face are the target's: the regressor's are those of the mean, not of the person.
    moved = _similarity(other, neutral, weights)
    turn = _rotation(expressive, posed, weights)
    beyond = BEYOND * ((expressive - neutral) - (source[1][region.vertex] - other))
    shift = (moved - neutral + beyond) * (share * region.freedom[:, None])
    return np.asarray(posed + shift @ turn, np.float32)


def mouths_apart(source: Photograph, target: Photograph, region: Region) -> float:
    """How far two mouths differ in expression: 0 where the source's lips can be drawn as the target's, 1 where not.

    The mean distance by which the rim of the lips is moved differently by the two expressions, between `APART`.
    """
    rim = region.vertex[region.from_mouth < RIM]
    if not len(rim):
        return 0.0
    source_moved, target_moved = (
        photograph.shapes[1, rim] - photograph.shapes[2, rim] for photograph in (source, target)
    )
    apart = float(np.linalg.norm(source_moved - target_moved, axis=1).mean())
    share = min(max((apart - APART[0]) / (APART[1] - APART[0]), 0.0), 1.0)
    return share * share * (3 - 2 * share)


def _similarity(moving: F32, fixed: F32, weights: F64) -> F32:
    """Lay points (n, 3) over others by scale, rotation and translation (Umeyama 1991), weighted (n,)."""
    few = weights[::EVERY]
    total = few.sum()
    a, b = (few @ points[::EVERY] / total for points in (moving, fixed))
    left, right = moving[::EVERY] - a, fixed[::EVERY] - b
    turn = _kabsch(left, right, few)
    scale = float((few @ ((left @ turn) * right).sum(1)) / (few @ (left * left).sum(1)))
    return np.asarray((moving - a.astype(np.float32)) @ (scale * turn).astype(np.float32) + b, np.float32)


def _rotation(moving: F32, fixed: F32, weights: F64) -> F32:
    """The rotation, for row vectors, that lays points (n, 3) over others."""
    moving, fixed, weights = moving[::EVERY], fixed[::EVERY], weights[::EVERY]
    total = weights.sum()
    return _kabsch(moving - weights @ moving / total, fixed - weights @ fixed / total, weights).astype(np.float32)


def _kabsch(left: NDArray[np.floating[Any]], right: NDArray[np.floating[Any]], weights: F64) -> F64:
    u, _, v = np.linalg.svd(left.T @ (right * weights[:, None]))
    flip = np.diag([1.0, 1.0, np.linalg.det(u @ v)])
    return np.asarray(u @ flip @ v)
