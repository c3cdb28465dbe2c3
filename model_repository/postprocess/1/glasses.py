"""Glasses on a photograph: whether there are any, and where their frames are.

The parser marks dark lenses and thick frames, but hardly a thin one. What all glasses have is a bar across the bridge
of the nose, where skin has no edge from one side to the other.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]

# The part of the face that is looked at, in distances from the eyes to the mouth: left, right, top and bottom, from the
# middle between the eyes; and pixels of such a distance.
WINDOW, FINE = (-0.9, 0.9, -0.5, 0.5), 90
# The bridge in the window: to each side, above and below.
BRIDGE = (0.09, 0.28, 0.17)
# Edge across the bridge as a share of the skin's brightness, from which on it is that of glasses; and where the parser
# sees something there as well.
SURE_EDGE, EDGE, MARKED = 0.25, 0.15, 0.12
# Frames: widest line in such distances, and how far it differs from its surroundings in the logarithm of brightness.
THICKEST, CONTRAST = 0.11, (0.10, 0.22)
_LEVELS = 256  # steps of a brightness of 8 bits in one of 16


def window_of(picture: NDArray[np.generic], points: NDArray[np.float64]) -> F32:
    """Sample the window around the eyes, upright.

    Args:
        picture: [h, w], any number.
        points: float64 [5, 2], the face's points in its pixels.

    Returns:
        float32 [90, 162].
    """
    eyes, down = points[:2].mean(axis=0), points[3:].mean(axis=0) - points[:2].mean(axis=0)
    across = np.array([down[1], -down[0]])
    left, right, top, bottom = WINDOW
    u = np.arange(left, right, 1 / FINE) + 0.5 / FINE
    v = np.arange(top, bottom, 1 / FINE)[:, None] + 0.5 / FINE
    columns, rows = (np.asarray(eye + u * x + v * y, np.float32) for eye, x, y in zip(eyes, across, down, strict=True))
    # As floats only what the window lies in, and a pixel around it.
    (top, bottom), (left, right) = (_bounds(at, side) for at, side in zip((rows, columns), picture.shape, strict=True))
    pixels = picture[top:bottom, left:right].astype(np.float32)
    return np.asarray(cv2.remap(pixels, columns - left, rows - top, cv2.INTER_LINEAR), np.float32)


def _bounds(at: F32, side: int) -> tuple[int, int]:
    """First and past the last of the pixels, of ``side``, between which places are interpolated; at least one."""
    first = min(max(int(at.min()) - 1, 0), side - 1)
    return first, min(max(int(at.max()) + 3, first + 1), side)


def are_worn(luma: U8, points: NDArray[np.float64], other: F32, other_points: NDArray[np.float64]) -> bool:
    """Whether a face wears glasses.

    Args:
        luma: uint8 [h, w], brightness of a crop.
        points: float64 [5, 2], the face's points in it.
        other: float32 [s, s], 0..1, what the parser takes for neither skin nor hair.
        other_points: the same points in that.
    """
    seen, marked = window_of(luma, points), window_of(other, other_points)
    edge = np.abs(cv2.Sobel(cv2.GaussianBlur(seen, (0, 0), 0.8), cv2.CV_32F, 0, 1, scale=0.25))
    middle, above = round(-WINDOW[0] * FINE), -WINDOW[2]
    beside, up, down = BRIDGE
    columns = slice(middle - round(beside * FINE), middle + round(beside * FINE))
    rows = slice(round((above - up) * FINE), round((above + down) * FINE))
    strongest = float(edge[rows, columns].mean(axis=1).max() / (np.median(seen) + 10))
    there = float(marked[rows, columns].mean(axis=1).max())
    return strongest > SURE_EDGE or (strongest > EDGE and there > MARKED)


def frames(luma: U8, distance: float, allowed: F32) -> F32:
    """Thin lines of a picture, dark or bright, as far as they are allowed: float32 [h, w], 0..1.

    Args:
        luma: uint8 [h, w], brightness.
        distance: pixels from the eyes to the mouth.
        allowed: float32 [h, w], 0..1, by which lines are multiplied.
    """
    found = np.zeros(luma.shape, np.float32)
    inside = allowed > 0
    if not inside.any():
        return found
    side = 2 * max(1, round(THICKEST * distance / 2)) + 1
    # Lines are looked for around what is allowed only: a closing reads twice the disk's radius beyond, its blur four.
    beyond = side + 4
    rows, columns = (_around(np.flatnonzero(inside.any(axis=axis)), beyond) for axis in (1, 0))
    smooth = cv2.GaussianBlur(luma[rows, columns].astype(np.uint16) * _LEVELS, (0, 0), 1.0)
    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    # Logarithms keep the order, so that they may as well be taken of what closing and opening give of whole numbers,
    # which takes half of the time.
    opened, here, closed = (
        np.log(part.astype(np.float32) + np.float32(8 * _LEVELS))
        for part in (
            cv2.morphologyEx(smooth, cv2.MORPH_OPEN, disk), smooth, cv2.morphologyEx(smooth, cv2.MORPH_CLOSE, disk)
        )
    )  # fmt: skip
    lines = np.maximum(closed - here, here - opened)
    low, high = CONTRAST
    found[rows, columns] = np.clip((lines - low) / (high - low), 0, 1) * allowed[rows, columns]
    return found


def _around(used: NDArray[np.intp], beyond: int) -> slice:
    """From before the first to past the last of the places."""
    return slice(max(0, int(used[0]) - beyond), int(used[-1]) + 1 + beyond)
