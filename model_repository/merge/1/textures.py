"""One texture of several photographs of one person.

Each texel is taken from the photographs that show it best: by visibility, angle, size and sharpness. Before that their
colours are made to agree by a smooth gain a photograph, so that the light of one passes into that of the next; then
they are put together band by band (Burt and Adelson, "A multiresolution spline with application to image mosaics",
1983), coarse bands over wide borders and fine ones over narrow ones.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]

SHARPNESS_OF_CHOICE = 3.0
"""Power of the weights: at 3 a photograph that shows a texel twice as well gives eight ninths of it."""
REFERENCE_CORE = 3.0
"""How much more the reference counts in the middle of the face: eyes and lips of two expressions do not mix."""
FILLED = 0.005
"""Weight of what a photograph does not show but was filled in, where no photograph shows it: below that of a texel
under the flattest angle that is taken."""
BANDS = 6
"""Octaves that are blended apart: 1024 texels down to 16, 512 down to 8."""
GAIN_SIDE = 64
"""Texels a side at which gains are computed, as they are smooth."""
GAIN_SMOOTHNESS = 5.0
"""Standard deviation in those texels of what a gain is made of: 8 % of the chart, about the width of a cheek."""
MAX_GAIN = 0.7
"""Largest logarithm of a gain, a factor of two: what is further apart is no light."""
_ROUNDS = 10  # of gains towards the colours that they agree on; these change by less than one level after eight


class Texture(NamedTuple):
    """A texture.

    Attributes:
        colours: uint8 [3, S, S] RGB, row 0 at v = 1.
        visibility: uint8 [1, S, S], 255 where a photograph shows the texel's skin.
    """

    colours: U8
    visibility: U8


def merge_textures(textures: U8, visibility: U8, facing: F32, detail: F32, core: F32, reference: int) -> Texture:
    """Make one texture of K photographs'.

    Args:
        textures: uint8 [K, 3, S, S] RGB, whole: what is not seen is filled in.
        visibility: uint8 [K, 1, S, S], 255 where the photograph shows the texel's skin.
        facing: float32 [K, T, T], cosine between the skin's normal and the line to the camera.
        detail: float32 [K], how finely each photograph shows the face, 0..1.
        core: float32 [T, T], 0..1, the middle of the face.
        reference: the photograph that is preferred there.
    """
    if len(textures) == 1:
        return Texture(textures[0], visibility[0])
    seen = np.stack([_resized(one[0].astype(np.float32) / 255, len(core)) for one in visibility])
    quality = seen * np.clip(facing, 0.05, 1) ** 2 * np.maximum(detail, 0.05)[:, None, None]
    pictures = [np.ascontiguousarray(texture.transpose(1, 2, 0), np.float32) for texture in textures]
    small = np.stack([_resized(picture, GAIN_SIDE) for picture in pictures])
    gains = agree(small, np.stack([_resized(one, GAIN_SIDE) for one in quality]))
    weights = choose(quality, seen, core, reference)
    side = pictures[0].shape[0]
    for picture, gain in zip(pictures, gains, strict=True):
        picture *= np.exp(_resized(gain, side))
    blended = blend(pictures, [_resized(weight, side) for weight in weights])
    colours = np.clip(blended + 0.5, 0, 255).astype(np.uint8).transpose(2, 0, 1)
    return Texture(np.ascontiguousarray(colours), visibility.max(0))


def choose(quality: F32, seen: F32, core: F32, reference: int) -> F32:
    """Weigh the photographs at each texel: float32 [K, T, T], 1 together.

    Where none shows the texel, those count that show skin beside it or on the other side of the face.

    Args:
        quality: float32 [K, T, T], how well each shows the texel; 0 where it does not.
        seen: float32 [K, T, T], 0..1.
        core: float32 [T, T], 0..1.
        reference: the photograph that is preferred where ``core`` is 1.
    """
    preferred = quality.copy()
    preferred[reference] *= 1 + (REFERENCE_CORE - 1) * core
    # Within a few millimetres one photograph is taken: borders through details would show.
    preferred = np.stack([seen_k * _blurred(one, 2.0) for one, seen_k in zip(preferred, seen, strict=True)])
    near = np.stack([_blurred(one, 12.0) + 0.5 * one[:, ::-1] + 0.05 for one in seen])
    weights = preferred**SHARPNESS_OF_CHOICE + (FILLED * near) ** SHARPNESS_OF_CHOICE
    return np.asarray(weights / weights.sum(0), np.float32)


def agree(colours: F32, quality: F32) -> F32:
    """Find the smooth gain of each photograph by which their colours agree where more than one shows a texel.

    In logarithms each gain is drawn to what is missing to the weighted mean of all, smoothed; together they change
    nothing in the mean.

    Args:
        colours: float32 [K, G, G, 3], 0..255.
        quality: float32 [K, G, G], weight of each texel; 0 where it is not seen.

    Returns:
        float32 [K, G, G, 3], logarithms.
    """
    levels = np.log(colours + 8)  # 8 of 255: darker is noise
    total = quality.sum(0)
    # A texel that one photograph alone shows says nothing about the others.
    shared = quality * (total - quality) / np.maximum(total, 1e-6)
    shared /= max(float(shared.max()), 1e-6)
    gains = np.zeros_like(levels)
    share = quality.sum((1, 2)) / max(float(quality.sum()), 1e-6)
    part = quality / np.maximum(total, 1e-6)
    for _ in range(_ROUNDS):
        mean = (part[..., None] * (levels + gains)).sum(0)
        for k, weight in enumerate(shared):
            gains[k] += _spread(mean - levels[k] - gains[k], weight)
        gains -= (share[:, None, None, None] * gains).sum(0).mean((0, 1))
    return np.asarray(np.clip(gains, -MAX_GAIN, MAX_GAIN), np.float32)


def _spread(values: F32, weight: F32) -> F32:
    """Smooth values [G, G, 3] known by their weight [G, G] over the chart; far from everything known, their mean."""
    mean = (values * weight[..., None]).sum((0, 1)) / max(float(weight.sum()), 1e-6)
    near = _blurred(weight, GAIN_SMOOTHNESS)[..., None]
    floor = np.float32(0.02)
    return np.asarray((_blurred(values * weight[..., None], GAIN_SMOOTHNESS) + floor * mean) / (near + floor))


def blend(pictures: list[F32], weights: list[F32]) -> F32:
    """Put pictures [S, S, 3] together by weights [S, S], each band of detail over a border of its own width."""
    sums: list[F32] = []
    totals: list[F32] = []
    for picture, weight in zip(pictures, weights, strict=True):
        for level in range(BANDS + 1):
            last = level == BANDS
            lower = picture if last else np.asarray(cv2.pyrDown(picture), np.float32)
            band = picture if last else picture - cv2.pyrUp(lower, dstsize=picture.shape[1::-1])
            if len(sums) <= level:
                sums.append(np.zeros_like(band))
                totals.append(np.zeros_like(weight))
            sums[level] += band * weight[..., None]
            totals[level] += weight
            if not last:
                picture, weight = lower, np.asarray(cv2.pyrDown(weight), np.float32)
    bands = [total / np.maximum(weight, 1e-6)[..., None] for total, weight in zip(sums, totals, strict=True)]
    whole = bands[-1]
    for band in reversed(bands[:-1]):
        whole = band + cv2.pyrUp(whole, dstsize=band.shape[1::-1])
    return np.asarray(whole, np.float32)


def _resized(picture: F32, side: int) -> F32:
    how = cv2.INTER_AREA if side < len(picture) else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(picture, (side, side), interpolation=how), np.float32)


def _blurred(picture: F32, deviation: float) -> F32:
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), deviation, borderType=cv2.BORDER_REPLICATE), np.float32)
