"""Embeddings: what says who a face is, and how far it can be relied on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from face3d_client._detection import DetectedFace
from face3d_client._errors import GalleryMismatch

__all__ = ["Embedding", "Quality"]


class Quality(NamedTuple):
    """How far an embedding can be relied on; each of 0..1, 1 the best.

    Attributes:
        size: source pixels per pixel of the embedder's crop of 112 px.
        sharpness: fine detail in the crop's contrast, against that of a sharp photograph.
        pose: cosine of the turn to the side, times that of the tilt up or down.
        cover: part of the crop that lies inside of the photograph.
    """

    size: float
    sharpness: float
    pose: float
    cover: float


@dataclass(frozen=True, eq=False)
class Embedding:
    """Who a face is, as a direction.

    Attributes:
        vector: float32 (D,) of length 1.
        quality: see `Quality`.
        face: the face that was embedded.
        embedder: fingerprint of the embedder's weights; vectors of two embedders cannot be compared.
        warnings: what is doubtful about the photograph, one sentence each.
    """

    vector: NDArray[np.float32]
    quality: Quality
    face: DetectedFace
    embedder: int
    warnings: tuple[str, ...] = ()

    def similarity(self, other: Embedding) -> float:
        """Return the cosine with another embedding, -1..1.

        Raises:
            GalleryMismatch: they are of two embedders.
        """
        if self.embedder != other.embedder:
            raise GalleryMismatch(
                "the two vectors are of different embedders, so that nothing can be said. Embed both photographs anew."
            )
        return float(self.vector @ other.vector)
