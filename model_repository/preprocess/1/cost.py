"""The estimated cost of decoding a picture."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """What decoding a picture takes, by estimate.

    Attributes:
        pixels: pixels that are decoded; a tiled picture's tiles may hold more than the picture.
        side: the longer side in pixels.
        seconds: processor time.
        memory: bytes at the peak, without the file itself.
    """

    pixels: int
    side: int
    seconds: float
    memory: int
