"""Whether the tensors of a request can be what the steps before give.

Through the ensemble they always are. A caller of `merge` alone may send anything of the configuration's types.
`CHECK`, `IDENTITY` and `TEXTURE` are the inputs of the three steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from merge_refusals import Refused
from numpy.typing import NDArray

MAX_PHOTOGRAPHS = 8
"""Photographs of one person: as many rows as the steps before take at once."""
FARTHEST = 100.0
"""Decimetres, and of coefficients: squares and products of these stay far from overflow."""
TEXTURE_SIDES = (512, 1024)
"""Texels a side of the textures that the texture network gives."""

CHECK = ("photo_embedding", "photo_crop")
IDENTITY = (
    *("photo_shapes", "photo_coefficients", "photo_fingerprint", "photo_context", "photo_crop_hd", "photo_quality"),
    *("photo_certainty", "photo_embedding", "photo_embedder"),
)
TEXTURE = (
    *("photo_texture", "photo_visibility", "photo_shapes", "certainty", "photo_context", "photo_crop_hd"),
    "photo_parts",
)


def need(tensors: Mapping[str, NDArray[Any]], names: tuple[str, ...]) -> list[NDArray[Any]]:
    """Return the tensors of a step.

    Raises:
        Refused: ``BadTensor``, one is missing, they differ in their first dimension, or it is 0 or too large; textures
            of another size than the texture network's; numbers that are not finite, or no face's.
    """
    if missing := [name for name in names if name not in tensors]:
        raise Refused("BadTensor", f"the request lacks `{missing[0]}`: send {', '.join(names)}.")
    found = [tensors[name] for name in names]
    counts = {len(tensor) for tensor in found}
    if len(counts) > 1 or not 1 <= len(found[0]) <= MAX_PHOTOGRAPHS:
        raise Refused(
            "BadTensor",
            f"the tensors have {', '.join(map(str, sorted(counts)))} rows: send the same number of each, "
            f"1 to {MAX_PHOTOGRAPHS}.",
        )
    for name, tensor in zip(names, found, strict=True):
        if 0 in tensor.shape:
            raise Refused("BadTensor", f"`{name}` has shape {list(tensor.shape)}: no dimension of it may be 0.")
        if name == "photo_texture" and tensor.shape[2:] not in {(side, side) for side in TEXTURE_SIDES}:
            raise Refused(
                "BadTensor",
                f"`photo_texture` has {tensor.shape[2]} x {tensor.shape[3]} texels: send squares of "
                f"{' or '.join(map(str, TEXTURE_SIDES))}.",
            )
        # Written so that a NaN fails: it is the least and the greatest of whatever it is among.
        bounded = tensor.dtype != np.float32 or name == "photo_context"
        if not bounded and not (tensor.min() >= -FARTHEST and tensor.max() <= FARTHEST):
            raise Refused("BadFace", "the networks found no shape for one of these faces: send other photographs.")
        if name == "photo_context" and not np.isfinite(tensor).all():
            raise Refused("BadTensor", "`photo_context` is that of no face: send what `align` returns.")
    return found
