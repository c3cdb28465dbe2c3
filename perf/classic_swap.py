"""A classic two-dimensional face swap, to compare `fuse` with: landmarks, triangles, and Poisson blending.

The 68 landmarks of both faces are joined by the target's Delaunay triangles, each triangle of the source is mapped
affinely into the target's, and the hull of the landmarks is cloned seamlessly (Perez et al. 2003, by OpenCV).
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import LinearNDInterpolator

U8 = NDArray[np.uint8]
F32 = NDArray[np.float32]


def swapped(source: U8, source_landmarks: F32, target: U8, target_landmarks: F32) -> U8:
    """Put the source's face on the target.

    Args:
        source, target: uint8 [h, w, 3].
        source_landmarks, target_landmarks: float32 [68, 2], pixels of each.

    Returns:
        uint8 [h, w, 3] of the target's size; the target itself where its face lies at the picture's edge.
    """
    height, width = target.shape[:2]
    places = LinearNDInterpolator(target_landmarks.astype(np.float64), source_landmarks.astype(np.float64))
    low = np.clip(np.floor(target_landmarks.min(axis=0)).astype(int), 1, (width - 2, height - 2))
    high = np.clip(np.ceil(target_landmarks.max(axis=0)).astype(int), 1, (width - 2, height - 2))
    columns, rows = np.meshgrid(np.arange(low[0], high[0] + 1), np.arange(low[1], high[1] + 1))
    found = places(columns, rows).astype(np.float32)
    inside = np.isfinite(found[..., 0])
    found[~inside] = 0
    warped = cv2.remap(source, found[..., 0], found[..., 1], cv2.INTER_LINEAR)
    patch, mask = target.copy(), np.zeros((height, width), np.uint8)
    part = np.s_[low[1] : high[1] + 1, low[0] : high[0] + 1]
    patch[part] = np.where(inside[..., None], warped, target[part])
    mask[part] = 255 * inside
    x, y, wide, tall = cv2.boundingRect(mask)
    if not wide or not tall:
        return target
    return np.asarray(
        cv2.seamlessClone(patch, target, mask, (x + wide // 2, y + tall // 2), cv2.NORMAL_CLONE), np.uint8
    )
