"""The light of a photograph, fitted to its texture, and a texture without it.

Skin is taken for matt, so that the light on a texel is a function of its normal alone: spherical harmonics up to the
second order hold 99 % of it whatever the lamps are (Ramamoorthi and Hanrahan 2001; Basri and Jacobs 2003). They are
fitted to the texture's ratio to the mean person's albedo. What the normal does not explain, shadows that nose and brow
throw, is smooth in the same ratio and is taken out in part: the rest may be this person's own colours.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]

# Rounds of the robust fit, and the relative error from which on a texel counts for half: a beard, a mole, a highlight.
ROUNDS, TOLERANCE = 4, 0.2
# Ridge of every harmonic but the constant one, as a share of what was seen: holds those that nothing tells about.
RIDGE = 0.02
# Light of a texel over that in the middle of the face: a fit may be negative where it is continued.
DARKEST, BRIGHTEST = 0.30, 2.2
# Of what the normal does not explain: its size as a share of the texture's side, where it was seen and where it was
# filled, how much of it is taken out where it was seen (all of it elsewhere), and the largest logarithm that is.
SHADOW_SIZE, FILLED_SIZE, SHARE, DEEPEST = 0.04, 0.012, 0.7, 0.8
# Share of red, green and blue in brightness (IEC 61966-2-1).
LUMA = np.array([0.2126, 0.7152, 0.0722], np.float32)
# Steps of linear light from which bytes are looked up.
_STEPS = 4096


@dataclass(frozen=True)
class Light:
    """White light by normal: harmonics float32 [9] of `basis`; 1 in the middle of the face.

    White, because a light of another colour that is continued around the head would turn an ear blue.
    """

    harmonics: F32

    def on(self, normals: F32) -> F32:
        """Light [...] on surfaces with unit normals [..., 3]."""
        return np.asarray(np.clip(basis(normals) @ self.harmonics, DARKEST, BRIGHTEST), np.float32)

    def turning(self, normals: F32) -> F32:
        """How the logarithm of the light changes with the normal: [..., 3] -> [..., 3]."""
        x, y, z = np.moveaxis(normals, -1, 0)
        grey = self.harmonics
        by_x = grey[1] + grey[4] * y + grey[6] * z + 2 * grey[7] * x
        by_y = grey[2] + grey[4] * x + grey[5] * z - 2 * grey[7] * y
        by_z = grey[3] + grey[5] * y + grey[6] * x + 6 * grey[8] * z
        return np.asarray(np.stack([by_x, by_y, by_z], axis=-1) / self.on(normals)[..., None], np.float32)


def basis(normals: F32) -> F32:
    """Harmonics up to the second order, without their constants, of unit normals [..., 3]: [..., 9]."""
    x, y, z = np.moveaxis(normals, -1, 0)
    rows = [np.ones_like(x), x, y, z, x * y, y * z, z * x, x * x - y * y, 3 * z * z - 1]
    return np.asarray(np.stack(rows, axis=-1), np.float32)


def fit_light(colour: F32, albedo: F32, normals: F32, weight: F32) -> Light:
    """Fit the light of a texture.

    Args:
        colour, albedo: float32 [t, t, 3], linear light.
        normals: float32 [t, t, 3], unit, in the camera's frame.
        weight: float32 [t, t], 0..1: how far a texel shows this person's plain skin.
    """
    used = weight > 0.05
    rows, share = basis(normals[used]).astype(np.float64), weight[used].astype(np.float64)
    if share.sum() < len(rows[0]) * 10:
        return Light(np.eye(1, 9, dtype=np.float32)[0])
    ratio = (colour[used] @ LUMA).astype(np.float64) / (albedo[used] @ LUMA + 1e-3)
    ratio /= np.average(ratio, weights=share)
    ridge = np.diag([0.0, *[RIDGE] * 8]) * share.sum()
    trust = share
    for _ in range(ROUNDS):
        weighted = rows * trust[:, None]
        found = np.linalg.solve(weighted.T @ rows + ridge, weighted.T @ ratio)
        trust = share / (1 + ((ratio - rows @ found) / TOLERANCE) ** 2)
    return Light(found.astype(np.float32))


def gains(colour: F32, albedo: F32, normals: F32, light: Light, seen: F32, plain: F32) -> F32:
    """By what the linear light of texels is multiplied to have no light and softer shadows: float32 [t, t].

    Args:
        colour, albedo, normals: as of `fit_light`.
        light: what it has found.
        seen: float32 [t, t], 0..1: the photograph shows the texel's skin.
        plain: float32 [t, t], 0..1: texels whose colour tells about the light.
    """
    gain = 1 / light.on(normals)
    ratio = np.log((gain * (colour @ LUMA) + 0.01) / (albedo @ LUMA + 0.01))
    known = plain * 0.98 + 0.02
    middle = float(np.average(ratio, weights=plain * seen + 1e-6))
    ratio = np.clip(ratio - middle, -DEEPEST, DEEPEST)
    shadow, filled = (
        cv2.GaussianBlur(ratio * known, (0, 0), size * len(ratio)) / cv2.GaussianBlur(known, (0, 0), size * len(ratio))
        for size in (SHADOW_SIZE, FILLED_SIZE)
    )
    return np.asarray(gain * np.exp(-SHARE * shadow * seen - filled * (1 - seen)), np.float32)


def divided(image: U8, gain: F32) -> None:
    """Multiply the linear light of an image, uint8 [side, side, 3], by gains [t, t], in place."""
    side = len(image)
    wide = cv2.resize(gain, (side, len(gain)), interpolation=cv2.INTER_LINEAR)
    for first in range(0, side, 256):
        rows = image[first : first + 256]
        at = np.clip((np.arange(first, first + len(rows)) + 0.5) * (len(gain) / side) - 0.5, 0, len(gain) - 1)
        low = at.astype(np.intp)
        share = (at - low).astype(np.float32)[:, None]
        factor = wide[low] * (1 - share) + wide[np.minimum(low + 1, len(gain) - 1)] * share
        lit = LINEAR[rows] * factor[..., None]
        np.clip(lit, 0, 1, out=lit)
        rows[:] = _BYTES[(lit * (_STEPS - 1) + 0.5).astype(np.uint16)]


def _linear() -> F32:
    """IEC 61966-2-1: bytes as stored to linear light 0..1."""
    values = np.arange(256) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4).astype(np.float32)


def _bytes() -> U8:
    linear = np.arange(_STEPS) / (_STEPS - 1)
    stored = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.asarray(np.rint(stored * 255), np.uint8)


LINEAR = _linear()
_BYTES = _bytes()
