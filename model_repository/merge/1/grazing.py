"""Skin that a photograph shows under a flat angle, which the texture network leaves to its filling.

Of one photograph that is right: what is seen so is smeared, and hair and the background begin there. Of several
photographs one may be the only one to show the skin at all, and then smeared colours are nearer to this person than
made-up ones. They are sampled here from the photograph itself, and taken where they are like the skin beside them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import cv2
import numpy as np
from chart import Chart
from identities import CENTRE, CROP, DISTANCE, FOCAL
from numpy.typing import NDArray

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]

UNSEEN_COSINE, SEEN_COSINE = 0.1, 0.3
"""Cosine between normal and view: below the first a texel is not taken, above the second fully."""
SEEN_DEPTH, HIDDEN_DEPTH = 0.07, 0.14
"""Decimetres behind the nearest surface of its cell up to which a level texel is seen, and from which it is hidden."""
CELL = 2
"""Pixels of the 224 px crop that a cell of the depth buffer is wide."""
PIXEL = DISTANCE / FOCAL
"""Decimetres of the face that a pixel of that crop shows."""
NOT_SKIN, SURE_SKIN, BORDER, ISLAND, ISLAND_SKIN = 0.55, 0.9, 5, 15, (0.4, 0.6)
"""As in the texture network: probabilities of skin; texels around that must be skin too, and in their majority."""
HUE, SHADE = (0.15, 0.35), (0.35, 0.7)
"""How far a colour may lie from that which the filling expects there, as logarithms of a channel's ratio against the
mean of the three, and of that mean: up to the first it is skin, from the second on not."""
LIKE = 3.0
"""Standard deviation in texels of the chart over which colours are compared: pores and spots do not count."""
LEVEL_COSINE, TAKEN = (0.2, 0.6), (0.05, 0.3)
"""Cosines between which the texture network begins to take skin; and the share of what it could have taken nearby that
it took: below the first it found hair or background there, above the second skin."""
NEARBY = 6.0
"""Standard deviation in texels of the chart of that."""


class Photograph(NamedTuple):
    """What is known of a photograph.

    Attributes:
        posed: float32 [N, 3] decimetres, camera frame.
        crop: uint8 [3, 512, 512] RGB, black beyond the photograph.
        cameras: float32 [8]: sx, sy, ox, oy of the 224 px crop, then of the 512 px crop, in source pixels.
        parts: uint8 [3, P, P] of the parser, skin first, over the 224 px crop.
    """

    posed: F32
    crop: U8
    cameras: F32
    parts: U8


def with_grazing(chart: Chart, photograph: Photograph, facing: F32, texture: U8, visibility: U8) -> tuple[U8, U8]:
    """Add what a photograph shows under a flat angle, outside of the middle of the face.

    Args:
        chart: of the skin.
        photograph: see above.
        facing: float32 [T, T], cosine between the skin's normal and the line to the camera.
        texture: uint8 [3, S, S] RGB, whole; where the photograph shows no skin, what the filling expects there.
        visibility: uint8 [1, S, S], 255 where the texture is the photograph's.

    Returns:
        Texture and visibility, likewise.
    """
    side = texture.shape[-1]
    posed = photograph.posed[chart.skin]
    texels = (posed[chart.corners] * chart.bary[..., None]).sum(1).reshape(chart.side, chart.side, 3)
    away = DISTANCE - texels[..., 2:]
    places = FOCAL * texels[..., :2] / away + CENTRE
    places[..., 1] = CROP - 1 - places[..., 1]
    small, small_at, large, large_at = photograph.cameras.reshape(4, 2)
    there = ((places * small + (small_at - large_at)) / large).astype(np.float32)
    column, row = (cv2.resize(there[..., axis], (side, side), interpolation=cv2.INTER_LINEAR) for axis in (0, 1))
    crop = np.ascontiguousarray(photograph.crop.transpose(1, 2, 0))
    colours = cv2.remap(crop, column, row, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT).astype(np.float32)
    whole = np.ascontiguousarray(texture.transpose(1, 2, 0), np.float32)
    before = visibility[0].astype(np.float32) / 255
    shown = unhidden(places, texels[..., 2], facing) * skin(places, photograph.parts)
    seen = shown * _smoothstep(facing, UNSEEN_COSINE, SEEN_COSINE) * (1 - chart.core)
    seen *= like_skin(colours, whole, seen) * taken(shown * _smoothstep(facing, *LEVEL_COSINE), before)
    after = np.maximum(before, cv2.resize(seen, (side, side), interpolation=cv2.INTER_LINEAR))
    # The texture is already the photograph's colour times `before`.
    share = (after - before) / np.maximum(1 - before, 1e-3)
    mixed = whole + (colours - whole) * share[..., None]
    return (
        np.ascontiguousarray((mixed + 0.5).clip(0, 255).astype(np.uint8).transpose(2, 0, 1)),
        (after * 255 + 0.5).astype(np.uint8)[None],
    )


def unhidden(places: F32, depth: F32, facing: F32) -> F32:
    """Tell what lies behind nothing, by a depth buffer of the texels: float32 [T, T], 0 hidden to 1 seen.

    A steep surface varies in depth inside of a cell, and may.

    Args:
        places: float32 [T, T, 2], column and row in the 224 px crop.
        depth: float32 [T, T], the camera frame's z in decimetres, larger nearer.
        facing: float32 [T, T], cosine between normal and view.
    """
    count = CROP // CELL
    cells = np.clip(np.floor(places / CELL), 0, count - 1).astype(np.int64)
    index = (cells[..., 1] * count + cells[..., 0]).ravel()
    nearest = np.full(count * count, -np.inf)
    np.maximum.at(nearest, index, depth.ravel())
    behind = nearest[index].reshape(depth.shape) - depth
    cosine = np.clip(facing, UNSEEN_COSINE, 1)
    steep = CELL * PIXEL * np.sqrt(1 - cosine**2) / cosine
    return 1 - _smoothstep((behind - steep).astype(np.float32), SEEN_DEPTH, HIDDEN_DEPTH)


def skin(places: F32, parts: U8) -> F32:
    """How much of each texel the parser takes for skin: float32 [T, T], 0..1."""
    column, row = ((places[..., axis] + 0.5) * (parts.shape[-1] / CROP) - 0.5 for axis in (0, 1))
    shown = cv2.remap(parts[0], column.astype(np.float32), row.astype(np.float32), cv2.INTER_LINEAR)
    share = np.asarray(shown, np.float32) / 255
    least = cv2.erode(share, np.ones((BORDER, BORDER), np.uint8))
    around = cv2.blur(share, (ISLAND, ISLAND))
    return _smoothstep(least, NOT_SKIN, SURE_SKIN) * _smoothstep(around, *ISLAND_SKIN)


def like_skin(colours: F32, texture: F32, seen: F32) -> F32:
    """How far colours [S, S, 3] are those of a whole texture, where they are seen [T, T]: float32 [T, T], 0..1."""
    size = seen.shape[::-1]
    small, expected = (cv2.resize(one, size, interpolation=cv2.INTER_AREA) for one in (colours, texture))
    known = np.maximum(seen * (small.max(-1) > 0), 1e-3)[..., None].astype(np.float32)
    near = cv2.GaussianBlur(known, (0, 0), LIKE)[..., None]
    mean = cv2.GaussianBlur(small * known, (0, 0), LIKE) / near
    ratio = np.log((mean + 4) / (cv2.GaussianBlur(expected, (0, 0), LIKE) + 4))  # 4 levels: a shadow has no hue
    shade = ratio.mean(-1)
    hue = np.abs(ratio - shade[..., None]).max(-1)
    inside = small.max(-1) > 0
    return np.asarray((1 - _smoothstep(hue, *HUE)) * (1 - _smoothstep(np.abs(shade), *SHADE)) * inside, np.float32)


def taken(could: F32, did: F32) -> F32:
    """How far the texture network took what it could have taken nearby: [T, T] and [S, S] -> float32 [T, T], 0..1."""
    did = np.minimum(cv2.resize(did, could.shape[::-1], interpolation=cv2.INTER_AREA), could)
    near, of = (cv2.GaussianBlur(one, (0, 0), NEARBY) for one in (did, could))
    return _smoothstep((near + 1e-3) / (of + 1e-3), *TAKEN)


def _smoothstep(x: NDArray[Any], low: float, high: float) -> F32:
    t = np.clip((x - low) / (high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), np.float32)
