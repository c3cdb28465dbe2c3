"""What lies over a face, by the parser's parts in regions of it, and which of it the texture shows all the same."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import glasses
import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]

CROP = 224  # pixels a side of the crop whose parts are known
SKIN, HAIR, OTHER = range(3)
# Share of a region from which on something counts as lying over it: a mask over mouth and chin, and over the cheeks
# beside the nose, where a beard that was not recognised does not reach; anything else, or hair, over what is above the
# mouth. Of 330 portraits without a cover the largest shares are 0.53, 0.2, 0.13 and 0.06.
MASK, MASKED_CHEEKS, THING, STRANDS = 0.55, 0.45, 0.18, 0.08
# How far the tip of the nose lies beside the middle, as a share of the eyes' own distance from there, from which on the
# face counts as turned, some 35 degrees: what the shape misses of its far outline would be taken for a cover.
TURNED = 0.9
# How much of a texel the camera has to see for it to belong to the face as it is shown.
FACING = 0.35
# Share of both eyes' surroundings from which on they are dark glasses.
DARK_GLASSES = 0.3
# Share of the crop's side over which painted hair fades toward its border.
BORDER = 0.08


@dataclass(frozen=True)
class Regions:
    """Regions of a face in its crop, each float32 [s, s], 0..1, s as of the parser's parts.

    Their frame is that of the five points: the origin between the eyes, the unit from there to between the corners of
    the mouth, u along the eyes and v down.

    Attributes:
        eyes: around the eye on the left and on the right of the picture.
        band: where glasses are, with what holds them beside the eyes.
        lower: mouth and chin.
        cheeks: beside and below the nose.
        upper: from above the brows to the mouth.
        scalp: above the eyes, and as far down beside them as temples reach.
        points: float64 [5, 2], the face's points in the crop.
        turned: the face is turned far to the side.
    """

    eyes: tuple[F32, F32]
    band: F32
    lower: F32
    cheeks: F32
    upper: F32
    scalp: F32
    points: NDArray[np.float64]
    turned: bool

    @classmethod
    def of(cls, context: F32, places: F32, side: int) -> Regions:
        """Lay out the regions of a face in a crop of ``side`` x ``side`` pixels, as far as the head is seen there.

        Args:
            context: float32 [23].
            places: float32 [4, t, t] of the texture network.
            side: of the parser's parts.
        """
        points = (points_in(context, 15) + 0.5) * (side / CROP) - 0.5
        eyes, mouth = points[:2].mean(axis=0), points[3:].mean(axis=0)
        down = (mouth - eyes) / max(float(np.sum((mouth - eyes) ** 2)), 1e-6)
        across = np.array([down[1], -down[0]])
        columns, rows = (np.arange(side) - at for at in eyes)
        u, v = (np.asarray(columns * axis[0] + rows[:, None] * axis[1], np.float32) for axis in (across, down))
        apart = float((points[1] - points[0]) @ across)
        nose = float((points[2] - eyes) @ across)
        half = max(apart / 2, 0.2)

        head = _outline(places, side)

        def oval(at: float, height: float, wide: float, high: float) -> F32:
            x, y = (u - np.float32(at)) * np.float32(1 / wide), (v - np.float32(height)) * np.float32(1 / high)
            return np.asarray(head * (x * x + y * y < 1), np.float32)

        # The middle of a turned face lies between its eyes and the side that is seen.
        middle = oval(0.15 * nose, 0.45, 1.35 * half, 0.92)
        return cls(
            eyes=(oval(-half, 0.02, 0.30, 0.26), oval(half, 0.02, 0.30, 0.26)),
            band=np.asarray(head * (np.abs(v - 0.03) < 0.42) * (np.abs(u) < half + 0.5), np.float32),
            lower=oval(0.4 * nose, 1.05, 0.9 * half, 0.38),
            cheeks=oval(0.4 * nose, 0.66, 0.85 * half, 0.14),
            upper=np.asarray(middle * (v < 0.6), np.float32),
            scalp=np.clip((0.15 - v) / 0.25, 0, 1).astype(np.float32),
            points=points,
            turned=abs(nose) > TURNED * half,
        )


@dataclass(frozen=True)
class Covers:
    """What covers a face.

    Attributes:
        kinds: of ``glasses``, ``mask``, ``thing``, ``hair``.
        glasses: float32 [512, 512], 0..1, where frames and dark lenses are in the large crop.
    """

    kinds: tuple[str, ...]
    glasses: F32


def _outline(places: F32, side: int) -> F32:
    """Where the camera sees the head's skin in the crop, a little inside of its outline: float32 [s, s], 0 or 1."""
    facing = np.flatnonzero(places[2] > FACING)
    columns, rows = (
        np.rint((plane.ravel()[facing] + np.float32(0.5)) * np.float32(side / CROP) - np.float32(0.5))
        for plane in places[:2]
    )
    inside = (columns >= 0) & (columns < side) & (rows >= 0) & (rows < side)
    shown = np.zeros((side, side), np.uint8)
    shown[rows[inside].astype(np.intp), columns[inside].astype(np.intp)] = 1
    closed = cv2.morphologyEx(shown, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
    return np.asarray(cv2.erode(closed, np.ones((3, 3), np.uint8)), np.float32)


def points_in(context: F32, camera: int) -> NDArray[np.float64]:
    """The five points of a face (context float32 [23]) in the crop whose camera begins at an index: float64 [5, 2]."""
    points = context[5:15].astype(np.float64).reshape(5, 2)
    scale, origin = context[camera : camera + 4].astype(np.float64).reshape(2, 2)
    return np.asarray((points - origin) / scale, np.float64)


def covers_of(parts: U8, regions: Regions, context: F32, crop_hd: U8) -> Covers:
    """Name what covers a face; of a turned one nothing, as that has a warning of its own.

    Args:
        parts: uint8 [3, s, s] of the parser.
        regions: of the face in the same pixels.
        context: float32 [23].
        crop_hd: uint8 [3, 512, 512] RGB.
    """
    if regions.turned:
        return Covers((), np.zeros(crop_hd.shape[1:], np.float32))
    hair, other = parts[HAIR].astype(np.float32) / 255, parts[OTHER].astype(np.float32) / 255
    luma = cv2.cvtColor(cv2.merge(list(crop_hd)), cv2.COLOR_RGB2GRAY)
    points = points_in(context, 19)
    dark = min(_share(other, eye) for eye in regions.eyes) > DARK_GLASSES
    worn = dark or glasses.are_worn(luma, points, other, regions.points)
    kinds = ["glasses"] if worn else []
    masked = _share(other, regions.lower) > MASK and _share(other, regions.cheeks) > MASKED_CHEEKS
    bare = regions.upper * (1 - regions.band * worn)
    if masked:
        kinds.append("mask")
    elif _share(other, bare) > THING:
        kinds.append("thing")
    if _share(hair, bare) > STRANDS:
        kinds.append("hair")
    where = np.zeros(luma.shape, np.float32)
    if worn:
        distance = float(np.linalg.norm(points[3:].mean(axis=0) - points[:2].mean(axis=0)))
        marked, bare = (
            cv2.resize(np.asarray(part, np.float32), luma.shape[::-1])
            for part in ((other > 0.4) * regions.band, regions.band * np.clip(1.2 - 2 * hair, 0, 1))
        )
        where = np.asarray(np.maximum(glasses.frames(luma, distance, np.asarray(bare, np.float32)), marked), np.float32)
    return Covers(tuple(kinds), where)


def scalp_hair(parts: U8, regions: Regions) -> F32:
    """Where the photograph shows hair of the scalp: float32 [s, s], 0..1, a little inside of its outline."""
    hair = (parts[HAIR].astype(np.float32) / 255 > 0.5).astype(np.float32)
    inside = cv2.erode(hair, np.ones((3, 3), np.uint8))
    # Toward the border of the crop it fades: what lies beyond is not known.
    at = np.minimum(np.arange(len(hair)), np.arange(len(hair))[::-1]) / (BORDER * len(hair))
    fade = np.clip(np.minimum(at[:, None], at[None]), 0, 1) ** 2
    return np.asarray(cv2.GaussianBlur(inside, (0, 0), 1.0) * regions.scalp * fade, np.float32)


def _share(values: F32, region: F32) -> float:
    """Mean of the values in a region."""
    return float((values * region).sum() / max(float(region.sum()), 1e-6))
