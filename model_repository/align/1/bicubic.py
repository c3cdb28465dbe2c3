"""Pillow's bicubic filter as two products with sparse matrices: half of its time, and the same picture.

Along each axis a pixel of the result is a weighted sum of a few neighbours, the same few for a whole row or column.
Pillow's order is kept (columns first, rounded to bytes, then rows), so that results differ by one level in less than
one sample of a thousand: Pillow's weights are fixed-point numbers.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]

# Reach of the cubic in pixels of the coarser raster; its parameter is -0.5 (Keys, 1981).
SUPPORT = 2.0


def resize(picture: U8, width: int, height: int, box: tuple[float, float, float, float]) -> U8:
    """Resize as ``Image.resize((width, height), BICUBIC, box)`` does.

    Args:
        picture: uint8 [h, w, 3].
        width, height: of the result.
        box: left, top, right, bottom of what is resized, in pixels of ``picture``.

    Returns:
        uint8 [height, width, 3].
    """
    rows, cols = picture.shape[:2]
    across, down = weights(box[0], box[2], width, cols), weights(box[1], box[3], height, rows)
    columns = cv2.transpose(picture).reshape(cols, -1)
    narrowed = cv2.transpose(_bytes(across @ columns.astype(np.float32)).reshape(width, rows, 3)).reshape(rows, -1)
    return _bytes(down @ narrowed.astype(np.float32)).reshape(height, width, 3)


def weights(start: float, stop: float, size: int, pixels: int) -> csr_matrix:
    """Compute float32 [size, pixels]: the weight of each pixel in each of ``size`` samples between start and stop."""
    step = (stop - start) / size
    stretch = max(step, 1.0)
    centres = start + (np.arange(size) + 0.5) * step
    first = np.maximum((centres - SUPPORT * stretch + 0.5).astype(np.int64), 0)
    last = np.minimum((centres + SUPPORT * stretch + 0.5).astype(np.int64), pixels)
    at = first[:, None] + np.arange(int((last - first).max()))
    value = _cubic(np.abs((at - centres[:, None] + 0.5) / stretch))
    value[at >= last[:, None]] = 0
    value /= value.sum(axis=1, keepdims=True)
    # In 32 bits, as SciPy keeps them: it would look at each number to see that it may.
    starts = np.arange(0, value.size + 1, value.shape[1], dtype=np.int32)
    columns = np.minimum(at, pixels - 1).astype(np.int32).ravel()
    return csr_matrix((value.ravel().astype(np.float32), columns, starts), (size, pixels))


def _cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    near, far = (1.5 * x - 2.5) * x * x + 1, ((2.5 - 0.5 * x) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < SUPPORT, far, 0.0))


def _bytes(values: F32) -> U8:
    """Round and clip to 0..255; negative ``values`` are lost."""
    # OpenCV's conversion takes the absolute value, and half of the time of those that do not.
    cv2.threshold(values, 0, 0, cv2.THRESH_TOZERO, values)
    return np.asarray(cv2.convertScaleAbs(values), np.uint8)
