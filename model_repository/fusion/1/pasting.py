"""Takes the window of a drawing out of a picture, and puts it back."""

from __future__ import annotations

import cv2
import numpy as np
from drawing import Drawing, Window
from masks import smoothstep
from numpy.typing import NDArray

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]

# Share of the window's side over which a change fades at its edge, so that what is blended does not end in a line.
FADE = 1 / 60
# Cells by which a pixel of the target's has to move to count as changed.
MOVED = (0.02, 0.3)


def surroundings(pixels: U8, window: Window) -> F32:
    """The window of a picture uint8 [h, w, 3], float32 [height, width, 3]; beyond the picture its border goes on."""
    columns = np.clip(np.arange(window.left, window.left + window.size[0]), 0, pixels.shape[1] - 1)
    rows = np.clip(np.arange(window.top, window.top + window.size[1]), 0, pixels.shape[0] - 1)
    x, y = slice(columns[0], columns[-1] + 1), slice(rows[0], rows[-1] + 1)
    left, top = int((columns == columns[0]).sum()) - 1, int((rows == rows[0]).sum()) - 1
    right, bottom = int((columns == columns[-1]).sum()) - 1, int((rows == rows[-1]).sum()) - 1
    part = pixels[y, x]
    if left or top or right or bottom:
        part = np.asarray(cv2.copyMakeBorder(part, top, bottom, left, right, cv2.BORDER_REPLICATE), np.uint8)
    return part.astype(np.float32)


def pasted(pixels: U8, mixed: F32, here: F32, mask: F32, drawing: Drawing) -> tuple[U8, U8]:
    """Put what was blended into a copy of the picture.

    Args:
        pixels: uint8 [h, w, 3], the picture.
        mixed: float32 [height, width, 3] 0..255, the window's new content.
        here: `surroundings` of the window.
        mask: float32 [height, width] 0..1, where the source's face is.
        drawing: where the target's pixels have moved.

    Returns:
        The new picture, and uint8 [h, w], how much of each pixel is new; the others are as they were, to the bit.
    """
    window = drawing.window
    across, down = cv2.split(cv2.absdiff(drawing.target, window.centres().reshape(window.rows, window.columns, 2)))
    changed = np.maximum(window.reduced(mask), smoothstep(np.maximum(across, down), *MOVED) * (drawing.inside > 0))
    sigma = max(1.0, max(changed.shape) * FADE)
    soft = smoothstep(np.asarray(cv2.GaussianBlur(changed, (0, 0), sigma), np.float32), 0.02, 0.3)
    soft = np.clip(window.enlarged(soft), 0, 1)
    x0, y0 = max(0, window.left), max(0, window.top)
    x1 = min(pixels.shape[1], window.left + window.size[0])
    y1 = min(pixels.shape[0], window.top + window.size[1])
    part = np.s_[y0 - window.top : y1 - window.top, x0 - window.left : x1 - window.left]
    share = soft[part]
    # Where the share is 0, this is the old level but for a hundred-thousandth, and rounds to it.
    new = cv2.blendLinear(*(np.ascontiguousarray(each) for each in (mixed[part], here[part], share, 1 - share)))
    levels = np.ceil(share * 255).astype(np.uint8)
    result, full = pixels.copy(), np.zeros(pixels.shape[:2], np.uint8)
    result[y0:y1, x0:x1] = cv2.convertScaleAbs(np.maximum(new, 0))
    full[y0:y1, x0:x1] = levels
    return result, full
