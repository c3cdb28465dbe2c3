"""Gives the drawn face the target's local contrast, band by band.

Hard light, a skin that is made lighter, and a smile leave shades in the source's face that are narrower than its base
(fusion_light.py) and wider than a feature: sockets, folds, shine, and what is blue or red in them. Their strength is
held to the target's (the local energies of Shih et al. 2014, "Style transfer for headshot portraits"), downwards only.
Where the two expressions differ, the target's bands take the source's place.
"""

from __future__ import annotations

import itertools

import cv2
import numpy as np
from beside import beside
from channels import mean_of
from fusion_light import blurred
from numpy.typing import NDArray

F32 = NDArray[np.float32]

# Deviations of the Gaussians between which the bands lie, shares of the face's side.
SCALES = (0.025, 0.05, 0.09, 0.15)
# Deviation over which a correction fades where skin ends, likewise.
FADE = 0.012
# Deviation of the neighbourhood whose energy counts, in those of the band.
AROUND = 2.5
# Least gain of a band, of lightness and of hue, and the energies (squares of logarithms) that are left alone.
LEAST, CALM = np.array([0.35, 0.2], np.float32), np.array([3e-4, 3e-5], np.float32)
# Cells of a deviation above which three boxes are as good as a Gaussian, and faster.
WIDE = 3.0
# Longest side, in cells, at which the bands are taken apart.
COARSE = 80


def correction(own: F32, wanted: F32, weights: F32, taken: F32, spared: F32) -> F32:
    """Return what to add to the logarithms of the drawn face, float32 [rows, columns, 3].

    Args:
        own, wanted: float32 [rows, columns, 3], logarithms of the drawn face in the target's light, and of the target,
            brought to the same shape.
        weights: float32 [rows, columns] 0..1, where both show skin.
        taken: float32 [rows, columns] 0..1, how far the target's bands take the place of the source's.
        spared: float32 [rows, columns] 0..1, how far the source's features keep their strength.
    """
    rows, columns = weights.shape
    by = COARSE / max(rows, columns)
    if by >= 1:
        return _correction(own, wanted, weights, taken, spared)
    size = (max(1, round(columns * by)), max(1, round(rows * by)))
    parts = (cv2.resize(part, size, interpolation=cv2.INTER_AREA) for part in (own, wanted, weights, taken, spared))
    found = _correction(*(np.asarray(part, np.float32) for part in parts))
    return np.asarray(cv2.resize(found, (columns, rows), interpolation=cv2.INTER_LINEAR), np.float32)


def _correction(own: F32, wanted: F32, weights: F32, taken: F32, spared: F32) -> F32:
    """The same at one resolution."""
    side = max(weights.shape)
    total = np.zeros_like(own)
    levels = beside(lambda: _levels(own, weights, side), lambda: _levels(wanted, weights, side))
    for scale, (fine, wide), (fine_wanted, wide_wanted) in zip(
        SCALES[1:], itertools.pairwise(levels[0]), itertools.pairwise(levels[1]), strict=True
    ):
        band, goal = fine - wide, fine_wanted - wide_wanted
        lightness, hue = _apart(band)
        energies = np.concatenate([_energies(*_apart(goal)), _energies(lightness, hue)], axis=2)
        wanted_energies, own_energies = np.split(_mean(energies, weights, AROUND * scale * side), 2, axis=2)
        gains = np.clip(np.sqrt((wanted_energies + CALM) / (own_energies + CALM)), LEAST, 1)
        gains += spared[..., None] * (1 - gains)
        matched = gains[..., :1] * lightness + gains[..., 1:] * hue
        total += matched + taken[..., None] * (goal - matched) - band
    return np.asarray(total * cv2.GaussianBlur(weights, (0, 0), FADE * side)[..., None], np.float32)


def _apart(logs: F32) -> tuple[F32, F32]:
    """Lightness [rows, columns, 1] and hue [rows, columns, 3]."""
    lightness = mean_of(logs)[..., None]
    return lightness, logs - lightness


def _energies(lightness: F32, hue: F32) -> F32:
    """Squares of both, [rows, columns, 2]."""
    return np.asarray(cv2.merge([lightness[..., 0] ** 2, mean_of(hue * hue)]), np.float32)


def _levels(values: F32, weights: F32, side: int) -> list[F32]:
    return [_mean(values, weights, scale * side) for scale in SCALES]


def _mean(values: F32, weights: F32, sigma: float) -> F32:
    """Weighted means of [rows, columns, ...] over a Gaussian, or three boxes where it is wide."""
    known = np.concatenate([values * weights[..., None], weights[..., None]], axis=2)
    spread = blurred(known, sigma) if sigma > WIDE else np.asarray(cv2.GaussianBlur(known, (0, 0), sigma), np.float32)
    return np.asarray(spread[..., :-1] / (spread[..., -1:] + np.float32(1e-3)), np.float32)
