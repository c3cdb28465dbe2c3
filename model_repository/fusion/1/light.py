"""Light apart from skin: spherical harmonics over the normals say how each photograph is lit.

The logarithm of a colour is modelled as a sum of nine harmonics (Ramamoorthi and Hanrahan 2001 show that nine suffice
for matt surfaces); the difference of two such fits is a smooth gain that turns the source's light and tone into the
target's. It knows normals only, so that no feature of either face can pass through it.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]

# Levels that are added before a logarithm is taken: noise in shadows has no meaning.
FLOOR = 12.0
# Weight of the prior that a harmonic is absent, by its degree, in shares of the cells: where few normals are seen, the
# higher harmonics would run away outside of them.
_PRIOR = np.array([1e-4, 1e-3, 1e-3, 1e-3, 1e-2, 1e-2, 1e-2, 1e-2, 1e-2])
# Logarithms of a ratio from which on a colour is none of plain skin: a brow, a lip, a highlight.
_OUTLIER = 0.25
_MOST = 1.5  # logarithm of the largest gain


def harmonics(normals: F32) -> F32:
    """The nine real harmonics up to degree two, not normalised, of unit normals [..., 3]: [..., 9]."""
    x, y, z = np.moveaxis(normals, -1, 0)
    terms = [np.ones_like(x), x, y, z, x * y, y * z, x * z, x * x - y * y, 3 * z * z - 1]
    return np.asarray(np.stack(terms, axis=-1), np.float32)


def fit(colours: F32, normals: F32, weights: F32) -> F32:
    """Fit harmonics to the logarithms of colours [n, 3], 0..255, with weights [n]: [9, 3].

    Three rounds, each without what the one before has left over: brows, lips and highlights are none of the light.
    """
    basis, values = harmonics(normals).astype(np.float64), np.log(colours + FLOOR).astype(np.float64)
    weight = weights.astype(np.float64)
    solution = np.zeros((9, 3))
    for _ in range(3):
        weighed = basis * weight[:, None]
        prior = np.diag(_PRIOR * max(weight.sum(), 1.0))
        # The prior pulls towards a plain mean, not towards black.
        mean = (weight @ values) / max(weight.sum(), 1e-9)
        solution = np.linalg.solve(weighed.T @ basis + prior, weighed.T @ (values - mean))
        solution[0] += mean
        left = np.abs(values - basis @ solution).mean(axis=1)
        weight = weights / (1 + (left / _OUTLIER) ** 4)
    return np.asarray(solution, np.float32)


def gain(source: F32, source_normals: F32, target: F32, normals: F32) -> F32:
    """Logarithm of what turns the source's light into the target's, [..., 3], from two fits."""
    difference = harmonics(normals) @ target - harmonics(source_normals) @ source
    return np.asarray(np.clip(difference, -_MOST, _MOST), np.float32)


def smooth_rest(rest: F32, weights: F32, sigma: float) -> F32:
    """What a fit has left between two pictures, logarithms [rows, columns, 3], smoothed over ``sigma`` cells.

    Weights [rows, columns] say where it can be known. A cast shadow or a cheek's red has no normal of its own.
    """
    plain = weights / (1 + (np.abs(rest).mean(axis=2) / _OUTLIER) ** 4)
    below = cv2.GaussianBlur(plain, (0, 0), sigma) + 1e-3
    above = cv2.GaussianBlur(rest * plain[..., None], (0, 0), sigma)
    return np.asarray(above / below[..., None], np.float32)
