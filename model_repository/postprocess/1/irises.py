"""What a photograph shows of the eyes: the colours of iris and white, and whether they look past the camera.

An eye is some twenty pixels wide in most photographs, and the decoded shape is off by one or two millimetres there.
Colours are medians over what lies between the decoded lids; a gaze counts only where both eyes say the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from head import F32, Head
from numpy.typing import NDArray

U8 = NDArray[np.uint8]

# Corners and lids in iBUG-68: of the person's left eye (+x), then of the right one.
_OUTLINES = (range(42, 48), range(36, 42))
_IRIS_DM = 0.0585  # radius: irises of adults are 11.7 mm wide
_TURNED_DM = 0.105  # from the middle of an eyeball to its iris
# Each eye is looked at in a patch in which an iris has this radius, in pixels; patch columns and rows.
_RADIUS, _PATCH = 5.0, (54, 34)
# An iris is that much darker than what lies beside it, in grey levels, where it counts as found.
_CONTRAST = 22.0
# Both eyes turn by the same, up to the first; past the camera by more than the second and less than the third.
_AGREE_DEGREES, _ASIDE_DEGREES, _FARTHEST_DEGREES = 9.0, 13.0, 32.0
# sRGB: without a photograph, and the range of what is believed of one.
BROWN, SCLERA = (92, 62, 44), (205, 198, 192)
_DARKEST, _LIGHTEST = 34.0, 150.0
_WHITES = (0.62, 1.04)  # of `SCLERA`
_FEWEST = 14  # pixels that a median is taken of


@dataclass(frozen=True)
class Irises:
    """Colours and gaze of both eyes.

    Attributes:
        iris, white: sRGB 0..255.
        sideways: degrees by which both eyes are turned to the right of the picture, off the camera's axis; None where
            it is not known, or where they look into the camera.
    """

    iris: tuple[int, int, int] = BROWN
    white: tuple[int, int, int] = SCLERA
    sideways: float | None = None


@dataclass(frozen=True)
class _Eye:
    """One eye in its patch.

    Attributes:
        patch: float32 [rows, cols, 3] RGB.
        open: float32 [rows, cols], 1 between the lids.
        at: column and row of the iris.
        contrast: grey levels by which it is darker than its surroundings.
        sideways: degrees by which the eye is turned to the right of the picture, off the camera's axis.
        camera: degrees by which one has to turn it to look into the camera.
    """

    patch: F32
    open: F32
    at: tuple[float, float]
    contrast: float
    sideways: float
    camera: float


def measure_eyes(head: Head, posed: F32, context: F32, crop: U8) -> Irises:
    """Measure the eyes of a photograph.

    Args:
        head: what the shape is of.
        posed: float32 [N, 3], decimetres, camera frame.
        context: float32 [23], the face and the cameras of both crops.
        crop: uint8 [3, 512, 512], the larger crop.
    """
    pixels = np.asarray(cv2.merge(list(crop)), np.uint8)
    eyes = [_eye(head, posed, context, pixels, side) for side in range(2)]
    found = [eye for eye in eyes if eye is not None and eye.contrast > _CONTRAST]
    if not found:
        return Irises()
    iris, white = _colours(found)
    return Irises(iris, white, _sideways(found))


def _eye(head: Head, posed: F32, context: F32, pixels: U8, side: int) -> _Eye | None:
    """Measure one eye in ``pixels`` [512, 512, 3]; None where the photograph ends or the lids are closed."""
    centre, _ = head.eye(posed, side)
    scale, origin = _crop_pixels(context)
    middle = _project(centre + np.array([0, 0, _TURNED_DM], np.float32)) * scale + origin
    per_dm = 1015.0 / (10 - float(centre[2]) - _TURNED_DM) * float(scale[0])
    zoom = _RADIUS / (_IRIS_DM * per_dm)
    cols, rows = _PATCH
    move = np.array([[zoom, 0, cols / 2 - zoom * middle[0]], [0, zoom, rows / 2 - zoom * middle[1]]], np.float32)
    inside = (middle > 8).all() and (middle < len(pixels) - 8).all()
    if not inside:
        return None
    how = cv2.INTER_AREA if zoom < 1 else cv2.INTER_LINEAR
    patch = cv2.warpAffine(pixels, move, _PATCH, flags=how).astype(np.float32)
    outline = (_project(posed[head.landmarks[list(_OUTLINES[side])]]) * scale + origin) @ move[:, :2].T + move[:, 2]
    mask = np.zeros((rows, cols), np.uint8)
    cv2.fillPoly(mask, [np.rint(outline * 16).astype(np.int32)], (1,), shift=4)
    if int(mask.sum()) < 3 * _FEWEST:
        return None
    opened = mask.astype(np.float32)
    at, contrast = _darkest_disk(patch.mean(axis=2), opened)
    sideways = np.clip((at[0] - cols / 2) / zoom / per_dm / _TURNED_DM, -0.9, 0.9)
    camera = np.degrees(np.arctan2(-float(centre[0]), 10 - float(centre[2])))
    return _Eye(patch, opened, at, contrast, float(np.degrees(np.arcsin(sideways))), float(camera))


def _darkest_disk(grey: F32, opened: F32) -> tuple[tuple[float, float], float]:
    """Find the disk of an iris's size that is darkest against its surroundings: column, row, and by how much."""
    disk, ring = _kernels()
    sums = [
        cv2.filter2D(image, -1, kernel, borderType=cv2.BORDER_CONSTANT)
        for kernel in (disk, ring)
        for image in (grey * opened, opened)
    ]
    dark, dark_area, light, light_area = sums
    score = light / np.maximum(light_area, 1) - dark / np.maximum(dark_area, 1)
    cols = grey.shape[1]
    aside = np.abs(np.arange(cols) - cols / 2)[None] / _RADIUS
    score -= 6 * aside  # straight ahead where the picture does not say
    score[(dark_area < 0.35 * disk.sum()) | (light_area < 12)] = -1e3
    score[:, aside[0] > 1.5] = -1e3
    row, column = np.unravel_index(int(score.argmax()), score.shape)
    return (float(column), float(row)), float(score.max())


