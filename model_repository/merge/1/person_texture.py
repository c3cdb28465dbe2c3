"""The texture of a person from what each photograph gave: skin under flat angles added, one size for all."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from chart import Chart
from grazing import Photograph, with_grazing
from numpy.typing import NDArray
from textures import Texture, merge_textures

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]


def person_texture(
    chart: Chart, photographs: Sequence[Photograph], textures: U8, visibility: U8, certainty: F32
) -> Texture:
    """Make the texture of K photographs.

    Args:
        chart: of the face model.
        photographs: K, of one person.
        textures: uint8 [K, 3, S, S] RGB.
        visibility: uint8 [K, 1, V, V], 255 where a photograph shows the texel's skin; V may be larger than S.
        certainty: float32 [K, 2]: how finely each photograph shows the face, 0..1; 1 for the one that is preferred.

    Returns:
        colours uint8 [3, S, S] and visibility uint8 [1, V, V].
    """
    seen = resized(visibility, textures.shape[-1])
    facing = np.stack([chart.facing(photograph.posed) for photograph in photographs])
    if len(photographs) > 1:  # one photograph alone takes nothing under a flat angle
        each = zip(photographs, facing, textures, seen, strict=True)
        textures, seen = (np.stack(column) for column in zip(*(with_grazing(chart, *one) for one in each), strict=True))
    merged = merge_textures(textures, seen, facing, certainty[:, 0], chart.core, int(certainty[:, 1].argmax()))
    if len(photographs) == 1:
        return Texture(merged.colours, visibility[0])
    shown = resized(merged.visibility[None], visibility.shape[-1])[0]
    return Texture(merged.colours, np.maximum(shown, visibility.max(0)))


def resized(visibility: U8, side: int) -> U8:
    """Bring maps uint8 [K, 1, S, S] to another side: uint8 [K, 1, side, side]."""
    if visibility.shape[-1] == side:
        return visibility
    how = cv2.INTER_AREA if side < visibility.shape[-1] else cv2.INTER_LINEAR
    maps = [cv2.resize(one[0], (side, side), interpolation=how)[None] for one in visibility]
    return np.asarray(np.stack(maps), np.uint8)
