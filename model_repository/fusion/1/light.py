"""Light apart from skin: spherical harmonics over the normals say how each photograph is lit.

The logarithm of a colour is taken apart into its lightness, the mean over the channels, and its hue, the rest. Of the
lightness nine harmonics are fitted (Ramamoorthi and Hanrahan 2001 show that nine suffice for matt surfaces), of the hue
the mean and, firmly held back, the first order: light has few colours. The difference of two such fits is a smooth gain
that turns the source's light and tone into the target's. It knows normals only, so that no feature of either face can
pass through it.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

# Levels that are added before a logarithm is taken: noise in shadows has no meaning.
FLOOR = 12.0
# Weight of the prior that a harmonic is absent, by its degree, in shares of the cells: where few normals are seen, the
# higher harmonics would run away outside of them. For lightness, and for hue.
_PRIOR = np.array([1e-6, 5e-3, 5e-3, 5e-3, 3e-2, 3e-2, 3e-2, 3e-2, 3e-2])
_HUE_PRIOR = np.array([1e-6, 0.3, 0.3, 0.3, 1e6, 1e6, 1e6, 1e6, 1e6])
# Logarithms of a ratio from which on a colour is none of plain skin: a brow, a lip, a highlight.
_OUTLIER = 0.2
_HUE_OUTLIER = 0.3
_DARK, _BRIGHT = 0.12, 0.6
# Shares of the face's side over which what a fit has left is smoothed.
SMOOTH_LIGHTNESS, SMOOTH_HUE = 0.05, 0.045
# Cells below which nothing can be fitted.
_FEWEST = 60
# Share of a gain's logarithm by which details become flatter; level from which on whites are held back.
_FLATTER, _SHOULDER = 0.6, 215.0
_MOST = 1.6  # logarithm of the largest gain
_MOST_HUE = 0.35


def harmonics(normals: F32) -> F32:
    """The nine real harmonics up to degree two, not normalised, of unit normals [..., 3]: [..., 9]."""
    x, y, z = np.moveaxis(normals, -1, 0)
    terms = [np.ones_like(x), x, y, z - 0.8, x * y, y * z, x * z, x * x - y * y, 3 * z * z - 2]
    return np.asarray(np.stack(terms, axis=-1), np.float32)


def logarithms(colours: F32) -> F32:
    """Logarithms of colours 0..255; the ratios of two pictures become differences."""
    return np.asarray(np.log(np.maximum(colours, 0) + FLOOR), np.float32)


def fit(logs: F32, normals: F32, weights: F32) -> F32:
    """Fit harmonics to the logarithms of colours [n, 3] with weights [n]: [9, 3].

    Three rounds, each without what the one before has left over: brows, lips and highlights are none of the light.
    """
    basis, values, weight = harmonics(normals).astype(np.float64), logs.astype(np.float64), weights.astype(np.float64)
    solution = np.zeros((9, 3))
    for _ in range(3):
        lightness = values.mean(axis=1, keepdims=True)
        solution = _solved(basis, lightness, weight, _PRIOR) + _solved(basis, values - lightness, weight, _HUE_PRIOR)
        left = np.abs(values - basis @ solution).mean(axis=1)
        weight = weights / (1 + (left / _OUTLIER) ** 4)
    return np.asarray(solution, np.float32)


def _solved(basis: F64, values: F64, weight: F64, prior: F64) -> F64:
    weighed = basis * weight[:, None]
    solution = np.linalg.solve(weighed.T @ basis + np.diag(prior * max(weight.sum(), 1.0)), weighed.T @ values)
    return np.asarray(solution, np.float64)


def bounded(logs: F32, lightness: float = _MOST, hue: float = _MOST_HUE) -> F32:
    """Hold the logarithms of a ratio [..., 3] within bounds, for lightness and for hue."""
    mean = logs.mean(axis=-1, keepdims=True)
    return np.asarray(np.clip(mean, -lightness, lightness) + np.clip(logs - mean, -hue, hue), np.float32)


def base(logs: F32, normals: F32, weights: F32, side: int) -> F32:
    """The light and the tone of a picture without features, logarithms [rows, columns, 3] like ``logs``.

    A fit over the normals, and what it has left, smoothed: lightness more than hue. A cast shadow or a red cheek has no
    normal of its own. Lightness is smoothed over so much of the face's ``side``, in cells, that no feature comes
    through; the hue of skin hardly differs within a face, so that it is taken from nearby, and a highlight without one
    gets it back.

    Args:
        normals: unit [rows, columns, 3].
        weights: [rows, columns] 0..1, where skin is seen.
    """
    chosen = weights > 0.05
    if np.count_nonzero(chosen) < _FEWEST:
        return np.zeros_like(logs)
    fitted = harmonics(normals) @ fit(logs[chosen], normals[chosen], weights[chosen])
    rest = logs - fitted
    lightness = rest.mean(axis=2, keepdims=True)
    # Features are darker than skin: brows, lashes, nostrils, lips, beards. What is brighter is a highlight, and light.
    dark, bright = np.maximum(-lightness[..., 0], 0), np.maximum(lightness[..., 0], 0)
    plain = weights / (1 + (dark / _DARK) ** 4 + (bright / _BRIGHT) ** 4)
    smooth = _smoothed(lightness, plain, SMOOTH_LIGHTNESS * side)
    hue = rest - lightness
    alike = weights / (1 + (np.abs(hue).mean(axis=2) / _HUE_OUTLIER) ** 4)
    smooth_hue = _smoothed(hue, alike, SMOOTH_HUE * side)
    return np.asarray(fitted + np.clip(smooth, -0.6, 0.6) + np.clip(smooth_hue, -0.4, 0.4), np.float32)


def contrast(gain: F32) -> F32:
    """By what a picture's details, logarithms, are multiplied beside a gain [..., 3]: [..., 1], at most 1.

    Highlights on dark skin differ from it by more than those on light skin can: without this they would burn out.
    """
    return np.asarray(np.exp(-_FLATTER * np.maximum(gain.mean(axis=-1, keepdims=True), 0)), np.float32)


def colours(logs: F32) -> F32:
    """Colours 0..255 of logarithms; what would be brighter than white comes near to it only."""
    values = np.exp(logs) - FLOOR
    over = np.maximum(values - _SHOULDER, 0)
    room = 255 - _SHOULDER
    return np.asarray(np.where(values > _SHOULDER, _SHOULDER + room * (1 - np.exp(-over / room)), values), np.float32)


def _smoothed(rest: F32, weights: F32, sigma: float) -> F32:
    below = cv2.GaussianBlur(weights, (0, 0), sigma) + 1e-2
    above = cv2.GaussianBlur(rest * weights[..., None], (0, 0), sigma)
    return np.asarray(above.reshape(rest.shape) / below[..., None], np.float32)
