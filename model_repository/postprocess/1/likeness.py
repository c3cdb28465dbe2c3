"""How far a head goes from the mean one: as measured, or more as a caricature does, or less."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from placing import Pose

F32 = NDArray[np.float32]


def with_likeness(shapes: F32, mean: F32, likeness: float) -> F32:
    """Move shapes along their difference from the mean head; expression and rotation stay.

    Args:
        shapes: float32 [3, N, 3] decimetres: posed, head frame, head frame neutral.
        mean: float32 [N, 3], the mean neutral head, head frame.
        likeness: neutral = mean + likeness * (neutral - mean).

    Returns:
        float32 [3, N, 3]; those given where ``likeness`` is 1.
    """
    if likeness == 1:
        return shapes
    more = (shapes[2] - mean) * np.float32(likeness - 1)
    turn = Pose.between(shapes[1], shapes[0]).turn
    return np.stack([shapes[0] + more @ turn, shapes[1] + more, shapes[2] + more])
