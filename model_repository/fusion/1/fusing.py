"""Puts the source's face onto the target's picture."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from blending import blend
from drawing import draw
from effort import Effort
from fusion_options import Options
from grain import matched
from masks import SKIN, bare_skin, face_of, hair_before, kept_openings
from numpy.typing import NDArray
from pasting import pasted, surroundings
from photographs import Photograph
from region import Region
from relighting import Shown, relit
from sampling import Skin, fetch, seen_of, share_of, skin_of
from shape import fused_shape

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]


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


def fuse(source: Photograph, skin: Skin, target: Photograph, region: Region, options: Options) -> Fused:
    """Draw the source's face into the target's picture.

    Args:
        source: whose face; its photograph.
        skin: the source's texture.
        target: the picture.
        region: the face model's part that is drawn.
        options: of the request.
    """
    effort = Effort.of(options.quality_mode, source, target, region)
    posed = fused_shape(source.shapes, target.shapes, region, options.shape)
    drawing = draw(region, posed, source, target, effort.cells)
    window = drawing.window
    here = surroundings(target.pixels, window)
    under = fetch(target.pixels, window.enlarged(drawing.target)) if options.shape else here
    over = skin_of(source, skin, drawing)
    bare = bare_skin(target, drawing, here if effort.refine else None)
    clear = 1 - hair_before(source, drawing)
    shown = Shown(seen_of(skin, drawing), window.reduced(bare) * share_of(target, SKIN, drawing.target), clear)
    lit = relit(over, under, shown, drawing)
    mask = window.enlarged(face_of(drawing) * clear) * bare
    lit = matched(lit, under, _middle(mask))
    mixed = blend(lit, under, mask, effort.levels)
    # Put back after the bands were mixed: a hole in their masks would thin out brows and lids around it.
    kept = window.enlarged(kept_openings(drawing, options.eyes == "target", options.mouth == "target"))
    mixed = np.asarray(cv2.blendLinear(under, mixed, kept, 1 - kept), np.float32)
    pixels, changed = pasted(target.pixels, mixed, here, mask, drawing)
    return Fused(pixels, changed, effort)


def _middle(mask: F32) -> NDArray[np.bool_]:
    """Where only the source's face is seen."""
    return np.asarray(cv2.erode((mask > 0.9).astype(np.uint8), np.ones((5, 5), np.uint8)) > 0)
