"""Where the fusion replaces the target: the face that is drawn, without what covers it in the target's photograph."""

from __future__ import annotations

import cv2
import numpy as np
from drawing import Drawing
from numpy.typing import NDArray
from photographs import Photograph
from sampling import share_of

F32 = NDArray[np.float32]

SKIN, HAIR = 0, 1  # of the parser's parts
# Probability of skin, below the first of which something lies before the face, and from the second on nothing.
COVERED, BARE = 0.35, 0.7
# Cosine between normal and view over which the drawing fades at its outline: there a photograph shows a blur of face
# and background.
FLAT, FACING = 0.12, 0.35
# Guided filter (He and Sun 2015): radius in shares of the face's width, and variance of grey (0..1) below which
# the guide counts as flat.
GUIDE_RADIUS, GUIDE_FLAT = 0.03, 2e-4
# How far, in shares of the face's width, the openings of eyes and mouth are widened where they stay the target's:
# lashes and the lids' rims belong to them.
EYE_RIM, MOUTH_RIM = 0.022, 0.008
# Probability of hair between which it counts as such; its rim, likewise; and how evenly it is on both sides of a beard.
HAIRY, HAIR_RIM, BEARD = (0.35, 0.65), 0.02, 0.4


def smoothstep(x: F32, low: float, high: float) -> F32:
    """0 below ``low``, 1 above ``high``, smooth between them."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), np.float32)


def guided(values: F32, guide: F32, fine: F32, radius: int) -> F32:
    """Let a map follow the edges of a picture: the fast guided filter (He and Sun 2015).

    Args:
        values: float32 [rows, columns] 0..1.
        guide: float32 [rows, columns] 0..1, grey.
        fine: float32 [height, width], the guide at a resolution of its own, that of the result.
        radius: of the filter, cells.
    """
    size = (2 * radius + 1,) * 2

    def mean(of: F32) -> F32:
        return np.asarray(cv2.blur(of, size), np.float32)

    middle, value = mean(guide), mean(values)
    slope = (mean(guide * values) - middle * value) / (mean(guide * guide) - middle * middle + GUIDE_FLAT)
    offset = mean(value - slope * middle)
    full = fine.shape[::-1]
    scale, shift = (cv2.resize(part, full, interpolation=cv2.INTER_LINEAR) for part in (mean(slope), offset))
    return np.asarray(scale * fine + shift, np.float32)


def bare_skin(target: Photograph, drawing: Drawing, picture: F32 | None) -> F32:
    """Where nothing covers the target's face, 0..1, at the target's resolution [height, width].

    Args:
        target: the photograph with its parts.
        drawing: the window.
        picture: float32 [height, width, 3] 0..255, along whose edges it is cut; None for the parser's own.
    """
    window = drawing.window
    places = window.centres().reshape(window.rows, window.columns, 2)
    skin = share_of(target, SKIN, places)
    if picture is None:
        return window.enlarged(smoothstep(skin, COVERED, BARE))
    grey = np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), np.float32) / 255
    radius = max(2, round(GUIDE_RADIUS * max(skin.shape)))
    return smoothstep(guided(skin, window.reduced(grey), grey, radius), COVERED, BARE)


def face_of(drawing: Drawing, keep_eyes: bool, keep_mouth: bool) -> F32:
    """The drawn face, 0..1, cells [rows, columns]; without the target's eyes and mouth where these are kept."""
    face = drawing.inside * smoothstep(drawing.facing, FLAT, FACING)
    for keep, opening, rim in ((keep_eyes, drawing.eyes, EYE_RIM), (keep_mouth, drawing.mouth, MOUTH_RIM)):
        if keep and opening.any():
            face = face * (1 - widened(opening, rim))
        elif not keep:
            face = np.maximum(face, widened(opening, 0) * (drawing.inside > 0.5))
    return np.asarray(face, np.float32)


def hair_before(source: Photograph, drawing: Drawing) -> F32:
    """Where hair hangs before the source's face, 0..1, cells [rows, columns]: there the target's skin is the better.

    A beard is hair as well, but it belongs to the face: it grows on both sides of it.
    """
    face = drawing.skin * (drawing.inside > 0)
    hair = smoothstep(share_of(source, HAIR, drawing.source), *HAIRY) * face
    left = drawing.uv[..., 0] < 0.5
    shares = [float((hair * half).sum() / max((face * half).sum(), 1.0)) for half in (left, ~left)]
    if min(shares) > BEARD * max(shares):
        return np.zeros_like(hair)
    return np.minimum(widened(hair, HAIR_RIM) * 1.5, 1)


def widened(opening: F32, rim: float) -> F32:
    """An opening, cells [rows, columns] 0..1, widened by a share of the window and soft at its edge."""
    reach = rim * max(opening.shape)
    if reach >= 0.5:
        side = 2 * round(reach) + 1
        opening = np.asarray(
            cv2.dilate(opening, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))), np.float32
        )
    return np.asarray(cv2.GaussianBlur(opening, (0, 0), max(0.7, reach / 2)), np.float32)
