"""The fine relief of skin as a tangent-space normal map, from the fine shading of a texture.

What is darker than its surroundings lies deeper, in pores and wrinkles, whatever the lamps are: that makes a height,
and its slopes a relief. Where light falls along the skin, slopes also show as brightness themselves; they are turned
as far as the light that was fitted asks for to explain it.
"""

from __future__ import annotations

import cv2
import numpy as np
from light import LINEAR, LUMA, Light
from numpy.typing import NDArray
from photograph import Photograph
from texels import Texels

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]

# Side of the largest map; and of the texture that the sizes below are texels of.
LARGEST, USUAL = 2048, 1024
# Widths of the shading that is relief: below the first it is noise, above the second it is the shape's own.
FINEST, COARSEST = 0.8, 7.0
# Height in millimetres of one unit of the logarithm of brightness, and the logarithm that is never exceeded: beyond it
# is a mole or a hair.
MILLIMETRES, STRONGEST = 1.3, 0.16
# How far slopes are turned by the light, and what damps that where the light falls straight on the skin.
BY_LIGHT, DAMPING = 0.7, 0.35
STEEPEST = 0.9  # slope, so that no texel turns away
# Moles: width in texels, and how much darker they are in every direction.
MOLE_SIZE, MOLE_DEPTH = 3.5, 0.08
# Source pixels for one of the 512 px crop, below which a face is too small, and from which it has all of its relief.
TOO_SMALL, LARGE_ENOUGH = 0.75, 1.1
# Variance of the Laplacian over that of the luma in the middle of the crop, likewise too blurred and sharp.
TOO_BLURRED, SHARP = 0.004, 0.010


def confidence(context: F32, crop: U8) -> float:
    """How far a photograph tells about relief, 0..1: not where the face is small or blurred.

    Args:
        context: float32 [23].
        crop: uint8 [3, 512, 512] RGB.
    """
    middle = np.ascontiguousarray(crop[:, 130:400, 120:392].transpose(1, 2, 0))
    luma = cv2.cvtColor(middle, cv2.COLOR_RGB2GRAY).astype(np.float32)
    sharpness = float(cv2.Laplacian(luma, cv2.CV_32F).var() / max(float(luma.var()), 1.0))
    return _ramp(float(context[19:21].min()), TOO_SMALL, LARGE_ENOUGH) * _ramp(sharpness, TOO_BLURRED, SHARP)


def relief(texture: U8, photograph: Photograph, texels: Texels, shape: tuple[F32, F32], light: Light, hair: F32) -> F32:
    """Slopes of the skin's relief.

    Args:
        texture: uint8 [side, side, 3] RGB.
        photograph: that it is of.
        texels: tables of the skin.
        shape: float32 [N, 3] vertices in the camera's frame, decimetres, and their unit normals.
        light: in the same frame.
        hair: float32 [t, t], 0..1, how much of a texel is hair.

    Returns:
        float32 [s, s, 2], s at most `LARGEST`: rise of the skin along u and along v, up.
    """
    side = min(len(texture), LARGEST)
    if len(texture) != side:
        texture = np.asarray(cv2.resize(texture, (side, side), interpolation=cv2.INTER_AREA), np.uint8)
    scale = side / USUAL
    mask = _wide(texels.plain * photograph.places[3] * (1 - hair), side)
    mask *= 1 - moles(texture, scale)
    shading = fine_shading(texture, mask, scale)
    normals = texels.normals(shape[1])
    along, across, millimetres = tangents(texels.of(shape[0]), normals)
    step = _wide(millimetres * (texels.side / side), side)
    kernel = np.array([[-0.5, 0, 0.5]], np.float32)
    # Rows run down and v up.
    rise_u = cv2.filter2D(shading, -1, kernel) * mask * MILLIMETRES / step
    rise_v = -cv2.filter2D(shading, -1, kernel.T) * mask * MILLIMETRES / step
    # How the logarithm of the light changes with each slope: a rise along u turns the normal against u.
    turning = light.turning(normals)
    by_u, by_v = (_wide(-(turning * tangent).sum(-1), side) for tangent in (along, across))
    missing = (shading - by_u * rise_u - by_v * rise_v) * (BY_LIGHT / (by_u * by_u + by_v * by_v + DAMPING))
    rise_u += missing * by_u * mask
    rise_v += missing * by_v * mask
    return np.asarray(np.clip(np.stack([rise_u, rise_v], axis=-1), -STEEPEST, STEEPEST), np.float32)


