"""The One-Euro filter: steady while a signal rests, without delay while it moves.

Casiez, Roussel and Vogel, "1 Euro Filter: A Simple Speed-based Low-pass Filter for Noisy Input in Interactive Systems"
(CHI 2012): a first-order low-pass whose cut-off rises with the signal's speed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]

SPEED_CUTOFF = 1.0
"""Hertz: cut-off of the speed itself, as in the paper."""


@dataclass
class OneEuro:
    """A filter of a vector.

    Attributes:
        cutoff: float64 [n], hertz, of each number at rest.
        rise: float64 [n], hertz for one unit a second.
        value, speed: the last ones; None before the first.
    """

    cutoff: F64
    rise: F64
    value: F64 | None = None
    speed: F64 | None = None

    def step(self, value: F64, seconds: float) -> F64:
        """Filter the next value [n], ``seconds`` after the one before."""
        if self.value is None or self.speed is None:
            self.value, self.speed = value, np.zeros_like(value)
            return value
        speed = (value - self.value) / seconds
        self.speed = self.speed + _share(np.full_like(value, SPEED_CUTOFF), seconds) * (speed - self.speed)
        share = _share(self.cutoff + self.rise * np.abs(self.speed), seconds)
        self.value = self.value + share * (value - self.value)
        return self.value


def _share(cutoff: F64, seconds: float) -> F64:
    """Part of a new value that passes a low-pass of this cut-off in hertz."""
    turn = 2 * np.pi * cutoff * seconds
    return np.asarray(turn / (1 + turn))
