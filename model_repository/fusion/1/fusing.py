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


def relit(over, under, face, bare, source, skin, target, drawing):
    window = drawing.window
    small_over, small_under = window.reduced(over), window.reduced(under)
    seen = seen_of(skin.visibility, drawing) * drawing.skin
    shown = window.reduced(bare) * share_of(target, SKIN, drawing.target) * drawing.skin
    both = seen * shown * smoothstep(drawing.facing, 0.1, 0.4)
    central = both * (drawing.inside > 0)
    chosen = central > 0.05
    flat = lambda a: a[chosen]
    first = light.fit(flat(small_over), flat(drawing.source_normals), flat(central))
    second = light.fit(flat(small_under), flat(drawing.normals), flat(central))
    gain = light.gain(first, drawing.source_normals, second, drawing.normals)
    rest = np.log(small_under + light.FLOOR) - np.log(small_over + light.FLOOR) - gain
    sigma = 0.12 * max(window.rows, window.columns)
    gain = gain + light.smooth_rest(rest, central, sigma)
    rest = np.clip(np.log(small_under + light.FLOOR) - np.log(small_over + light.FLOOR) - gain, -0.7, 0.7)
    edge = both * (1 - smoothstep(face * window.reduced(bare), 0.1, 0.6))
    gain = gain + membrane(np.asarray(rest, np.float32), np.asarray(edge, np.float32))
    return np.asarray(
        (over + light.FLOOR) * np.exp(window.enlarged(np.asarray(gain, np.float32))) - light.FLOOR, np.float32
    )


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
