"""Detected faces: box, score and five points."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["DetectedFace"]


@dataclass(frozen=True, eq=False)
class DetectedFace:
    """A face that `detect` found.

    Attributes:
        row: float32 (15,): x1 y1 x2 y2 score, then five points (x, y), all in source pixels.
        index: place in the order of score, 0 = best; what ``reconstruct(face=...)`` counts in.
    """

    row: NDArray[np.float32]
    index: int = 0

    def __post_init__(self) -> None:
        row = np.array(self.row, np.float32)
        if row.shape != (15,):
            raise ValueError(f"a face is a row of 15 numbers, not an array of shape {row.shape}")
        row.setflags(write=False)
        object.__setattr__(self, "row", row)

    @property
    def box(self) -> NDArray[np.float32]:
        """float32 (4,): x1, y1, x2, y2 in source pixels."""
        return self.row[:4]

    @property
    def score(self) -> float:
        """How sure the detector is, 0..1."""
        return float(self.row[4])

    @property
    def points(self) -> NDArray[np.float32]:
        """float32 (5, 2), source pixels: eye left in the picture, eye right, nose tip, mouth corner left, right."""
        return self.row[5:].reshape(5, 2)

    @property
    def size(self) -> float:
        """The longer side of the box in source pixels."""
        return float(max(self.row[2] - self.row[0], self.row[3] - self.row[1]))

    def __repr__(self) -> str:
        corners = ", ".join(f"{value:.0f}" for value in self.box)
        return f"DetectedFace(index={self.index}, score={self.score:.3f}, box=({corners}))"
