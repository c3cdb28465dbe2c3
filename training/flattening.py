"""Relaxing a flattened surface until its texels lie as they are wanted, without ever folding a triangle.

M. Rabinovich, R. Poranne, D. Panozzo, O. Sorkine-Hornung, "Scalable locally injective mappings", 2017: the symmetric
Dirichlet energy is lowered by solving, again and again, a quadratic problem that touches it; no step is taken that
turns a triangle over, as the energy is infinite there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from scipy.sparse.linalg import splu

Float = npt.NDArray[np.float64]
Int = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]

_ROUNDS = 80
_ENOUGH = 1e-4  # relative gain of a round below which it is over
_SHORTER, _SHORTEST = 0.6, 1e-6  # steps that are tried when a whole one is too long


@dataclass(frozen=True)
class Superellipse:
    """The outline on which the boundary may slide: the places whose arm from the middle has the power-norm ``radius``.

    Attributes:
        on: (N,) which vertices lie on it.
        radius, power: of the curve about (0.5, 0.5).
    """

    on: Bool
    radius: float
    power: float

    def onto(self, uv: Float) -> Float:
        """Pull the boundary's places (of (N, 2)) back onto the curve along the line to its middle."""
        out = uv.copy()
        arms = out[self.on] - 0.5
        out[self.on] = 0.5 + self.radius * arms / (np.abs(arms) ** self.power).sum(1, keepdims=True) ** (1 / self.power)
        return out

    def tangents(self, uv: Float) -> Float:
        """Return unit tangents (B, 2) at the boundary's vertices."""
        arms = uv[self.on] - 0.5
        gradient = np.sign(arms) * np.abs(arms) ** (self.power - 1)
        tangent = np.stack([-gradient[:, 1], gradient[:, 0]], 1)
        return np.asarray(tangent / np.linalg.norm(tangent, axis=1, keepdims=True))


@dataclass(frozen=True)
class _Reference:
    """Triangles as they should lie: gradient operators (F, 3) along two axes of each, and areas (F,)."""

    triangles: Int
    along: tuple[Float, Float]
    area: Float

    def jacobians(self, uv: Float) -> Float:
        """Return the Jacobians (F, 2, 2): columns are how the place moves along the two axes."""
        corners = uv[self.triangles]
        return np.stack([np.einsum("fi,fib->fb", axis, corners) for axis in self.along], 2)

    def energy(self, uv: Float) -> float:
        """Compute the symmetric Dirichlet energy; infinite where a triangle is folded."""
        jacobians = self.jacobians(uv)
        area = np.linalg.det(jacobians)
        if (area <= 0).any():
            return float("inf")
        square = (jacobians**2).sum((1, 2))
        return float((self.area * (square + square / area**2)).sum())


def relax(points: Float, triangles: Int, uv: Float, density: Float, middle: Bool, outline: Superellipse) -> Float:
    """Lower the distortion of a flattened surface.

    Args:
        points: (N, 3) the surface.
        triangles: (F, 3).
        uv: (N, 2) where to start: no triangle folded.
        density: (N,) wanted length in the plane for a length on the surface, relative.
        middle: (N,) vertices that only move up and down.
        outline: where boundary vertices slide; those that also lie in the middle stay.

    Returns:
        uv (N, 2), no triangle folded.
    """
    reference = _reference(points, triangles, uv, density)
    energy = reference.energy(uv)
    for _ in range(_ROUNDS):
        step, length = _step(reference, uv, _freedom(uv, middle, outline)), 1.0
        while True:
            tried = outline.onto(uv + length * step)
            reached = reference.energy(tried)
            if reached < energy or length < _SHORTEST:
                break
            length *= _SHORTER
        if reached >= energy:
            break
        uv, gain, energy = tried, (energy - reached) / energy, reached
        if gain < _ENOUGH:
            break
    return uv


def _reference(points: Float, triangles: Int, uv: Float, density: Float) -> _Reference:
    """Lay each of the surface's triangles into a plane, scaled by density and, all alike, to the area they cover."""
    corners, scale = points[triangles], density[triangles].mean(1)[:, None]
    first, second = (corners[:, 1] - corners[:, 0]) * scale, (corners[:, 2] - corners[:, 0]) * scale
    length = np.linalg.norm(first, axis=1)
    normal = np.cross(first, second)
    area = np.linalg.norm(normal, axis=1) / 2
    across = np.cross(normal / (2 * area)[:, None], first / length[:, None])
    x, y = (second * first).sum(1) / length, (second * across).sum(1)
    along_x = np.stack([-1 / length, 1 / length, np.zeros(len(x))], 1)
    along_y = np.stack([x / (length * y) - 1 / y, -x / (length * y), 1 / y], 1)
    t = uv[triangles]
    covered = np.cross(t[:, 1] - t[:, 0], t[:, 2] - t[:, 0]).sum() / 2
    side = np.sqrt(covered / area.sum())
    area = np.maximum(area, area.mean() * 1e-3) * side**2  # slivers must not be lost in rounding
    return _Reference(triangles, (along_x / side, along_y / side), area)


def _freedom(uv: Float, middle: Bool, outline: Superellipse) -> sp.csr_matrix:
    """Return (2 N, D), what each unknown moves: places freely, the middle up and down, the boundary along itself."""
    n = len(uv)
    inner, axis = np.flatnonzero(~middle & ~outline.on), np.flatnonzero(middle & ~outline.on)
    sliding = np.flatnonzero(outline.on & ~middle)
    tangents = outline.tangents(uv)[~middle[outline.on]]
    moved = [2 * inner, 2 * inner + 1, 2 * axis + 1]
    rows = np.concatenate([*moved, 2 * sliding, 2 * sliding + 1])
    first = 2 * len(inner) + len(axis)
    column = np.arange(first + len(sliding))
    columns = np.concatenate([column[:first], column[first:], column[first:]])
    values = np.concatenate([np.ones(first), tangents[:, 0], tangents[:, 1]])
    return sp.csr_matrix((values, (rows, columns)), shape=(2 * n, len(column)))


def _step(reference: _Reference, uv: Float, freedom: sp.csr_matrix) -> Float:
    """Return the step (N, 2) towards the minimum of the quadratic problem that touches the energy at ``uv``."""
    left, singular, right = np.linalg.svd(reference.jacobians(uv))
    rotation = left @ right
    near_one = np.abs(singular - 1) < 1e-6
    ratio = (singular - singular**-3.0) / np.where(near_one, 1.0, singular - 1)
    root = np.clip(np.sqrt(np.maximum(np.where(near_one, 4.0, ratio), 0)), 1e-4, 1e4)
    weight = left @ (root[:, :, None] * left.transpose(0, 2, 1))
    scale = np.sqrt(reference.area)
    rows, columns, values = [], [], []
    face = np.arange(len(scale))
    for k, axis in enumerate(reference.along):
        for a in range(2):
            for b in range(2):
                for i in range(3):
                    rows.append(4 * face + 2 * k + a)
                    columns.append(2 * reference.triangles[:, i] + b)
                    values.append(scale * weight[:, a, b] * axis[:, i])
    system = sp.csr_matrix(
        (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape=(4 * len(scale), 2 * len(uv))
    )
    wanted = (scale[:, None, None] * (weight @ rotation)).transpose(0, 2, 1).ravel()
    reduced = system @ freedom
    normal = (reduced.T @ reduced).tocsc()
    normal += sp.identity(normal.shape[0], format="csc") * (1e-9 * normal.diagonal().mean())
    found = splu(normal).solve(reduced.T @ (wanted - system @ uv.ravel()))
    return np.asarray((freedom @ found).reshape(-1, 2))