def fine_shading(texture: U8, mask: F32, scale: float) -> F32:
    """Logarithm of the brightness of a texture between `FINEST` and `COARSEST`, what is no skin taken for smooth.

    Args:
        texture: uint8 [s, s, 3] RGB.
        mask: float32 [s, s], 0..1, plain skin.
        scale: texels for one of a texture of `USUAL`.

    Returns:
        float32 [s, s].
    """
    logarithm = np.log(LINEAR[texture] @ LUMA + np.float32(0.02))
    known = mask * mask + np.float32(1e-3)
    coarse = _blurred(logarithm * known, COARSEST * scale) / _blurred(known, COARSEST * scale)
    fine = cv2.GaussianBlur((logarithm - coarse) * mask, (0, 0), FINEST * scale)
    return np.asarray(np.tanh(fine / STRONGEST) * STRONGEST, np.float32)


def moles(texture: U8, scale: float) -> F32:
    """Where a texture, uint8 [s, s, 3], has round dark spots, which are colour and no relief: float32 [s, s], 0..1."""
    sigma = MOLE_SIZE * scale
    smooth = _blurred(np.log(LINEAR[texture] @ LUMA + np.float32(0.02)), sigma)
    xx, yy, xy = (cv2.Sobel(smooth, cv2.CV_32F, *order, ksize=3, scale=s) for order, s in _SECOND)
    mean, apart = (xx + yy) / 2, np.sqrt(((xx - yy) / 2) ** 2 + xy * xy)
    depth = (mean - apart) * sigma * sigma  # of the direction in which it is least
    found = np.clip(depth / MOLE_DEPTH - 0.5, 0, 1).astype(np.float32)
    wide = cv2.dilate(found, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * round(2 * sigma) + 1,) * 2))
    return _blurred(np.asarray(wide, np.float32), sigma)


_SECOND = (((2, 0), 0.25), ((0, 2), 0.25), ((1, 1), 0.25))


def tangents(place: F32, normals: F32) -> tuple[F32, F32, F32]:
    """Unit directions of u and of v, up, on a surface, as viewers make them (MikkTSpace), and its size.

    Args:
        place: float32 [t, t, 3], decimetres.
        normals: float32 [t, t, 3], unit.

    Returns:
        float32 [t, t, 3] twice; float32 [t, t], millimetres of a texel.
    """
    kernel = np.array([[-0.5, 0, 0.5]], np.float32)
    along, up = cv2.filter2D(place, -1, kernel), -cv2.filter2D(place, -1, kernel.T)
    size = np.sqrt(np.linalg.norm(np.cross(along, up), axis=-1)) * 100
    along = along - normals * (normals * along).sum(-1, keepdims=True)
    along /= np.linalg.norm(along, axis=-1, keepdims=True) + 1e-9
    across = np.cross(normals, along)
    across *= np.sign((across * up).sum(-1, keepdims=True))
    return along.astype(np.float32), across.astype(np.float32), np.maximum(size, 0.05).astype(np.float32)


def normal_map(slopes: F32, strength: float) -> U8:
    """A normal map as glTF has it: uint8 [s, s, 3], from slopes [s, s, 2] times a strength."""
    normal = np.dstack([-slopes * np.float32(strength), np.ones(slopes.shape[:2], np.float32)])
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    return np.asarray(cv2.convertScaleAbs(normal * np.float32(127.5) + np.float32(127.5)), np.uint8)


def _blurred(picture: F32, sigma: float) -> F32:
    """Gaussian blur; a wide one of a smaller picture, which takes a fraction of the time."""
    factor = 1
    while sigma > 3 * factor:
        factor *= 2
    side = len(picture)
    small = cv2.resize(picture, (side // factor, side // factor), interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), sigma / factor)
    return np.asarray(cv2.resize(small, (side, side), interpolation=cv2.INTER_LINEAR), np.float32)


def _ramp(value: float, low: float, high: float) -> float:
    return min(max((value - low) / (high - low), 0.0), 1.0)


def _wide(table: F32, side: int) -> F32:
    return np.asarray(cv2.resize(table, (side, side), interpolation=cv2.INTER_LINEAR), np.float32)
