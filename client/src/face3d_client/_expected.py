"""How far off a reconstruction is likely to be, by the network's own estimate."""

from __future__ import annotations

import math
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["ExpectedErrors"]

# From here on a result is called doubtful: some one in twenty of disturbed views of exact heads.
_UNSURE_DEGREES: Final = 8.0
_UNSURE_PIXELS: Final = 6.0
_EYES_PIXELS: Final = 65.0  # between the eyes of an aligned crop


class ExpectedErrors(NamedTuple):
    """Root mean squares of the errors to expect; infinite where the server's network does not say.

    A third of faces are further off, one in twenty twice as far. What no photograph shows is not in them: the size of
    the head, and what ears, throat and the back of the head are like.

    Attributes:
        identity_mm: of the vertices of the inner face without expression, size and place aside.
        expression_mm: of what the expression adds to them.
        pose_degrees: of the rotation.
        landmarks_px: of the landmarks, in pixels of the 224 px crop; a person's eyes are some 65 of them apart.
    """

    identity_mm: float
    expression_mm: float
    pose_degrees: float
    landmarks_px: float

    @property
    def doubt(self) -> str:
        """A sentence where the rotation or the landmarks are likely to be far off, else nothing."""
        parts = []
        if _UNSURE_DEGREES < self.pose_degrees < math.inf:
            parts.append(f"its rotation may be off by {self.pose_degrees:.0f} degrees")
        if _UNSURE_PIXELS < self.landmarks_px < math.inf:
            parts.append(f"its landmarks by {self.landmarks_px / _EYES_PIXELS:.0%} of the distance between the eyes")
        return f"The network is not sure of this face: {' and '.join(parts)}." if parts else ""

    @classmethod
    def of(cls, certainty: NDArray[np.floating[Any]]) -> ExpectedErrors:
        """Take them from the output ``certainty``, (4,): one over each, 0 where it is not known."""
        return cls(*(1 / float(value) if value > 0 else math.inf for value in certainty.ravel()))
