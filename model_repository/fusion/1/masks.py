"""Where the fusion replaces the target: the face that is drawn, without what covers it in the target's photograph."""

from __future__ import annotations

import cv2
import numpy as np
from drawing import Drawing
from numpy.typing import NDArray
from photographs import Photograph
from sampling import share_of

F32 = NDArray[np.float32]

SKIN, HAIR, OTHER = range(3)
# Probability of skin, below the first of which something lies before the face, and from the second on nothing.
COVERED, BARE = 0.35, 0.7
# Cosine between normal and view over which the drawing fades at its outline: there a photograph shows a blur of face
# and background.
FLAT, FACING = 0.12, 0.35
# Guided filter (He, Sun and Tang 2010): radius in shares of the face's width, and variance of grey (0..1) below which
# the guide counts as flat.
GUIDE_RADIUS, GUIDE_FLAT = 0.03, 2e-4
# How far, in shares of the face's width, the openings of eyes and mouth are widened where they stay the target's: lashes
# and the lids' rims belong to them.
EYE_RIM, MOUTH_RIM = 0.022, 0.008


def smoothstep(x: F32, low: float, high: float) -> F32:
    """0 below ``low``, 1 above ``high``, smooth between them."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), np.float32)


def guided(values: F32, guide: F32, radius: int) -> F32:
    """Let a map follow the edges of a picture of the same size, both float32 [h, w]: a guided filter."""
    size = (2 * radius + 1,) * 2

    def mean(of: F32) -> F32:
        return np.asarray(cv2.blur(of, size), np.float32)

    middle, value = mean(guide), mean(values)
    slope = (mean(guide * values) - middle * value) / (mean(guide * guide) - middle * middle + GUIDE_FLAT)
    offset = value - slope * middle
    return np.asarray(np.clip(mean(slope) * guide + mean(offset), 0, 1), np.float32)


def bare_skin(target: Photograph, drawing: Drawing, guide: F32 | None) -> F32:
    """Where nothing covers the target's face, 0..1, at the target's resolution [height, width].

    Args:
        target: the photograph with its parts.
        drawing: the window.
        guide: float32 [height, width] 0..1, grey: edges are refined by it; None for the parser's own.
    """
    window = drawing.window
    places = window.centres().reshape(window.rows, window.columns, 2)
    skin = share_of(target, SKIN, places)
    if guide is None:
        return window.enlarged(smoothstep(skin, COVERED, BARE))
    radius = max(2, round(GUIDE_RADIUS * max(window.size)))
    return smoothstep(guided(window.enlarged(skin), guide, radius), COVERED, BARE)


def face_of(drawing: Drawing, keep_eyes: bool, keep_mouth: bool) -> F32:
    """The drawn face, 0..1, cells [rows, columns]; without the target's eyes and mouth where these are kept."""
    face = drawing.inside * smoothstep(drawing.facing, FLAT, FACING)
    for keep, opening, rim in ((keep_eyes, drawing.eyes, EYE_RIM), (keep_mouth, drawing.mouth, MOUTH_RIM)):
        if keep and opening.any():
            face = face * (1 - widened(opening, rim))
        elif not keep:
            face = np.maximum(face, widened(opening, 0) * (drawing.inside > 0.5))
    return np.asarray(face, np.float32)


def widened(opening: F32, rim: float) -> F32:
    """An opening, cells [rows, columns] 0..1, widened by a share of the window and soft at its edge."""
    reach = rim * max(opening.shape)
    if reach >= 0.5:
        side = 2 * round(reach) + 1
        opening = np.asarray(
            cv2.dilate(opening, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))), np.float32
        )
    return np.asarray(cv2.GaussianBlur(opening, (0, 0), max(0.7, reach / 2)), np.float32)
