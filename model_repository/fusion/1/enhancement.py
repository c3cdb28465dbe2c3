"""The source's face at the target's fineness, made sharper by the model `enhance`."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from enhancing import Enhance, enhanced
from numpy.typing import NDArray
from photographs import Photograph
from region import Region

U8 = NDArray[np.uint8]

# Pixels of the source's face for one of the target's, from which on it is drawn so much smaller that it is sharp.
FINE_ENOUGH = 1.5
# How far the network has learned to enlarge, and the long side of what it is given: nine tiles.
MOST_ENLARGED, LONGEST = 3.0, 832
# Share of the face's size that is taken around it.
AROUND = 0.08


def enhanced_source(source: Photograph, target: Photograph, region: Region, enhance: Enhance) -> Photograph:
    """Cut out the source's face, as large as the target's, and enhance it; a source that is fine enough stays."""
    places = region.vertex[region.inside > 0]
    points, goal = (photograph.project(photograph.shapes[0][places]) for photograph in (source, target))
    finer = float(np.ptp(points, axis=0).max() / max(np.ptp(goal, axis=0).max(), 1.0))
    if finer >= FINE_ENOUGH:
        return source
    around = AROUND * float(np.ptp(points, axis=0).max())
    limits = np.array(source.pixels.shape[1::-1])
    left, top = np.clip(np.floor(points.min(axis=0) - around).astype(int), 0, limits - 1)
    right, bottom = np.clip(np.ceil(points.max(axis=0) + around).astype(int), (left + 1, top + 1), limits)
    part = source.pixels[top:bottom, left:right]
    height, width = part.shape[:2]
    larger = min(max(1.0, 1 / finer), MOST_ENLARGED, LONGEST / max(height, width))
    if larger < 1:
        return source
    size = (max(1, round(width * larger)), max(1, round(height * larger)))
    large = np.asarray(cv2.resize(part, size, interpolation=cv2.INTER_LANCZOS4), np.uint8)
    return _moved(source, enhanced(large, enhance), (int(left), int(top)), (width, height))


def _moved(source: Photograph, pixels: U8, corner: tuple[int, int], size: tuple[int, int]) -> Photograph:
    """The photograph whose picture is a part of it, at ``corner`` and of ``size`` pixels, resampled to ``pixels``."""
    context = source.context.copy()
    # The crop's origin, in source pixels from the part's first pixel on.
    context[17:19] -= np.array(corner) * np.array(source.ratio)
    ratio = np.array(source.ratio) * np.array(size) / np.array(pixels.shape[1::-1])
    return replace(source, pixels=pixels, ratio=(float(ratio[0]), float(ratio[1])), context=context)
