"""Light and tone apart from features, and how a face passes from one photograph's into the other's.

Spherical harmonics over the normals say how each photograph is lit. The logarithm of a colour is taken apart into its
lightness, the mean over the channels, and its hue, the rest. Of the lightness nine harmonics are fitted (Ramamoorthi
and Hanrahan 2001 show that nine suffice for matt surfaces), of the hue the mean and, firmly held back, the first order:
light has few colours. What a fit leaves is smoothed and added, which makes the *base* of a picture. A face goes over
from its own base to the target's; its features stay.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from channels import mean_of, unit
from drawing import Window
from numpy.typing import NDArray

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

# Levels that are added before a logarithm is taken: between a logarithm, in which light and skin are factors, and what
# an eye sees, to which differences in the dark mean less.
FLOOR = 28.0
# Weight of the prior that a harmonic is absent, by its degree, in shares of the cells: where few normals are seen, the
# higher harmonics would run away outside of them. For lightness, and for hue.
_PRIOR = np.array([1e-6, 5e-3, 5e-3, 5e-3, 3e-2, 3e-2, 3e-2, 3e-2, 3e-2])
_HUE_PRIOR = np.array([1e-6, 0.3, 0.3, 0.3, 1e6, 1e6, 1e6, 1e6, 1e6])
# Logarithms of a ratio to the base from which on a colour is none of plain skin: a brow, a lip, a highlight. Features
# are darker than skin: brows, lashes, nostrils, lips, beards. What is brighter is a highlight, and light.
_OUTLIER, _HUE_OUTLIER = 0.2, 0.3
_DARK, _BRIGHT = 0.15, 0.6
# Shares of the face's side over which what a fit has left is smoothed.
_SMOOTH_LIGHTNESS, _SMOOTH_HUE = 0.1, 0.045
# Longest side, in cells, at which a base is looked for: it has nothing finer.
_COARSE = 80
# Cells below which nothing can be fitted.
_FEWEST = 60
# Logarithms of the largest gains, of lightness and of hue.
_MOST, _MOST_HUE = 1.6, 0.45
# Share of a gain's logarithm by which contrasts become weaker. What is brighter than the base is reflected by the
# skin's surface and hardly knows its tone: on dark skin it stands out more, and taken over in full it would burn out on
# light skin. What is darker is shade and pigment; in a dark picture also its noise.
_SHINE, _SHADE = 1.1, 0.1
# The same for the hue: what little colour dark skin's shades have is the light's, and the sensor's noise.
_TINT = 0.8
_MOST_SHINE = 1.5
# How quickly the hue of what is brighter than the base fades, over the logarithm by which it is.
_PALE = 5.0
# Level from which on whites are held back.
_SHOULDER = 225.0


def harmonics(normals: F32) -> F32:
    """The nine real harmonics up to degree two, not normalised, of unit normals [..., 3]: [..., 9]."""
    x, y, z = np.moveaxis(normals, -1, 0)
    terms = [np.ones_like(x), x, y, z - 0.8, x * y, y * z, x * z, x * x - y * y, 3 * z * z - 2]
    return np.asarray(np.stack(terms, axis=-1), np.float32)


def logarithms(colours: F32) -> F32:
    """Logarithms of colours 0..255; the ratios of two pictures become differences."""
    raised = np.maximum(colours, np.float32(0))
    raised += np.float32(FLOOR)
    return np.asarray(cv2.log(raised, raised), np.float32)


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


def base(logs: F32, normals: F32, weights: F32) -> F32:
    """The light and the tone of a picture without its features, logarithms [rows, columns, 3] like ``logs``.

    Lightness is smoothed over so much of the face that no feature comes through; the hue of skin hardly differs within
    a face, so that it is taken from nearby, and a highlight without one gets it back.

    Args:
        logs: logarithms of colours.
        normals: unit [rows, columns, 3].
        weights: [rows, columns] 0..1, where skin is seen.
    """
    rows, columns = weights.shape
    by = _COARSE / max(rows, columns)
    if by >= 1:
        return _base(logs, normals, weights)
    small = (max(1, round(columns * by)), max(1, round(rows * by)))
    logs, normals, weights = (
        np.asarray(cv2.resize(part, small, interpolation=cv2.INTER_AREA), np.float32)
        for part in (logs, normals, weights)
    )
    found = _base(logs, unit(normals), weights)
    return np.asarray(cv2.resize(found, (columns, rows), interpolation=cv2.INTER_LINEAR), np.float32)


def _base(logs: F32, normals: F32, weights: F32) -> F32:
    """The same at one resolution."""
    chosen = weights > 0.05
    if np.count_nonzero(chosen) < _FEWEST:
        return np.broadcast_to(logs.reshape(-1, 3).mean(axis=0), logs.shape).astype(np.float32)
    sparse = chosen & (np.indices(chosen.shape).sum(axis=0) % 3 == 0)  # neighbours say the same
    fitted = harmonics(normals) @ fit(logs[sparse], normals[sparse], weights[sparse])
    rest = logs - fitted
    lightness = mean_of(rest)[..., None]
    dark, bright = np.maximum(-lightness[..., 0], 0), np.maximum(lightness[..., 0], 0)
    side = max(weights.shape)
    plain = weights / (1 + (dark / _DARK) ** 4 + (bright / _BRIGHT) ** 4)
    smooth = _smoothed(lightness, plain, _SMOOTH_LIGHTNESS * side)
    hue = rest - lightness
    alike = weights / (1 + (mean_of(np.abs(hue)) / _HUE_OUTLIER) ** 4)
    smooth_hue = _smoothed(hue, alike, _SMOOTH_HUE * side)
    return np.asarray(fitted + np.clip(smooth, -0.6, 0.6) + np.clip(smooth_hue, -0.4, 0.4), np.float32)


def bounded(logs: F32, lightness: float = _MOST, hue: float = _MOST_HUE) -> F32:
    """Hold the logarithms of a ratio [rows, columns, 3] within bounds, for lightness and for hue."""
    mean = mean_of(logs)[..., None]
    return np.asarray(np.clip(mean, -lightness, lightness) + np.clip(logs - mean, -hue, hue), np.float32)


@dataclass(frozen=True)
class Passage:
    """The way of a face from its own base to another.

    Attributes:
        own, goal: float32 [rows, columns, 3], the bases, logarithms.
        shade, shine: float32 [rows, columns], by what a difference of lightness to the base is multiplied, of what is
            darker and of what is brighter.
        tint: likewise, by what a difference of hue is.
    """

    own: F32
    goal: F32
    shade: F32
    tint: F32
    shine: F32

    @classmethod
    def between(cls, own: F32, goal: F32) -> Passage:
        """Make the way between two bases, logarithms [rows, columns, 3]."""
        gain = mean_of(goal - own)
        shade, tint = (np.asarray(np.exp(-power * np.maximum(gain, 0)), np.float32) for power in (_SHADE, _TINT))
        return cls(own, goal, shade, tint, np.minimum(np.exp(-_SHINE * gain), _MOST_SHINE))

    def of(self, colours: F32) -> F32:
        """Take colours 0..255, [rows, columns, 3], over."""
        detail = logarithms(colours)
        detail -= self.own
        lightness = mean_of(detail)
        brighter = np.maximum(lightness, 0)
        # Where a photograph is nearly white, its hue is that of the sensor's limit and not of the skin.
        hue = np.maximum(1 - _PALE * brighter, 0) * self.tint
        change = np.minimum(lightness, 0) * self.shade + brighter * self.shine - lightness * hue
        detail *= cv2.merge((hue,) * 3)
        detail += cv2.merge((change,) * 3)
        detail += self.goal
        cv2.exp(detail, detail)
        detail -= np.float32(FLOOR)
        return detail

    def enlarged(self, window: Window) -> Passage:
        """The same at the picture's resolution."""
        return Passage(*(window.enlarged(part) for part in (self.own, self.goal, self.shade, self.tint, self.shine)))


