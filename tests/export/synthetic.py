"""A face model made of formulas, a dome with a nose, alike on both sides: tests need neither data nor weights."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from networks.face_model import ALBEDO, EXPRESSION, IDENTITY, FaceModel

SIDE = 41  # vertices along each axis; odd, so that one column runs over the bridge of the nose


def height(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the surface's z in decimetres at x (-0.8..0.8) and y (-1..1): a flat dome with a steep nose."""
    dome = 0.5 - 0.35 * (x / 0.8) ** 2 - 0.25 * y**2
    return np.asarray(dome + 0.4 * np.exp(-((x / 0.1) ** 2) - (y / 0.3) ** 2))


def face_model(seed: int = 0) -> FaceModel:
    """Make a model of 1,681 vertices on a UV lattice, in decimetres, small random modes, landmarks off the rim."""
    rng = np.random.default_rng(seed)
    axis = np.linspace(0.01, 0.99, SIDE)
    u, v = (part.ravel() for part in np.meshgrid(axis, axis))
    x, y = (np.asarray(2 * part - 1, np.float64) for part in (u, v))
    x = 0.8 * x
    k = np.arange(SIDE * SIDE).reshape(SIDE, SIDE)
    a, b, c, d = (part.ravel() for part in (k[:-1, :-1], k[:-1, 1:], k[1:, :-1], k[1:, 1:]))
    n = SIDE * SIDE
    landmarks = rng.choice(k[5:-5, 5:-5].ravel(), 68, replace=False)
    landmarks[30] = k[SIDE // 2, SIDE // 2]  # the tip of the nose
    return FaceModel(
        mean=np.stack([x, y, height(x, y)], 1).astype(np.float32),
        identity=rng.normal(0, 0.002, (IDENTITY, n, 3)).astype(np.float32),
        expression=rng.normal(0, 0.002, (EXPRESSION, n, 3)).astype(np.float32),
        albedo_mean=np.full((n, 3), 128, np.float32),
        albedo=rng.normal(0, 1, (ALBEDO, n, 3)).astype(np.float32),
        triangles=np.concatenate([np.stack([a, b, c], 1), np.stack([b, d, c], 1)]).astype(np.int32),
        uv=np.stack([u, v], 1).astype(np.float32),
        landmarks=landmarks.astype(np.int32),
        expression_names=tuple(f"mode {k}" for k in range(EXPRESSION)),
        name="dome",
        licence="none needed",
        source="formulas",
    )


def rotation_matrix(pitch: float, yaw: float, roll: float) -> NDArray[np.float64]:
    """Compute Rz Ry Rx for column vectors, angles in radians, independently of the tested code."""

    def about(axis: int, angle: float) -> NDArray[np.float64]:
        matrix = np.eye(3)
        i, j = [(1, 2), (2, 0), (0, 1)][axis]
        matrix[i, i] = matrix[j, j] = np.cos(angle)
        matrix[j, i], matrix[i, j] = np.sin(angle), -np.sin(angle)
        return matrix

    turned: NDArray[np.float64] = about(2, roll) @ about(1, yaw) @ about(0, pitch)
    return turned


def pixels(posed: NDArray[np.float64]) -> NDArray[np.float64]:
    """Project camera-frame points (N, 3) dm to (N, 2) of the 224 px crop, by the family's formula in NumPy."""
    depth = 10 - posed[:, 2]
    return np.stack([1015 * posed[:, 0] / depth + 112, 223 - (1015 * posed[:, 1] / depth + 112)], 1)
