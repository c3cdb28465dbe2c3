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
EYE_RIM, MOUTH_RIM = 0.01, 0.006
# Share of the face's width around eyes that belongs to them where features are kept.
NEAR_EYES = 0.04
# Share of the skin around an eye that has to be seen.
EYE_SEEN = 0.45
# Shares of the face's side: of the widest frame of glasses, how far frames reach around the eyes, and how far below
# their middle lids end.
FRAME, AROUND_EYES, BELOW_EYES = 0.035, 0.2, 0.05
# By how much the parser's probability of skin is lower along frames: in a tenth of the cells below the eyes where there
# are glasses at all, below the eye of the weaker side (the edge of a hard shadow is on one), and along their lines.
SIGN_OF_FRAMES, ON_BOTH_SIDES, FRAME_LINES = 0.035, 0.012, (0.02, 0.07)
# Probability of hair between which it counts as such, and its rim.
HAIRY, HAIR_RIM = (0.3, 0.6), 0.025
# Units of the texture from the opening between the lips: where lips end, where smiles fold the skin.
LIPS, FOLDS = (0.055, 0.075), (0.1, 0.2)


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
    skin = skin * (1 - frames(skin, drawing))
    if picture is None:
        return window.enlarged(smoothstep(skin, COVERED, BARE))
    grey = np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), np.float32) / 255
    radius = max(2, round(GUIDE_RADIUS * max(skin.shape)))
    return smoothstep(guided(skin, window.reduced(grey), grey, radius), COVERED, BARE)


def face_of(drawing: Drawing) -> F32:
    """The drawn face, eyes and mouth included, 0..1, cells [rows, columns]."""
    openings = widened(np.maximum(drawing.eyes, drawing.mouth), 0) * (drawing.inside > 0.5)
    return np.maximum(drawing.inside * smoothstep(drawing.facing, FLAT, FACING), openings)


def kept_openings(drawing: Drawing, eyes: bool, mouth: bool) -> F32:
    """Where eyes, or the mouth's inside, stay the target's, 0..1, cells [rows, columns]."""
    kept = np.zeros_like(drawing.eyes)
    for keep, opening, rim in ((eyes, drawing.eyes, EYE_RIM), (mouth, drawing.mouth, MOUTH_RIM)):
        if keep and opening.any():
            kept = np.maximum(kept, widened(opening, rim))
    return kept


def an_eye_is_hidden(drawing: Drawing, shown: F32) -> bool:
    """Whether hair or the source's own head hides one of its eyes, so that the two cannot be taken together.

    Args:
        drawing: where eyes are.
        shown: float32 [rows, columns] 0..1, where the source's photograph shows its skin.
    """
    if not drawing.eyes.any():
        return False
    around = near_eyes(drawing) * drawing.skin
    # The texture is symmetric: either eye has a half of its own.
    left = drawing.uv[..., 0] < 0.5
    for half in (around * left, around * ~left):
        if half.any() and float((half * shown).sum()) < EYE_SEEN * float(half.sum()):
            return True
    return False


def near_eyes(drawing: Drawing) -> F32:
    """Eyes, lids and what is around them, 0..1, cells [rows, columns]; by a square, which is quick."""
    reach = NEAR_EYES * max(drawing.eyes.shape)
    side = 2 * round(reach) + 1
    around = cv2.dilate(drawing.eyes, np.ones((side, side), np.uint8))
    return np.asarray(cv2.GaussianBlur(around, (0, 0), max(0.7, reach / 2)), np.float32)


def lips_of(drawing: Drawing) -> F32:
    """The lips and what they open to, 0..1, cells [rows, columns]."""
    lips = 1 - smoothstep(drawing.from_mouth, *LIPS)
    return np.maximum(lips * (drawing.skin > 0) * (drawing.inside > 0), widened(drawing.mouth, 0))


def folds_of(drawing: Drawing) -> F32:
    """Where a smile folds the skin: mouth, cheeks beside it and chin, 0..1, cells [rows, columns]."""
    return 1 - smoothstep(drawing.from_mouth, *FOLDS)


def frames(skin: F32, drawing: Drawing) -> F32:
    """Frames of glasses before a face, cells [rows, columns] 0..1; none where there is no sign of any.

    The parser calls lenses and thin frames skin, but is less sure along the frames: thin lines around the eyes, also
    below them, where no face has any.

    Args:
        skin: float32 [rows, columns], the parser's probability.
        drawing: where the eyes are.
    """
    side = max(skin.shape)
    if not drawing.eyes.any():
        return np.zeros_like(skin)
    width = 2 * round(FRAME * side) + 1
    closed = cv2.morphologyEx(skin, cv2.MORPH_CLOSE, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width)))
    lines = np.asarray(closed, np.float32) - skin
    away = cv2.distanceTransform((drawing.eyes == 0).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    around = away <= AROUND_EYES * side
    middle = float(np.argwhere(drawing.eyes > 0)[:, 0].mean())
    below = around & (drawing.inside > 0.3) & (np.arange(len(skin))[:, None] > middle + BELOW_EYES * side)
    left = drawing.uv[..., 0] < 0.5
    sides = [lines[below & left], lines[below & ~left]]
    if not all(len(side) and np.percentile(side, 90) >= ON_BOTH_SIDES for side in sides):
        return np.zeros_like(skin)
    if np.percentile(lines[below], 90) < SIGN_OF_FRAMES:
        return np.zeros_like(skin)
    return np.asarray(smoothstep(lines, *FRAME_LINES) * around, np.float32)


def hidden_skin(source: Photograph, drawing: Drawing) -> F32:
    """Where hair or glasses lie before the source's face, 0..1, cells [rows, columns]; there the target's skin stays.

    A beard is such hair as well: it would end where the face does. Frames are left out but around the eyes, where brows
    and lids are more of a person than they are of the glasses.
    """
    hair = smoothstep(share_of(source, HAIR, drawing.source), *HAIRY) * drawing.skin * (drawing.inside > 0)
    glasses = frames(share_of(source, SKIN, drawing.source), drawing) * (1 - near_eyes(drawing))
    return np.minimum(widened(np.maximum(hair, glasses), HAIR_RIM) * 1.5, 1)


def widened(opening: F32, rim: float) -> F32:
    """An opening, cells [rows, columns] 0..1, widened by a share of the window and soft at its edge."""
    reach = rim * max(opening.shape)
    if reach >= 0.5:
        side = 2 * round(reach) + 1
        opening = np.asarray(
            cv2.dilate(opening, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))), np.float32
        )
    return np.asarray(cv2.GaussianBlur(opening, (0, 0), max(0.7, reach / 2)), np.float32)