def held_back(colours: F32) -> F32:
    """Colours of which those that would be brighter than white only come near to it."""
    bright = colours > _SHOULDER
    if not bright.any():
        return colours
    over = colours[bright] - _SHOULDER
    room = 255 - _SHOULDER
    colours[bright] = _SHOULDER + room * over / (over + room)
    return colours


def _solved(basis: F64, values: F64, weight: F64, prior: F64) -> F64:
    weighed = basis * weight[:, None]
    solution = np.linalg.solve(weighed.T @ basis + np.diag(prior * max(weight.sum(), 1.0)), weighed.T @ values)
    return np.asarray(solution, np.float64)


def _smoothed(rest: F32, weights: F32, sigma: float) -> F32:
    below = blurred(weights, sigma) + 1e-2
    above = blurred(rest * weights[..., None], sigma)
    return np.asarray(above.reshape(rest.shape) / below[..., None], np.float32)


def blurred(values: F32, sigma: float) -> F32:
    """A wide Gaussian by three boxes, whose time does not grow with its width."""
    side = 2 * max(1, round(sigma * 0.97)) + 1  # three boxes of side w have the variance (w * w - 1) / 4
    for _ in range(3):
        values = np.asarray(cv2.blur(values, (side, side), borderType=cv2.BORDER_REFLECT_101), np.float32)
    return values
