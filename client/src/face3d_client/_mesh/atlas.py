"""One picture for all parts of a mesh, for formats and programs that take only one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from face3d_client._mesh.part import SWATCH, Part

__all__ = ["Atlas", "make_atlas"]


@dataclass(frozen=True, eq=False)
class Atlas:
    """Pictures of several materials side by side.

    Attributes:
        picture: RGBA where a part is blended, else RGB. The first part's picture is at the top left, unchanged.
        uv: float32 (M, 2), 0..1, v up: where the places of all parts are in it.
        tints: float32 (M, 3), linear: what a place's colour is more than its swatch's, where vertices have colours.
    """

    picture: Image.Image
    uv: NDArray[np.float32]
    tints: NDArray[np.float32]


def make_atlas(parts: Sequence[Part]) -> Atlas:
    """Put the pictures of all parts, and a swatch for each part without one, into one picture.

    Vertices' colours become the swatch of their mean, and `Atlas.tints`.
    """
    tints = np.concatenate([_tints(part) for part in parts])
    first, *others = (part.tile() for part in parts)
    if not others:
        return Atlas(first, parts[0].uv, tints)
    width = first.width + max(tile.width for tile in others)
    height = max(first.height, sum(tile.height for tile in others))
    sheet = Image.new("RGBA" if any(part.material.blended for part in parts) else "RGB", (width, height))
    sheet.paste(first, (0, 0))
    shrink = np.array([first.width / width, first.height / height])
    places = [parts[0].uv * shrink + (0, 1 - shrink[1])]
    top = 0
    for part, tile in zip(parts[1:], others, strict=True):
        sheet.paste(tile, (first.width, top))
        # Half a texel inside, so that no neighbour's colour is mixed in.
        column = first.width + 0.5 + part.uv[:, 0] * (tile.width - 1)
        row = top + 0.5 + (1 - part.uv[:, 1]) * (tile.height - 1)
        if part.material.image is None:
            column, row = (np.full(len(part.uv), begin + SWATCH / 2) for begin in (first.width, top))
        places.append(np.column_stack([column / width, 1 - row / height]))
        top += tile.height
    return Atlas(sheet, np.concatenate(places).astype(np.float32), tints)


def _tints(part: Part) -> NDArray[np.float32]:
    if part.colours is None:
        return np.ones((len(part.vertices), 3), np.float32)
    if part.material.image is not None:
        return part.colours
    tints: NDArray[np.float32] = part.colours / np.maximum(part.colours.mean(0), np.float32(1e-4))
    return tints
