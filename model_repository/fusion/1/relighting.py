"""Puts the source's skin into the light of the target's photograph, and lets it meet the target at the border."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import fusion_light as light
import numpy as np
from beside import beside
from blending import membrane
from channels import mean_of
from contrast import correction
from drawing import Drawing
from masks import EYE_RIM, lips_of, near_eyes, smoothstep, widened
from numpy.typing import NDArray

F32 = NDArray[np.float32]

# Shares of the face's side: how far around the face its border's colours are looked at, and how far from the border
# the middle of the face begins, where nothing is corrected.
RING, MIDDLE = 1 / 30, 1 / 6
# How firmly the middle holds against the border.
HELD = 0.5
# How much of the difference between two lights is followed: at least `FOLLOWED` of it, as the shading of a face is its
# shape's as well, by which it is known, and all of it from a spread (logarithms) of `STRONG` on, where a face that kept
# its own light would be seen to be from elsewhere.
FOLLOWED, STRONG = 0.2, 0.5
# How far eyes and lids keep their contrast, by which a person is known.
SPARED = 0.6
# Cells of eyes below which their light is the skin's.
FEWEST = 12
# Share of the skins' difference in hue that is the light's, and so the eyes'.
HUE_OF_LIGHT = 0.5
# Logarithms by which lightness and hue are corrected at the border, at most: what differs by more is no skin.
EDGE_LIGHTNESS, EDGE_HUE = 0.55, 0.15
# Logarithms by which skin may be darker and brighter than the target's over a breadth of `BROAD` (a deviation, shares
# of the face's side): what differs by more is hard light, stubble or a shade of the source's, and is taken away. Nose,
# nostrils and creases are narrower, and are what a person is known by.
DARKER, BRIGHTER, BROAD = 0.2, 0.12, 0.06
# The share of that from which lips are spared, and the share of the face's side over which it is smoothed.
SPARED_LIPS, SMOOTH = 0.6, 0.006


class Shown(NamedTuple):
    """What both photographs show of a face, cells [rows, columns] 0..1.

    Attributes:
        source: where the source's photograph shows skin.
        target: where the target's does.
        clear: where no hair and no glasses lie before the source's face.
    """

    source: F32
    target: F32
    clear: F32


def relit(over: F32, under: F32, shown: Shown, taken: F32, drawing: Drawing) -> F32:
    """Take the source's skin from its light and tone to the target's.

    Args:
        over: float32 [height, width, 3] 0..255, the source's skin in the drawing's window.
        under: the target's picture there, brought to the shape of the drawing.
        shown: which of their cells are skin.
        taken: float32 [rows, columns] 0..1, where the target's shades take the place of the source's.
        drawing: normals, and where the face is.
    """
    window = drawing.window
    own, wanted = window.reduced(over), window.reduced(under)
    both = (
        shown.source
        * shown.clear
        * shown.target
        * drawing.skin
        * smoothstep(drawing.facing, 0.1, 0.4)
        * (drawing.inside > 0)
    )
    first, second = beside(
        lambda: light.base(light.logarithms(own), drawing.source_normals, both),
        lambda: light.base(light.logarithms(wanted), drawing.normals, both),
    )
    gain = light.bounded(_followed(second - first, both))
    passed = light.logarithms(light.Passage.between(first, first + gain).of(own))
    rest = light.bounded(light.logarithms(wanted) - passed, EDGE_LIGHTNESS, EDGE_HUE)
    edge, middle = _border(drawing, shown.target * shown.clear)
    last = membrane(rest * edge[..., None], edge + middle)
    change = gain + last
    change = change + correction(passed + last, light.logarithms(wanted), both, taken, SPARED * near_eyes(drawing))
    change = change - _too_different(passed + change - gain - light.logarithms(wanted), shown, drawing)[..., None]
    change = _with_eyes(change, light.logarithms(wanted) - light.logarithms(own), shown, drawing)
    passage = light.Passage.between(first, first + change).enlarged(window)
    return light.held_back(passage.of(over))


def _followed(gain: F32, weights: F32) -> F32:
    """Hold the way between two lights nearer to its mean, so that a face keeps of its own shading.

    Args:
        gain: float32 [rows, columns, 3], logarithms.
        weights: float32 [rows, columns] 0..1, where both are known.
    """
    total = float(weights.sum())
    if total <= 0:
        return gain
    lightness = mean_of(gain)
    middle = float((lightness * weights).sum()) / total
    apart = lightness - middle
    spread = float(np.sqrt((apart * apart * weights).sum() / total))
    share = min(max(spread / STRONG, FOLLOWED), 1.0)
    return np.asarray(gain - (1 - share) * apart[..., None], np.float32)


def _too_different(difference: F32, shown: Shown, drawing: Drawing) -> F32:
    """What to take from the drawn skin's lightness where it is far from the target's: logarithms, [rows, columns].

    Args:
        difference: float32 [rows, columns, 3], logarithms of the drawn face for those of the target.
        shown: where the target's face is not covered.
        drawing: where lips are, which differ as people do.
    """
    side = max(difference.shape)
    lightness = np.asarray(cv2.GaussianBlur(mean_of(difference), (0, 0), BROAD * side), np.float32)
    left = lightness - np.clip(lightness, -DARKER, BRIGHTER)
    where = shown.target * shown.clear * drawing.skin * (drawing.inside > 0)
    where = where * (1 - SPARED_LIPS * lips_of(drawing))
    return np.asarray(cv2.GaussianBlur(left * where, (0, 0), SMOOTH * side), np.float32)


def _with_eyes(change: F32, difference: F32, shown: Shown, drawing: Drawing) -> F32:
    """Give the eyes a gain of their own: the white of an eye is as bright in a dark face as in a fair one.

    Args:
        change: float32 [rows, columns, 3], logarithms, of skin.
        difference: of the two pictures.
        shown: where the target's face is not covered.
        drawing: where eyes are.
    """
    eyes = (drawing.eyes * shown.target * shown.clear) > 0.5
    if np.count_nonzero(eyes) < FEWEST:
        return change
    skin = change[eyes].mean(axis=0)
    lightness = float(skin.mean())
    # Irises differ in tone as skins do: the median over whites, irises and lashes, and no more than the skin's gain.
    own = float(np.median(difference[eyes].mean(axis=1)))
    gain = np.clip(own, min(lightness, 0), max(lightness, 0)) + HUE_OF_LIGHT * (skin - lightness)
    share = widened(drawing.eyes, EYE_RIM)[..., None]
    return np.asarray(change + share * (gain - change), np.float32)


def _border(drawing: Drawing, bare: F32) -> tuple[F32, F32]:
    """Cells around the face's border where both pictures show skin, and those of its middle, 0..1."""
    side = max(drawing.inside.shape)
    face = (drawing.inside > 0).astype(np.uint8)
    around = cv2.dilate(face, np.ones((2 * round(side * RING) + 1,) * 2, np.uint8))
    edge = bare * drawing.skin * smoothstep(drawing.facing, 0.05, 0.25)
    edge = edge * (1 - smoothstep(drawing.inside, 0.2, 0.7)) * around
    middle = cv2.erode(around, np.ones((2 * round(side * MIDDLE) + 1,) * 2, np.uint8))
    return np.asarray(edge, np.float32), np.asarray(HELD * middle, np.float32)
