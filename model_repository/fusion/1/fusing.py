"""Puts the source's face onto the target's picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import light
import numpy as np
from blending import blend, membrane
from drawing import draw
from fusion_options import Options
from grain import matched
from masks import SKIN, bare_skin, face_of, smoothstep
from numpy.typing import NDArray
from photographs import Photograph
from region import Region
from sampling import fetch, seen_of, share_of, skin_of
from shape import fused_shape

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]


class Fused(NamedTuple):
    """The result.

    Attributes:
        pixels: uint8 [h, w, 3], the target's picture with the source's face.
        mask: uint8 [h, w], how much of each pixel is the source's; where it is 0, the pixel is the target's to the bit.
    """

    pixels: U8
    mask: U8
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Skin:
    """The texture of the source: uint8 [3, 1024, 1024], and uint8 [1, 1024, 1024], 255 where its photograph shows it."""

    texture: U8
    visibility: U8


CELLS = 224
LEVELS = 5


def fuse(source: Photograph, skin: Skin, target: Photograph, region: Region, options: Options) -> Fused:
    posed = fused_shape(source.shapes, target.shapes, region, options.shape)
    drawing = draw(region, posed, source, target, CELLS)
    window = drawing.window
    under = fetch(target.pixels, window.enlarged(drawing.target))
    over = skin_of(source, skin.texture, skin.visibility, drawing)
    here = fetch(target.pixels, window.enlarged(window.centres().reshape(window.rows, window.columns, 2)))
    guide = np.asarray(here.mean(axis=2), np.float32) / 255
    bare = bare_skin(target, drawing, guide)
    face = face_of(drawing, options.eyes == "target", options.mouth == "target")
    mask = window.enlarged(face) * bare
    lit = relit(over, under, face, bare, source, skin, target, drawing)
    sure = cv2.erode((mask > 0.9).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    lit = matched(lit, under, sure)
    mixed = blend(lit, under, mask, LEVELS)
    return finished(target, window, mixed, here, mask, drawing)


def relit(over, under, face, bare, source, skin, target, drawing, debug=None):
    window = drawing.window
    small_over, small_under = light.logarithms(window.reduced(over)), light.logarithms(window.reduced(under))
    seen = seen_of(skin.visibility, drawing) * drawing.skin
    shown = window.reduced(bare) * share_of(target, SKIN, drawing.target) * drawing.skin
    both = seen * shown * smoothstep(drawing.facing, 0.1, 0.4)
    central = both * (drawing.inside > 0)
    side = max(window.rows, window.columns)
    first = light.base(small_over, drawing.source_normals, central, side)
    second = light.base(small_under, drawing.normals, central, side)
    gain = light.bounded(second - first)
    flatter = light.contrast(gain)
    rest = light.bounded(small_under - (first + gain + flatter * (small_over - first)), 0.3, 0.08)
    # Known: at the border what is left between the pictures, in the middle of the face nothing.
    ring = cv2.dilate((drawing.inside > 0).astype(np.uint8), np.ones((2 * (side // 30) + 1,) * 2, np.uint8))
    edge = shown * smoothstep(drawing.facing, 0.05, 0.25) * (1 - smoothstep(drawing.inside, 0.2, 0.7)) * ring
    core = 0.5 * smoothstep(drawing.inside, 0.98, 1.0) * cv2.erode(ring, np.ones((2 * (side // 6) + 1,) * 2, np.uint8))
    last = membrane(np.asarray(rest * edge[..., None], np.float32), np.asarray(edge + core, np.float32))
    if debug is not None:
        debug.update(over=over,under=under,gain=gain,last=last,edge=edge,central=central,seen=seen,shown=shown,bare=bare,face=face)
    # over = first + detail -> second + flatter * detail
    scale, shift = window.enlarged(flatter[..., 0])[..., None], window.enlarged(first * (1 - flatter) + gain + last)
    return light.colours(light.logarithms(over) * scale + shift)


def finished(target: Photograph, window, mixed, here, mask, drawing) -> Fused:
    height, width = target.pixels.shape[:2]
    moved = window.enlarged(np.abs(drawing.target - window.centres().reshape(window.rows, window.columns, 2)).max(2))
    changed = np.maximum(mask, smoothstep(moved, 0.02, 0.3) * (window.enlarged(drawing.inside) > 0))
    soft = np.asarray(cv2.GaussianBlur(changed, (0, 0), max(1.0, max(window.size) / 60)), np.float32)
    soft = smoothstep(soft, 0.02, 0.3)
    result = np.clip(here + soft[..., None] * (mixed - here) + 0.5, 0, 255).astype(np.uint8)
    pixels, full = target.pixels.copy(), np.zeros((height, width), np.uint8)
    x0, y0 = max(0, window.left), max(0, window.top)
    x1, y1 = min(width, window.left + window.size[0]), min(height, window.top + window.size[1])
    part = np.s_[y0 - window.top : y1 - window.top, x0 - window.left : x1 - window.left]
    levels = np.clip(np.ceil(soft * 255), 0, 255).astype(np.uint8)
    where = levels[part][..., None] > 0
    pixels[y0:y1, x0:x1] = np.where(where, result[part], pixels[y0:y1, x0:x1])
    full[y0:y1, x0:x1] = levels[part]
    return Fused(pixels, full)
