"""Puts the source's face onto the target's picture."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from beside import beside
from blending import blend
from drawing import draw
from effort import Effort
from enhancement import enhanced_source
from enhancing import Enhance
from fusion_light import logarithms
from fusion_options import Options
from grain import matched
from masks import SKIN, an_eye_is_hidden, bare_skin, face_of, folds_of, hidden_skin, kept_openings, lips_of
from numpy.typing import NDArray
from pasting import pasted, surroundings
from photographs import Photograph
from region import Region
from relighting import Shown, relit
from rim import disagreeing
from sampling import Skin, fetch, seen_of, share_of, skin_of
from shape import fused_shape, mouths_apart

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]

# Where two mouths differ in expression: how much of the shades beside the mouth becomes the target's.
TAKEN = 0.7


class Fused(NamedTuple):
    """The result.

    Attributes:
        pixels: uint8 [h, w, 3], the target's picture with the source's face.
        mask: uint8 [h, w], how much of each pixel is new; where it is 0, the pixel is the target's to the bit.
        effort: which way was gone.
    """

    pixels: U8
    mask: U8
    effort: Effort


def fuse(
    source: Photograph, skin: Skin, target: Photograph, region: Region, options: Options, enhance: Enhance
) -> Fused:
    """Draw the source's face into the target's picture.

    Args:
        source: whose face; its photograph.
        skin: the source's texture.
        target: the picture.
        region: the face model's part that is drawn.
        options: of the request.
        enhance: asks the model of that name; called only where it is asked for.
    """
    if options.enhance:
        source = enhanced_source(source, target, region, enhance)
    effort = Effort.of(options.quality_mode, source, target, region)
    posed = fused_shape(source.shapes, target.shapes, region, options.shape)
    drawing = draw(region, posed, source, target, effort.cells)
    window = drawing.window
    here = surroundings(target.pixels, window)
    over, (bare, clear, under) = beside(
        lambda: skin_of(source, skin, drawing),
        lambda: (
            bare_skin(target, drawing, here if effort.refine else None),
            1 - hidden_skin(source, drawing),
            fetch(target.pixels, window.enlarged(drawing.target)) if options.shape else here,
        ),
    )
    shown = Shown(seen_of(skin, drawing), window.reduced(bare) * share_of(target, SKIN, drawing.target), clear)
    apart = mouths_apart(source, target, region) if options.mouth == "target" else 0.0
    lit = relit(over, under, shown, TAKEN * apart * folds_of(drawing), drawing)
    face = face_of(drawing) * clear
    difference = logarithms(window.reduced(lit)) - logarithms(window.reduced(under))
    other = disagreeing(difference, drawing.inside * clear * window.reduced(bare), shown.source, drawing)
    mask = window.enlarged(face * (1 - other)) * bare
    lit = matched(lit, under, _middle(mask))
    mixed = blend(lit, under, mask, effort.levels)
    eyes = "target" if an_eye_is_hidden(drawing, shown.source * clear) else options.eyes
    # Put back after the bands were mixed: a hole in their masks would thin out brows and lids around it.
    kept = kept_openings(drawing, eyes == "target", options.mouth == "target")
    kept = window.enlarged(np.maximum(kept, apart * lips_of(drawing)))
    mixed = np.asarray(cv2.blendLinear(under, mixed, kept, 1 - kept), np.float32)
    pixels, changed = pasted(target.pixels, mixed, here, mask, drawing)
    return Fused(pixels, changed, effort)


def _middle(mask: F32) -> NDArray[np.bool_]:
    """Where only the source's face is seen."""
    return np.asarray(cv2.erode((mask > 0.9).astype(np.uint8), np.ones((5, 5), np.uint8)) > 0)
