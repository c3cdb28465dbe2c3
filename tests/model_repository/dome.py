"""A face model small enough to reason about: a dome with a nose, as a grid of vertices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SIDE = 33
FINGERPRINT = -81985529216486896  # negative on purpose: fingerprints are signed


def uv() -> NDArray[np.float32]:
    """float32 [N, 2], v up."""
    steps = np.linspace(0.02, 0.98, SIDE, dtype=np.float32)
    return np.stack([grid.ravel() for grid in np.meshgrid(steps, steps)], axis=1)


def triangles() -> NDArray[np.int32]:
    """int32 [F, 3], counter-clockwise seen from +z."""
    at = np.arange(SIDE * SIDE, dtype=np.int32).reshape(SIDE, SIDE)
    a, b, c, d = (part.ravel() for part in (at[:-1, :-1], at[:-1, 1:], at[1:, 1:], at[1:, :-1]))
    return np.concatenate([np.stack([a, b, c], axis=1), np.stack([a, c, d], axis=1)])


def vertices() -> NDArray[np.float32]:
    """float32 [N, 3], decimetres: 1.5 wide, 2 high, its nose half a decimetre out."""
    x, y = (uv() - 0.5).T * np.array([[1.5], [2.0]], np.float32)
    z = -0.5 * x**2 - 0.3 * y**2 + 0.5 * np.exp(-(x**2 + y**2) / 0.02)
    return np.asarray(np.stack([x, y, z], axis=1), np.float32)


def turned(yaw: float, deeper: float = 1.0) -> NDArray[np.float32]:
    """The vertices, so many times as deep, with the nose turned by ``yaw`` degrees to the right of the picture."""
    a = np.radians(yaw)
    turn = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])
    return np.asarray(vertices() * [1, 1, deeper] @ turn.T, np.float32)


def shapes(yaw: float = 0.0) -> NDArray[np.float32]:
    """float32 [3, N, 3]: posed, upright, neutral (a tenth smaller, to tell them apart)."""
    return np.stack([turned(yaw), vertices(), vertices() * np.float32(0.9)])


def mean() -> NDArray[np.float32]:
    """float32 [N, 3]: the mean neutral shape, flat: what the neutral one has of a nose is its own."""
    return vertices() * np.array([0.9, 0.9, 0.45], np.float32)


def arrays() -> dict[str, Any]:
    """What export writes for a face model of a face alone."""
    count = len(triangles())
    return {
        "faces": np.column_stack([triangles(), np.full(count, -1)]).astype(np.int32),
        "vertex": np.arange(SIDE * SIDE, dtype=np.int32),
        "material": np.zeros(count, np.uint8),
        "materials": np.array(["skin"]),
        "in_face": np.ones(count, bool),
        "uv": uv(),
        "fingerprint": np.array([FINGERPRINT]),
        "name": np.array("dome"),
        "credit": np.array("nobody"),
        "landmarks": np.arange(68, dtype=np.int32),
        "mean": mean(),
    }


def write_topology(path: Path) -> Path:
    """Write the file that export writes into postprocess's version folder."""
    np.savez(path, **arrays())
    return path
