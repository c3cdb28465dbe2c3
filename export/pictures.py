"""Photographs from files, and the detector's canvas of a photograph."""

from __future__ import annotations

import random
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from networks.detector.contract import CANVAS

Floats = NDArray[np.float32]
Picture = NDArray[np.uint8]

GREY = 127
"""Level of the canvas around the picture."""
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}


def canvas_of(picture: Picture) -> tuple[Picture, Floats]:
    """Make the detector's inputs for an RGB picture [h,w,3].

    Returns:
        canvas uint8 [3,512,512] and geometry float32 [6] (tensor table of ARCHITECTURE.md).
    """
    height, width = picture.shape[:2]
    scale = CANVAS / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    canvas = np.full((CANVAS, CANVAS, 3), GREY, np.uint8)
    canvas[: size[1], : size[0]] = cv2.resize(picture, size, interpolation=interpolation)
    geometry = np.array([width, height, width / size[0], height / size[1], 1, 1], np.float32)
    return np.ascontiguousarray(canvas.transpose(2, 0, 1)), geometry


def pictures_in(folder: Path, limit: int | None = None) -> list[Path]:
    """List the picture files below a folder, sorted; with `limit`, a fixed random selection of them."""
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
    if limit is not None and limit < len(files):
        files = sorted(random.Random(0).sample(files, limit))
    return files


def load_picture(path: Path) -> Picture:
    """Load a picture as uint8 RGB [h,w,3], rotated upright by its EXIF tag."""
    with Image.open(path) as picture:
        return np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))
