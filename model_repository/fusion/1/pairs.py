"""The two photographs of a request, out of its tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from fusion_refusals import Refused
from numpy.typing import NDArray
from photographs import Photograph
from region import Region
from sampling import Skin

ROLES = ("source", "target")
# Decimetres: a head is three and stands ten before the camera.
FARTHEST = 100.0
# Sides of the textures that the texture network gives.
TEXTURE_SIDES = (512, 1024)


def photographs_of(tensors: Mapping[str, NDArray[Any]], region: Region) -> tuple[Photograph, Photograph]:
    """Source and target.

    Raises:
        Refused: ``BadFace`` for a shape that is none, ``BadTensor`` for a camera or picture that is none,
            ``FaceModelMismatch``.
    """
    source, target = (_photograph(tensors, row, region) for row in range(len(ROLES)))
    return source, target


def _photograph(tensors: Mapping[str, NDArray[Any]], row: int, region: Region) -> Photograph:
    shapes, context, geometry = (tensors[name][row] for name in ("shapes", "context", "geometry"))
    region.check(int(tensors["fingerprint"][row, 0]), shapes.shape[1])
    # Written so that a NaN fails.
    if not (shapes.min() >= -FARTHEST and shapes.max() <= FARTHEST):
        raise Refused("BadFace", f"the networks found no shape for the {ROLES[row]}'s face: send another picture.")
    if not (
        context[[15, 16, 19, 20]].min() >= 1e-6
        and np.abs(context).max() <= 1e9
        and geometry.min() > 0
        and geometry.max() <= 1e9
    ):
        raise Refused("BadTensor", "`context` or `geometry` is that of no face: send what `align` returns.")
    width, height, _, _, ratio_x, ratio_y = (float(value) for value in geometry)
    rows, columns = (max(1, int(side + 0.01)) for side in (height / ratio_y, width / ratio_x))
    padded = tensors["picture"][row]
    if rows > padded.shape[0] or columns > padded.shape[1]:
        raise Refused("BadTensor", "`picture` is smaller than `geometry` says: send what `preprocess` returns.")
    return Photograph(padded[:rows, :columns], (ratio_x, ratio_y), shapes, context, tensors["parts"][row])


def source_skin(tensors: Mapping[str, NDArray[Any]]) -> Skin:
    """The source's skin.

    Raises:
        Refused: ``BadTensor``, a texture of another size than the texture network's.
    """
    texture = tensors["texture"][0]
    if texture.shape[1:] not in {(side, side) for side in TEXTURE_SIDES}:
        raise Refused(
            "BadTensor",
            f"`texture` has {texture.shape[1]} x {texture.shape[2]} texels: send a square of "
            f"{' or '.join(map(str, TEXTURE_SIDES))}.",
        )
    return Skin(texture, tensors["visibility"][0])


def doubts_of(doubts: NDArray[Any]) -> list[str]:
    """The sentences of `align` about either photograph, bytes [2, n] with empty ones, each with whose it is."""
    return [
        f"{role}: {text.decode(errors='replace')}"
        for role, row in zip(ROLES, doubts, strict=True)
        for text in row
        if text
    ]
