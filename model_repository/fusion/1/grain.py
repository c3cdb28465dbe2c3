"""Gives the drawn face the sharpness and the grain of the target's photograph."""

from __future__ import annotations

import itertools
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]

# Gaussians (deviation in pixels) that a face which is sharper than the target is tried with.
_BLURS = (0.5, 0.7, 0.9, 1.2, 1.6, 2.1, 2.8)
# Share of the face's finest edges that says how sharp it is: skin has none, lashes and lids have.
_EDGES = 95.0
# Strongest sharpening, and the largest difference in sharpness that is left alone.
_MOST_SHARPENING, _ALIKE = 0.8, 1.08
# Median absolute deviation of a normal distribution -> its standard deviation; gain of the filter on white noise.
_MAD, _GAIN = 1.4826, 0.85
_SEED = 7
# Pixels of a side of the grain, which is repeated: over more than a face, hardly anything is.
_TILE = 512
# Pixels of a side that are looked at: a face's sharpness is the same all over.
PATCH = 256
# Every how manieth pixel of it a percentile is taken of, which it then says to a hundredth.
_THINNED = 3


def sharpness(grey: F32, weight: NDArray[np.bool_]) -> float:
    """Strength of the finest edges of a picture [h, w] where ``weight`` says, for that of those of twice their width.

    Not the strength alone: dark lashes and brows are stronger than fair ones, however sharp the picture.
    """
    if not weight.any():
        return 0.0
    levels = [np.asarray(cv2.GaussianBlur(grey, (0, 0), s), np.float32) for s in (0.8, 1.6, 3.2)]
    fine, wide = (np.abs(a - b)[weight][::_THINNED] for a, b in itertools.pairwise(levels))
    return float(np.percentile(fine, _EDGES) / max(float(np.percentile(wide, _EDGES)), 0.5))


def noise(grey: F32, weight: NDArray[np.bool_]) -> float:
    """Standard deviation of the grain of a picture [h, w]: of what is finer than its edges, in its flat half."""
    if not weight.any():
        return 0.0
    fine = (grey - cv2.GaussianBlur(grey, (0, 0), 1.0))[weight]
    return float(_MAD * np.median(np.abs(fine[::_THINNED])) / _GAIN)


def matched(face: F32, target: F32, weight: NDArray[np.bool_]) -> F32:
    """Blur or sharpen a face [h, w, 3], and add grain, until it is like the target [h, w, 3] where ``weight`` says."""
    part = _patch(weight)
    if part is None:
        return face
    weight = weight[part]
    grey, wanted = (_grey(picture[part]) for picture in (face, target))
    goal = sharpness(wanted, weight)
    own = sharpness(grey, weight)
    if own > goal * _ALIKE and goal > 0:
        sigma = next((s for s in _BLURS if sharpness(_blurred(grey, s), weight) <= goal * _ALIKE), _BLURS[-1])
        face = np.asarray(cv2.GaussianBlur(face, (0, 0), sigma), np.float32)
    elif own * _ALIKE < goal and own > 0:
        amount = min(_MOST_SHARPENING, goal / own - 1)
        face = np.asarray(face + amount * (face - cv2.GaussianBlur(face, (0, 0), 1.2)), np.float32)
    grey = _grey(face[part])
    missing = noise(wanted, weight) ** 2 - noise(grey, weight) ** 2
    if missing > 0.05:
        rows, columns = face.shape[:2]
        grain = np.tile(_grain(), (-(-rows // _TILE), -(-columns // _TILE)))[:rows, :columns] * np.float32(missing**0.5)
        face = np.asarray(cv2.add(face, cv2.merge((grain,) * 3)), np.float32)
    return face


@lru_cache(maxsize=1)
def _grain() -> F32:
    """Grain of a deviation of 1, blurred as a sensor does it, float32 [_TILE, _TILE]; the same for each picture."""
    white = np.random.default_rng(_SEED).standard_normal((_TILE, _TILE), np.float32)
    return np.asarray(cv2.GaussianBlur(white, (0, 0), 0.5, borderType=cv2.BORDER_REFLECT) * 1.6, np.float32)


def _grey(picture: F32) -> F32:
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2GRAY), np.float32)


def _patch(weight: NDArray[np.bool_]) -> tuple[slice, slice] | None:
    """The middle of what is marked, at most PATCH pixels a side; None where nothing is."""
    rows, columns = np.flatnonzero(weight.any(axis=1)), np.flatnonzero(weight.any(axis=0))
    if not len(rows):
        return None
    sides = []
    for marked in (rows, columns):
        middle, half = int(marked[0] + marked[-1]) // 2, min(PATCH, int(marked[-1] - marked[0]) + 1) // 2 + 1
        sides.append(slice(max(0, middle - half), middle + half))
    return sides[0], sides[1]


def _blurred(grey: F32, sigma: float) -> F32:
    return np.asarray(cv2.GaussianBlur(grey, (0, 0), sigma), np.float32)