@cache
def _kernels() -> tuple[F32, F32]:
    """Return disk and ring, each 1 where it counts: of an iris, and of what lies around it."""
    reach = int(_RADIUS * 1.7) + 1
    axis = np.arange(-reach, reach + 1, dtype=np.float32)
    distance = np.hypot(*np.meshgrid(axis, axis))
    disk = (distance <= 0.92 * _RADIUS).astype(np.float32)
    ring = ((distance > 1.12 * _RADIUS) & (distance <= 1.7 * _RADIUS)).astype(np.float32)
    return disk, ring


def _colours(eyes: list[_Eye]) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Measure the colours of iris and white."""
    irises, whites = [], []
    for eye in eyes:
        rows, cols = np.indices(eye.open.shape)
        distance = np.hypot(cols - eye.at[0], rows - eye.at[1]) / _RADIUS
        kept = eye.open > 0
        irises.append(eye.patch[kept & (distance > 0.42) & (distance < 0.86)])
        whites.append(eye.patch[kept & (distance > 1.25)])
    iris, white = np.concatenate(irises), np.concatenate(whites)
    return _median(_darker(iris, 75.0), BROWN, _DARKEST, _LIGHTEST), _white(white)


def _darker(pixels: F32, share: float) -> F32:
    """Select the pixels that are no highlight."""
    grey = pixels.mean(axis=1)
    return pixels[grey <= _percentile(grey, share)] if len(pixels) else pixels


def _percentile(values: F32, share: float) -> F32:
    """As NumPy's along the first axis, in a tenth of its time for so few values."""
    ordered, at = np.sort(values, axis=0), share / 100 * (len(values) - 1)
    low, high = ordered[int(at)], ordered[min(int(at) + 1, len(values) - 1)]
    return np.asarray(low + (high - low) * np.float32(at - int(at)))


def _median(pixels: F32, otherwise: tuple[int, int, int], low: float, high: float) -> tuple[int, int, int]:
    if len(pixels) < _FEWEST:
        return otherwise
    colour = _percentile(pixels, 50)
    colour *= np.clip(colour.mean(), low, high) / max(colour.mean(), 1)
    red, green, blue = np.clip(colour, 0, 255).astype(int).tolist()
    return red, green, blue


def _white(pixels: F32) -> tuple[int, int, int]:
    """Return `SCLERA` as bright as the photograph's, with a part of its tint."""
    if len(pixels) < _FEWEST:
        return SCLERA
    usual = np.array(SCLERA, np.float32)
    bright = _percentile(pixels, 80)
    strength = np.clip(bright.mean() / usual.mean(), *_WHITES)
    tint = bright / max(float(bright.mean()), 1) * usual.mean()
    red, green, blue = np.clip(strength * (0.6 * usual + 0.4 * tint), 0, 255).astype(int).tolist()
    return red, green, blue


def _sideways(eyes: list[_Eye]) -> float | None:
    """Return where both eyes look, if they agree and look past the camera."""
    if len(eyes) < 2:
        return None
    turned = (eyes[0].sideways + eyes[1].sideways) / 2
    aside = abs(turned - (eyes[0].camera + eyes[1].camera) / 2)
    agree = abs(eyes[0].sideways - eyes[1].sideways) <= _AGREE_DEGREES
    return turned if agree and _ASIDE_DEGREES < aside < _FARTHEST_DEGREES else None


def _project(points: F32) -> F32:
    """Project camera frame [..., 3] to column and row in the 224 crop."""
    depth = 10 - points[..., 2]
    column, row = 1015 * points[..., 0] / depth + 112, 111 - 1015 * points[..., 1] / depth
    return np.asarray(np.stack([column, row], axis=-1), np.float32)


def _crop_pixels(context: F32) -> tuple[F32, F32]:
    """Return scale and offset from pixels of the 224 crop to those of the 512 crop."""
    small, large = context[15:19], context[19:23]
    return small[:2] / large[:2], (small[2:] - large[2:]) / large[:2]
