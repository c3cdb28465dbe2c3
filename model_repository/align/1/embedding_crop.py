"""Five points of a face to the crop that the embedder sees, and how far that crop can be relied on.

A similarity (rotation, one scale, translation) is fitted to the points by least squares (Umeyama, "Least-squares
estimation of transformation parameters between two point patterns", 1991) and takes the face onto the ArcFace template
of 112 px. Unlike alignment.py's crop it turns the face upright: the embedder was trained so.

Coordinates: source pixels of the upright picture, centres at integers, x right, y down.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from face_doubts import detail
from face_rows import points_of
from numpy.typing import NDArray

F64 = NDArray[np.float64]
U8 = NDArray[np.uint8]

SIDE = 112
# The ArcFace template (Deng et al., 2019): eye left in the picture, eye right, nose tip, mouth corner left, right.
TEMPLATE: F64 = np.array(
    [(38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041)]
)
# Relative detail (face_doubts.py) of a crop that is as sharp as photographs of this size are.
SHARP = 0.05
# Sampling without reduction reads two pixels along an axis: from this step on it would leave some out.
_LARGEST_STEP = 1.5


@dataclass(frozen=True)
class Similarity:
    """A similarity from the crop to the picture: (x, y) = matrix @ (column, row, 1).

    Attributes:
        matrix: float64 [2, 3].
    """

    matrix: F64

    @property
    def step(self) -> float:
        """Picture pixels per pixel of the crop."""
        return float(np.hypot(self.matrix[0, 0], self.matrix[1, 0]))

    def scaled(self, factor_x: float, factor_y: float) -> Similarity:
        """Return the same crop of the picture resized by these factors; pixel centres stay at integers."""
        factors = np.array([factor_x, factor_y])
        matrix = self.matrix * factors[:, None]
        matrix[:, 2] += 0.5 * factors - 0.5
        return Similarity(matrix)


def similarity(points: NDArray[np.floating[Any]]) -> Similarity:
    """Fit the template to five points, [5, 2] source pixels, by least squares.

    A similarity in the plane is z -> a z + b over complex numbers, so that the fit is a linear one without reflections.
    """
    seen = points.astype(np.float64) @ (1, 1j)
    template = TEMPLATE @ (1, 1j)
    centred = template - template.mean()
    a = np.vdot(centred, seen - seen.mean()) / np.vdot(centred, centred).real
    b = seen.mean() - a * template.mean()
    return Similarity(np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]]))


def cut_upright(picture: U8, fit: Similarity) -> U8:
    """Cut the crop out, uint8 [h, w, 3] to uint8 [112, 112, 3]; outside of the picture it is black.

    What is shown larger than in the crop is first reduced by its area: sampling alone would leave pixels out.
    """
    part, fit = _reduced(*_part(picture, fit))
    crop = cv2.warpAffine(part, fit.matrix, (SIDE, SIDE), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    return np.asarray(crop, np.uint8)


def quality(face: NDArray[np.float32], fit: Similarity, source: tuple[float, float], yaw: float, crop: U8) -> Any:
    """Rate how far an embedding of this crop can be relied on: float32 [4], each of 0..1, 1 the best.

    Size: source pixels per pixel of the crop; 1 where the face is shown in 112 px or more. Sharpness: variance of the
    Laplacian over that of the luma, over `SHARP`. Pose: cosine of the turn to the side, times that of the tilt up or
    down, by the place of the nose between eyes and mouth. Cover: the part of the crop that lies inside of the picture.

    Args:
        face: the row, checked.
        fit: of its points.
        source: (width, height) of the picture in source pixels.
        yaw: turn to the side in degrees.
        crop: uint8 [112, 112, 3] RGB.
    """
    luma = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY).astype(np.float32)
    values = (
        fit.step,
        detail(luma) / SHARP,
        np.cos(np.radians(yaw)) * np.cos(_pitch(face)),
        _inside(fit, source),
    )
    return np.clip(np.array(values, np.float32), 0, 1)


def _pitch(face: NDArray[np.float32]) -> float:
    """Estimate the pitch in radians, 0 for the template's, by where the nose lies between eyes and mouth.

    The tip is half as far in front of the plane of eyes and mouth corners as these are from each other (alignment.py's
    template: 0.37 of 0.67 dm), so that the tilt moves it by sin(pitch) times that.
    """
    points = points_of(face).astype(np.float64)

    def place(five: F64) -> float:
        eyes, mouth = five[:2].mean(axis=0), five[3:].mean(axis=0)
        down = mouth - eyes
        return float((five[2] - eyes) @ down / max(float(down @ down), 1e-9))

    return float(np.arcsin(np.clip((place(points) - place(TEMPLATE)) / 0.55, -1, 1)))


def _inside(fit: Similarity, source: tuple[float, float]) -> float:
    """Return the share of the crop's pixels with centres inside of the picture, at every fourth row and column."""
    grid = np.arange(1.5, SIDE, 4)
    columns, rows = np.meshgrid(grid, grid)
    x, y = fit.matrix @ np.stack([columns.ravel(), rows.ravel(), np.ones(columns.size)])
    return float(((x >= -0.5) & (x <= source[0] - 0.5) & (y >= -0.5) & (y <= source[1] - 0.5)).mean())


def _part(picture: U8, fit: Similarity) -> tuple[U8, Similarity]:
    """Return the part of the picture that the crop reaches, with a margin, and the crop's place in it."""
    corners = fit.matrix @ np.array([[0, SIDE, 0, SIDE], [0, 0, SIDE, SIDE], [1, 1, 1, 1]], np.float64)
    room = 2 * max(1.0, fit.step) + 2
    rows, columns = picture.shape[:2]
    low = np.clip(np.floor(corners.min(axis=1) - room), 0, (columns - 1, rows - 1)).astype(int)
    high = np.clip(np.ceil(corners.max(axis=1) + room), low + 1, (columns, rows)).astype(int)
    matrix = fit.matrix.copy()
    matrix[:, 2] -= low
    return np.ascontiguousarray(picture[low[1] : high[1], low[0] : high[0]]), Similarity(matrix)


def _reduced(part: U8, fit: Similarity) -> tuple[U8, Similarity]:
    if fit.step <= _LARGEST_STEP:
        return part, fit
    rows, columns = part.shape[:2]
    width, height = max(1, round(columns / fit.step)), max(1, round(rows / fit.step))
    reduced = np.asarray(cv2.resize(part, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    return reduced, fit.scaled(width / columns, height / rows)
