"""Five points of a face to the crops that the networks see, and the way back to source pixels.

The crop is the one of the Deep3DFaceRecon / HRN family, to the pixel: a least-squares fit of a scaled orthographic
camera to five template points gives a scale and a translation (no rotation: roll is left to the regressor); the picture
is resized by that scale with Pillow's bicubic filter (bicubic.py), to whole pixels, and a square is cut out around the
face at whole pixels; what lies outside the picture is black.

Coordinates: source pixels of the upright picture, centres at integers, x right, y down, unless a name says ``y_up``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from bicubic import resize
from numpy.typing import NDArray

F64 = NDArray[np.float64]
U8 = NDArray[np.uint8]

# The five points on the mean face, x right, y up, z to the camera, decimetres: left-in-picture eye, right-in-picture
# eye, nose tip, left and right corner of the mouth (means of the 68 landmarks of the family's template).
TEMPLATE: F64 = np.array(
    [
        (-0.311487, 0.290361, 0.133780),
        (0.309799, 0.289720, 0.131795),
        (0.003253, -0.046179, 0.552442),
        (-0.252169, -0.381339, 0.224057),
        (0.248466, -0.381282, 0.222358),
    ]
)
# The system is the same for every face, so it is solved once: 4 unknowns a coordinate from the 5 points.
_LEAST_SQUARES: F64 = np.linalg.pinv(np.column_stack([TEMPLATE, np.ones(5)]))
# Pixels per template unit in a crop of 224; other sizes in proportion (512: 233.142857).
RESCALE_224 = 102.0


@dataclass(frozen=True)
class WeakPerspectiveCamera:
    """A scaled orthographic camera: x = r1 . X + t[0], y_up = r2 . X + t[1].

    Attributes:
        r1, r2: float64 [3], rows of the scaled (and, being a plain least-squares fit, slightly skewed) rotation.
        t: float64 [2], where the template's origin lies; source pixels, y up from the last row (y_up = h - 1 - y).
    """

    r1: F64
    r2: F64
    t: F64

    @property
    def scale(self) -> float:
        """Source pixels per template unit."""
        return float(np.linalg.norm(self.r1) + np.linalg.norm(self.r2)) / 2

    @property
    def yaw(self) -> float:
        """Turn of the head to the side in degrees; positive turns the nose to the right of the picture."""
        return float(np.degrees(np.arctan2(self.r1[2], np.hypot(self.r1[0], self.r1[1]))))


@dataclass(frozen=True)
class Window:
    """The square that is cut out of the picture after it was resized to ``width`` x ``height``.

    ``left`` and ``up`` are its corner there; they are negative where the square reaches beyond the picture.
    """

    size: int
    left: int
    up: int
    width: int
    height: int

    def camera(self, source: tuple[float, float]) -> tuple[float, float, float, float]:
        """Return (sx, sy, ox, oy): source x = col * sx + ox and y = row * sy + oy for pixel centres of the crop."""
        sx, sy = source[0] / self.width, source[1] / self.height
        return sx, sy, (self.left + 0.5) * sx - 0.5, (self.up + 0.5) * sy - 0.5


def fit(points: NDArray[np.floating[Any]], height: float) -> WeakPerspectiveCamera:
    """Fit the template to five points, [5, 2] source pixels, in a picture of ``height`` rows.

    Eight unknowns, ten equations; this is the POS step of the family's alignment.
    """
    seen = points.astype(np.float64)
    seen[:, 1] = height - 1 - seen[:, 1]
    solution = _LEAST_SQUARES @ seen
    return WeakPerspectiveCamera(solution[:3, 0], solution[:3, 1], solution[3])


def window(camera: WeakPerspectiveCamera, source: tuple[float, float], size: int) -> Window:
    """Place the ``size`` x ``size`` crop of a fitted face in a picture of ``source`` (width, height) pixels."""
    w0, h0 = source
    scale = RESCALE_224 * size / 224 / camera.scale
    width, height = int(w0 * scale), int(h0 * scale)
    # int() cuts towards zero, as the family's code does.
    left = int(width / 2 - size / 2 + (camera.t[0] - w0 / 2) * scale)
    up = int(height / 2 - size / 2 + (h0 / 2 - camera.t[1]) * scale)
    return Window(size, left, up, width, height)


def cut(picture: U8, cutout: Window) -> U8:
    """Resize and cut in one go, uint8 [h, w, 3] to uint8 [size, size, 3].

    ``picture`` may be of any size: it stands for the same scene as the source picture. At the source's own
    size the result is what resizing the whole picture and then cutting would give, but for the last bit.
    """
    rows, cols = picture.shape[:2]
    a0, a1 = max(0, -cutout.left), min(cutout.size, cutout.width - cutout.left)
    b0, b1 = max(0, -cutout.up), min(cutout.size, cutout.height - cutout.up)
    if a0 >= a1 or b0 >= b1:
        return np.zeros((cutout.size, cutout.size, 3), np.uint8)
    x_box = _span(cutout.left + a0, cutout.left + a1, cols / cutout.width, cols)
    y_box = _span(cutout.up + b0, cutout.up + b1, rows / cutout.height, rows)
    # Only the part that the filter reaches.
    x_part, y_part = _reach(x_box, a1 - a0, cols), _reach(y_box, b1 - b0, rows)
    part = np.ascontiguousarray(picture[slice(*y_part), slice(*x_part)])
    box = (x_box[0] - x_part[0], y_box[0] - y_part[0], x_box[1] - x_part[0], y_box[1] - y_part[0])
    seen = resize(part, a1 - a0, b1 - b0, box)
    if seen.shape[:2] == (cutout.size, cutout.size):
        return seen
    crop = np.zeros((cutout.size, cutout.size, 3), np.uint8)
    crop[b0:b1, a0:a1] = seen
    return crop


def _span(start: int, stop: int, ratio: float, limit: int) -> tuple[float, float]:
    return start * ratio, min(stop * ratio, float(limit))


def _reach(span: tuple[float, float], pixels: int, limit: int) -> tuple[int, int]:
    """Return the pixels that a bicubic filter (two pixels of the coarser raster to each side) reads for ``span``."""
    margin = 2 * max(1.0, (span[1] - span[0]) / pixels) + 2
    return max(0, int(span[0] - margin)), min(limit, int(span[1] + margin) + 1)
