"""The state of each clip, and what it makes of a frame's coefficients."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from one_euro import OneEuro

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

# Of the 257 coefficients.
IDENTITY, EXPRESSION, ANGLES = slice(0, 80), slice(80, 144), slice(224, 227)
# And those that are filtered: expression, angles, translation.
MOVING = np.r_[80:144, 224:227, 254:257]

CUTOFF_HZ = 1.2
"""Cut-off at rest at full smoothing, hertz: the regressor's noise from frame to frame lies above it."""
RISE = 6.0
"""Hertz more for a full expression, a radian or a decimetre a second, so that a blink of 0.15 s passes."""
CUT_RADIANS = 0.6
"""Turn from one frame to the next, radians, from which on it is another shot: 35 degrees in 1/30 s turns no head."""


class Steady(NamedTuple):
    """A filtered frame: float32 coefficients [257], and the head's rotation [4] as a quaternion x, y, z, w."""

    coefficients: F32
    rotation: F32


@dataclass
class Track:
    """A clip from its first frame on.

    Attributes:
        smoothing: 0 passes every frame as it is; 1 is the usual, up to 2.
    """

    smoothing: float
    filter: OneEuro = field(init=False)

    def __post_init__(self) -> None:
        self._restart()

    def step(self, coefficients: F32, seconds: float) -> Steady:
        """Filter a frame's coefficients [257], ``seconds`` after the frame before."""
        moving = coefficients[MOVING].astype(np.float64)
        if self.smoothing > 0:
            last = self.filter.value
            angles = slice(64, 67)
            if last is not None and np.abs(moving[angles] - last[angles]).max() > CUT_RADIANS:
                self._restart()
            moving = self.filter.step(moving, seconds)
        steady = coefficients.copy()
        steady[MOVING] = moving
        return Steady(steady, quaternion(steady[ANGLES]))

    def _restart(self) -> None:
        cutoff = CUTOFF_HZ / max(self.smoothing, 1e-3)
        self.filter = OneEuro(np.full(len(MOVING), cutoff), np.full(len(MOVING), RISE))


def quaternion(angles: F32) -> F32:
    """Quaternion x, y, z, w [4] of the rotation Rz Ry Rx for columns, of pitch, yaw, roll in radians."""
    (sx, sy, sz), (cx, cy, cz) = np.sin(angles / 2), np.cos(angles / 2)
    return np.array(
        [
            sx * cy * cz - cx * sy * sz,
            cx * sy * cz + sx * cy * sz,
            cx * cy * sz - sx * sy * cz,
            cx * cy * cz + sx * sy * sz,
        ],
        np.float32,
    )
