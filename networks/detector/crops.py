"""Square crops of the canvas at any place, size and angle, sampled bilinearly from a pyramid of canvases.

The level is chosen so that a pixel of the crop is one to two of its pixels, as area interpolation would see them. A
summed-area table (`pyramid`) is exact, but costs a pass over the whole canvas that takes longer than a face.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from networks.detector.contract import CANVAS, GREY

HALVINGS = 2
"""Levels below the reduced canvas: of 320 pixels, 160 and 80, where a crop of 48 pixels covers the whole canvas."""
CHANNELS = 3


class Levels(NamedTuple):
    """A canvas, and a reduced one that is halved again and again.

    Attributes:
        full: uint8 [B,3,n], the canvas's own pixels.
        reduced: float32 [B,3,n], those of all other levels, one after the other.
        sides: of all levels in pixels.
    """

    full: Tensor
    reduced: Tensor
    sides: tuple[int, ...]

    @classmethod
    def of(cls, canvas: Tensor, reduced: Tensor, side: int) -> Levels:
        """Halve a reduced canvas, float32 [B,3,side,side]; the canvas itself is uint8 [B,3,512,512]."""
        levels = [reduced]
        while len(levels) <= HALVINGS:
            levels.append(F.avg_pool2d(levels[-1], 2))
        sides = (CANVAS, *(side >> halving for halving in range(HALVINGS + 1)))
        return cls(canvas.flatten(2), torch.cat([level.flatten(2) for level in levels], 2), sides)


def crops(levels: Levels, picture: Tensor, squares: Tensor, pixels: int, fixed: bool) -> Tensor:
    """Sample squares of canvases; beyond them they are 0.

    Args:
        levels: of the canvases.
        picture: int64 [n], index of each square's canvas in the batch.
        squares: [n,5]: x and y of the centre in canvas pixels, edges at integers; side; unit vector along the rows.
        pixels: of a crop's side.
        fixed: whether no size may depend on the squares. Otherwise each level is read only by the squares it is for.

    Returns:
        [n,3,pixels,pixels], levels less GREY.
    """
    if fixed:
        return _sampled(torch.cat([levels.full.float(), levels.reduced], 2), levels.sides, picture, squares, pixels)
    is_small = squares[:, 2] < 2 * pixels
    small, large = (torch.nonzero(chosen)[:, 0] for chosen in (is_small, ~is_small))
    parts = [
        _sampled(levels.full, levels.sides[:1], picture[small], squares[small], pixels),
        _sampled(levels.reduced, levels.sides[1:], picture[large], squares[large], pixels),
    ]
    empty = squares.new_zeros(1).expand(squares.shape[0], CHANNELS, pixels, pixels)
    return empty.index_put((torch.cat([small, large]),), torch.cat(parts))


def _sampled(levels: Tensor, sides: tuple[int, ...], picture: Tensor, squares: Tensor, pixels: int) -> Tensor:
    """Sample squares as `crops` from `levels` [B,3,n], the pixels of levels of these sides one after the other."""
    # One pixel of the crop spans at most two of its level, if there is a coarser one.
    bounds = torch.tensor([2.0 * pixels * CANVAS / side for side in sides[:-1]])
    level = (squares[:, 2:3] >= bounds).long().sum(1)
    scale = torch.tensor([side / CANVAS for side in sides])[level][:, None]
    width = torch.tensor(sides)[level][:, None, None, None]
    start = torch.tensor([sum(side * side for side in sides[:number]) for number in range(len(sides))])[level]
    limit = width.to(squares.dtype)

    steps = (torch.arange(pixels) + 0.5) / pixels - 0.5
    centre = (squares[:, :2] * scale - 0.5)[:, :, None, None, None]
    right, down = (squares[:, 3:] * (squares[:, 2:3] * scale))[:, :, None, None, None].unbind(1)
    x = centre[:, 0] + (steps * right - steps[:, None] * down)
    y = centre[:, 1] + (steps * down + steps[:, None] * right)
    inside = ((x > -1) & (y > -1) & (x < limit) & (y < limit)).to(x.dtype)
    x, y = (torch.minimum(torch.relu(value), limit - 1) for value in (x, y))
    column, row = (torch.minimum(torch.floor(value), limit - 2) for value in (x, y))
    to_right, below = x - column, y - row

    channel = (picture[:, None] * CHANNELS + torch.arange(CHANNELS)) * levels.shape[2] + start[:, None]
    first = row.long() * width + column.long() + channel[:, :, None, None]
    entries = levels.flatten()
    upper, lower = entries[first].float(), entries[first + width].float()
    upper = upper + (entries[first + 1].float() - upper) * to_right
    lower = lower + (entries[first + (width + 1)].float() - lower) * to_right
    return (upper + (lower - upper) * below - GREY) * inside
