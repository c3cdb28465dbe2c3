"""Colours of what a photograph does not show well: eyeballs, teeth, the inside of the mouth.

Viewers have no light that is kept out by lips and lids, so the darkness between them is painted on.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from head import F32, Head
from numpy.typing import NDArray

U8 = NDArray[np.uint8]

# sRGB.
TEETH, MOUTH = (206, 198, 183), (112, 52, 50)
# Side of an eyeball's picture.
EYE_SIDE = 192
# Of the iris's radius: the pupil, and where the dark rim of the iris begins.
_PUPIL, _RIM = 0.36, 0.80
_PUPIL_COLOUR = (9, 8, 8)
# Cosines of the angles, seen from an eyeball's middle, from the nearest lid within which an eyeball lies in the shade.
_SHADE_DEGREES = (1.0, 13.0)
_DEEPEST_SHADE = 0.42
# Depth in the mouth, decimetres behind the lips, at which teeth and gums begin and cease to get light.
_LIT, _UNLIT = 0.04, 0.42
_LEAST_LIGHT = 0.16


def eye_picture(iris_radius: float, iris: tuple[int, int, int], white: tuple[int, int, int]) -> U8:
    """Draw an eyeball: white of the eye, iris with fibres and a dark rim, pupil.

    Args:
        iris_radius: as a share of the picture's side.
        iris, white: sRGB 0..255, the mean colour of the iris, and of the white.

    Returns:
        uint8 [EYE_SIDE, EYE_SIDE, 3] RGB.
    """
    own, outside, rest = _eye_shares(iris_radius)
    # Plane by plane: runtimes are slow where the innermost axis is three long.
    planes = [
        own * np.float32(i) + outside * np.float32(w) + more for i, w, more in zip(iris, white, rest, strict=True)
    ]
    return np.asarray(cv2.merge([plane.clip(0, 255).astype(np.uint8) for plane in planes]), np.uint8)


@lru_cache(maxsize=2)
def _eye_shares(iris_radius: float) -> tuple[F32, F32, F32]:
    """Compute factors of the colours of iris and white, [side, side] each, and what is added, [3, side, side]."""
    radius, fibres, veins = _eye_fields(iris_radius)
    # Lighter around the pupil, darker toward the rim, as irises are.
    inside = fibres * (1.28 - 0.42 * radius) * (1 - 0.62 * _smoothstep(radius, _RIM, 1.0))
    white, seen = _smoothstep(radius, 0.94, 1.10), _smoothstep(radius, _PUPIL - 0.05, _PUPIL + 0.05)
    own, outside = inside * (1 - white) * seen, white * seen
    redness = (veins * outside)[..., None] * np.array([4, -14, -13], np.float32)
    rest = redness + (1 - seen)[..., None] * np.array(_PUPIL_COLOUR, np.float32) + 0.5
    rest = np.ascontiguousarray(rest.transpose(2, 0, 1), np.float32)
    return own.astype(np.float32), outside.astype(np.float32), rest


def _eye_fields(iris_radius: float) -> tuple[F32, F32, F32]:
    """Compute the distance from the middle in radii of the iris, brightness of its fibres, redness of the white."""
    axis = ((np.arange(EYE_SIDE) + 0.5) / EYE_SIDE - 0.5).astype(np.float32)
    x, y = np.meshgrid(axis, axis)
    radius = np.hypot(x, y) / np.float32(iris_radius)
    rng = np.random.default_rng(18)
    # Fibres run along the radius: noise in polar coordinates, stretched along it.
    polar = cv2.GaussianBlur(rng.standard_normal((24, 360)).astype(np.float32), (0, 0), sigmaX=1.1, sigmaY=3.0)
    polar = np.concatenate([polar, polar[:, :2]], axis=1) / polar.std()
    angle = (np.arctan2(y, x) / (2 * np.pi) + 0.5) * 360
    fibres = cv2.remap(
        polar, angle.astype(np.float32), np.clip(radius * 23, 0, 23).astype(np.float32), cv2.INTER_LINEAR
    )
    cloud = cv2.GaussianBlur(rng.standard_normal((EYE_SIDE, EYE_SIDE)).astype(np.float32), (0, 0), 9)
    veins = np.clip(cloud / cloud.std(), 0, 2) * _smoothstep(radius, 1.2, 2.2)
    return radius, np.asarray(1 + 0.13 * fibres, np.float32), np.asarray(veins, np.float32)


def eye_shade(head: Head, vertices: F32, side: int) -> F32:
    """Compute how much light reaches the vertices of an eyeball, 0..1: less beside and below its lids.

    Args:
        head: what the shape is of.
        vertices: float32 [N, 3], head frame.
        side: 0 the left eye, 1 the right one.
    """
    centre, _ = head.eye(vertices, side)
    ball, lids = vertices[head.eyes[side]] - centre, vertices[head.lids[side]] - centre
    ball, lids = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (ball, lids))
    nearest = np.degrees(np.arccos(np.clip((ball @ lids.T).max(1), -1, 1)))
    return np.asarray(_DEEPEST_SHADE + (1 - _DEEPEST_SHADE) * _smoothstep(nearest, *_SHADE_DEGREES), np.float32)


def mouth_light(head: Head, vertices: F32) -> F32:
    """Compute how much light reaches each vertex of a shape [N, 3], 0..1: less further behind the lips."""
    lips = float(vertices[head.landmarks[[62, 66]], 2].mean())
    dark = _smoothstep(lips - vertices[:, 2], _LIT, _UNLIT)
    return np.asarray(1 - (1 - _LEAST_LIGHT) * dark, np.float32)


def linear(colour: tuple[int, int, int]) -> list[float]:
    """Convert sRGB 0..255 to linear light 0..1, as glTF's factors are."""
    return [round(((c / 255 + 0.055) / 1.055) ** 2.4 if c > 10 else c / 255 / 12.92, 5) for c in colour]


def _smoothstep(x: F32, low: float, high: float) -> F32:
    t = np.clip((x - low) / (high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), np.float32)
