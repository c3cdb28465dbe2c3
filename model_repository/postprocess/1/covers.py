"""What lies over a face, by the parser's parts in regions of it, and which of it the texture shows all the same."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]

CROP = 224  # pixels a side of the crop whose parts are known
SKIN, HAIR, OTHER = range(3)
# Share of a region from which on something counts as lying over it: glasses (both eyes; of the one where a face is
# turned), a mask over mouth and chin, anything else over the middle of the face, hair over it.
GLASSES, MASK, THING, STRANDS = 0.12, 0.55, 0.10, 0.12
# Horizontal place of the middle between the eyes, from one to the other, beyond which a face shows one eye.
TURNED = 0.3


@dataclass(frozen=True)
class Regions:
    """Regions of a face in its crop, each float32 [s, s], 0..1, s as of the parser's parts.

    Their frame is that of the five points: the origin between the eyes, the unit from there to between the corners of
    the mouth, u along the eyes and v down.

    Attributes:
        eyes: around the eye on the left and on the right of the picture.
        band: where glasses are, with what holds them beside the eyes.
        lower: mouth and chin.
        middle: what hair and hands are not on: from above the brows to the chin.
        upper: the middle without mouth and chin, where a beard is.
        scalp: above the eyes, and as far down beside them as temples reach.
        turned: the face shows one eye only.
    """

    eyes: tuple[F32, F32]
    band: F32
    lower: F32
    middle: F32
    upper: F32
    scalp: F32
    turned: bool

    @classmethod
    def of(cls, context: F32, side: int) -> Regions:
        """Lay out the regions of a face (context float32 [23]) in a crop of ``side`` x ``side`` pixels."""
        points = context[5:15].astype(np.float64).reshape(5, 2)
        scale, origin = context[15:17].astype(np.float64), context[17:19].astype(np.float64)
        points = (((points - origin) / scale) + 0.5) * (side / CROP) - 0.5
        eyes, mouth = points[:2].mean(axis=0), points[3:].mean(axis=0)
        down = (mouth - eyes) / max(float(np.sum((mouth - eyes) ** 2)), 1e-6)
        across = np.array([down[1], -down[0]])
        grid = np.stack(np.meshgrid(np.arange(side), np.arange(side)), axis=-1) - eyes
        u, v = grid @ across, grid @ down
        apart = float((points[1] - points[0]) @ across)
        nose = float((points[2] - eyes) @ across)
        half = max(apart / 2, 0.2)

        def oval(at: float, height: float, wide: float, high: float) -> F32:
            return np.asarray(np.hypot((u - at) / wide, (v - height) / high) < 1, np.float32)

        # The middle of a turned face lies between its eyes and the side that is seen.
        middle = oval(0.15 * nose, 0.45, 1.35 * half, 0.92)
        return cls(
            eyes=(oval(-half, 0.02, 0.30, 0.26), oval(half, 0.02, 0.30, 0.26)),
            band=np.asarray((np.abs(v - 0.03) < 0.42) & (np.abs(u) < half + 0.62), np.float32),
            lower=oval(0.4 * nose, 1.05, 0.9 * half, 0.38),
            middle=middle,
            upper=middle * (v < 0.6),
            scalp=np.clip((0.15 - v) / 0.25, 0, 1).astype(np.float32),
            turned=abs(nose) > TURNED * apart,
        )


@dataclass(frozen=True)
class Covers:
    """What covers a face.

    Attributes:
        kinds: of ``glasses``, ``mask``, ``thing``, ``hair``.
        glasses: float32 [s, s], 0..1, where in the crop the glasses are.
    """

    kinds: tuple[str, ...]
    glasses: F32


def covers_of(parts: U8, regions: Regions) -> Covers:
    """Name what covers a face, by the parser's parts uint8 [3, s, s] of its crop."""
    hair, other = parts[HAIR].astype(np.float32) / 255, parts[OTHER].astype(np.float32) / 255
    kinds = []
    masked = _share(other, regions.lower) > MASK
    if masked:
        kinds.append("mask")
    over_eyes = [_share(other, eye) for eye in regions.eyes]
    worn = max(over_eyes) > GLASSES if regions.turned else min(over_eyes) > GLASSES
    if worn:
        kinds.append("glasses")
    rest = regions.middle * (1 - regions.band * worn) * (1 - regions.lower * masked)
    if _share(other, rest) > THING and not masked:
        kinds.append("thing")
    if _share(hair, regions.upper * (1 - regions.band * worn)) > STRANDS:
        kinds.append("hair")
    frames = cv2.dilate((other > 0.4).astype(np.float32), np.ones((3, 3), np.uint8)) * regions.band * worn
    return Covers(tuple(kinds), np.asarray(frames, np.float32))


def scalp_hair(parts: U8, regions: Regions) -> F32:
    """Where the photograph shows hair of the scalp: float32 [s, s], 0..1, a little inside of its outline."""
    hair = (parts[HAIR].astype(np.float32) / 255 > 0.5).astype(np.float32)
    inside = cv2.erode(hair, np.ones((3, 3), np.uint8))
    return np.asarray(cv2.GaussianBlur(inside, (0, 0), 1.0) * regions.scalp, np.float32)


def _share(values: F32, region: F32) -> float:
    """Mean of the values in a region."""
    return float((values * region).sum() / max(float(region.sum()), 1e-6))
