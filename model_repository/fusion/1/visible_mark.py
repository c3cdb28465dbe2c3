"""Draws a visible mark on a fused picture: a small label in a corner that says what it is."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

TEXT: Final = "AI-edited face"

# Of the picture's shorter side: large enough to be read, small enough to be no picture of its own.
_HEIGHT: Final = 0.032
# Pixels of a letter, below which it cannot be read and above which it is larger than any screen shows.
_SMALLEST, _LARGEST = 11, 96
_INK, _PAPER = (255, 255, 255, 235), (0, 0, 0, 140)


def draw_mark(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Draw the label into the lower right corner.

    Args:
        picture: uint8 [height, width, 3], RGB.

    Returns:
        A copy, of which only the corner differs.
    """
    height, width = picture.shape[:2]
    size = min(max(round(_HEIGHT * min(height, width)), _SMALLEST), _LARGEST)
    label = _label(size)
    if label.width > 0.9 * width:  # a picture that is narrower than the words: the label is scaled to it
        label = label.resize((max(1, round(0.9 * width)), max(1, round(0.9 * width * label.height / label.width))))
    margin = min(size // 2, (width - label.width) // 2, max(0, height - label.height))
    left, top = width - label.width - margin, max(0, height - label.height - margin)
    drawn = Image.fromarray(picture)
    drawn.paste(label, (left, top), label)
    return np.asarray(drawn)


def _label(size: int) -> Image.Image:
    """Draw the words on a rounded, translucent ground: RGBA, for letters of ``size`` pixels."""
    font = ImageFont.load_default(size)
    box = font.getbbox(TEXT)
    pad = size // 2
    width, height = round(box[2] - box[0]) + 2 * pad, round(box[3] - box[1]) + pad
    label = Image.new("RGBA", (width, height), (0, 0, 0, 0))
    draw = ImageDraw.Draw(label)
    draw.rounded_rectangle((0, 0, width - 1, height - 1), radius=height // 3, fill=_PAPER)
    draw.text((pad - box[0], pad // 2 - box[1]), TEXT, font=font, fill=_INK)
    return label
