"""The fixed image pyramid of the canvas, and square crops of it, by exact area interpolation.

Both are read from one summed-area table: the mean over any rectangle of pixels is four of its entries. So the graph
resamples exactly as the sequential cascade does (windows from floor to ceil, as in adaptive mean pooling), at a cost
that does not depend on the size of a face. Pixels are centred at the canvas's grey, which keeps the table's entries
below 2^24, where float32 holds integers exactly, for any picture that is not all white or all black.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from networks.detector.contract import CANVAS, GREY
from networks.detector.mtcnn import WINDOW

TABLE = CANVAS + 1
"""Side of the summed-area table: entry (y, x) sums the pixels above and left of it."""
MIN_FACE = 20
"""Smallest face in canvas pixels: 8 % of the short side of a 2:1 picture, and the usual value for these networks.
16 takes a fifth more time."""
FACTOR = 0.709
"""Scale of a level over that of the next finer one, about 1/sqrt(2): the step that the networks were trained for."""


def level_scales() -> list[float]:
    """List level pixels per canvas pixel, finest level first, until P-Net's 12 px window spans the whole canvas."""
    scales = []
    scale = WINDOW / MIN_FACE
    while CANVAS * scale >= WINDOW:
        scales.append(scale)
        scale *= FACTOR
    return scales


def summed_area_table(canvas: Tensor) -> Tensor:
    """Sum the pixels less 127 above and left of each position: uint8 [B,3,512,512] -> float32 [B,513,513,3]."""
    pixels = canvas.permute(0, 2, 3, 1).float() - GREY
    return F.pad(pixels, (0, 0, 1, 0, 1, 0)).cumsum(1).cumsum(2)


def level_side(scale: float) -> int:
    """Return the side in pixels of the canvas at `scale`."""
    return int(CANVAS * scale + 1)


def level(table: Tensor, scale: float, cropped: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """Resample the canvas.

    Args:
        table: [B,513,513,3] of `summed_area_table`.
        scale: level pixels per canvas pixel.
        cropped: numbers of rows and columns to compute, from the top left; None: the whole level.

    Returns:
        [B,3,h,w], centred pixels.
    """
    side = level_side(scale)
    steps = torch.arange(side)
    first = steps * CANVAS // side
    last = -(-(steps + 1) * CANVAS // side)
    per_pixel = 1.0 / (last - first).float()
    rows, columns = (slice(None), slice(None)) if cropped is None else (slice(cropped[0]), slice(cropped[1]))
    # Both lookups copy whole rows of memory; pixel by pixel they would cost four times as much. So columns come first
    # once the rows are chosen, [B,w,3,h], and the last permutation moves whole rows again.
    band = (table[:, last[rows]] - table[:, first[rows]]).permute(0, 2, 3, 1)
    cells = band[:, last[columns]] - band[:, first[columns]]
    return cells.permute(0, 2, 3, 1) * (per_pixel[rows][:, None] * per_pixel[columns])


def crops(table: Tensor, low: Tensor, high: Tensor, side: int) -> Tensor:
    """Resample rectangles of the canvas to side x side.

    Args:
        table: [B,513,513,3] of `summed_area_table`.
        low, high: [B,n,2] x and y of the first pixel and of one past the last; whole numbers as floats, 0..512.
            A rectangle without pixels gives a crop of zeros.
        side: pixels of a crop's side.

    Returns:
        [B*n,3,side,side], centred pixels.
    """
    steps = torch.arange(side, dtype=low.dtype)
    size = torch.relu(high - low)[..., None]
    first = low[..., None] + torch.floor(steps * size / side)
    last = low[..., None] + torch.ceil((steps + 1) * size / side)
    per_pixel = 1.0 / torch.clamp(last - first, min=1.0)

    first, last = first.long(), last.long()
    picture = torch.arange(table.shape[0])[:, None, None] * (TABLE * TABLE)
    top, bottom = ((first[:, :, 1] * TABLE) + picture)[..., None], ((last[:, :, 1] * TABLE) + picture)[..., None]
    left, right = first[:, :, None, 0], last[:, :, None, 0]
    entries = table.reshape(-1, 3)
    cells = (entries[bottom + right] - entries[top + right]) - (entries[bottom + left] - entries[top + left])
    factor = per_pixel[:, :, 1, :, None] * per_pixel[:, :, 0, None, :]
    return cells.reshape(-1, side, side, 3).permute(0, 3, 1, 2) * factor.reshape(-1, 1, side, side)
