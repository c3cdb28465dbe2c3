"""The inside of mouth and sockets in the skin's texture, which no photograph shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

U8 = NDArray[np.uint8]

# sRGB: of the mouth's lining, in the dark, and of the sockets behind the lids.
MOUTH, SOCKET = (70, 30, 30), (120, 70, 64)


@dataclass(frozen=True)
class Patch:
    """A rectangle of the texture that is painted over.

    Attributes:
        rows, columns: of the texture.
        kept: uint16 [r, c, 3], 0..256, how much a texel keeps of its own colour.
        added: uint16 [r, c, 3], 256 times what is added to that, and a half for rounding.
    """

    rows: slice
    columns: slice
    kept: NDArray[np.uint16]
    added: NDArray[np.uint16]


@dataclass(frozen=True)
class Lining:
    """What is painted over.

    Attributes:
        patches: of the mouth and the sockets, by the side of the texture that they fit.
    """

    patches: Mapping[int, tuple[Patch, ...]]

    @classmethod
    def from_maps(cls, maps: U8) -> Lining:
        """Take the rectangles out of uint8 [2, side, side]: how far inside mouth and sockets a texel lies, 0..255.

        They fit textures of this side and of half of it.
        """
        halved = np.stack([cv2.resize(share, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA) for share in maps])
        return cls({len(shares[0]): tuple(cls._rectangles(shares)) for shares in (maps, halved)})

    @staticmethod
    def _rectangles(maps: NDArray[Any]) -> list[Patch]:
        found = []
        for share, colour in zip(maps, (MOUTH, SOCKET), strict=True):
            halves = np.arange(share.shape[1]) < share.shape[1] // 2
            # Sockets lie far apart: a rectangle each.
            for half in (halves, ~halves) if colour is SOCKET else (halves | True,):
                inside = (share > 0) & half
                if inside.any():
                    rows, columns = (_span(inside.any(axis=axis)) for axis in (1, 0))
                    part = np.repeat(share[rows, columns, None].astype(np.uint16), 3, axis=2)
                    part += part // 128
                    added = part * np.array(colour, np.uint16) + np.uint16(128)
                    found.append(Patch(rows, columns, np.uint16(256) - part, added))
        return found

    def paint(self, image: U8) -> None:
        """Paint over a texture uint8 [side, side, 3] RGB, row 0 at v = 1, in place; of another side, leave it."""
        for patch in self.patches.get(len(image), ()):
            below = image[patch.rows, patch.columns]
            mixed = below * patch.kept
            mixed += patch.added
            below[:] = mixed >> 8


def _span(used: NDArray[np.bool_]) -> slice:
    at = np.flatnonzero(used)
    return slice(int(at[0]), int(at[-1]) + 1)
