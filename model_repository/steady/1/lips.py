"""Lips that a frame shows closed, closed: as `postprocess` does for a photograph, but without a jump between frames.

How far lips are apart is a linear function of the coefficients, and so is what ``mouthClose`` takes from it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]

CLOSED_DM, OPEN_DM = 0.04, 0.065
"""Decimetres further apart than without expression: closed lips up to the first, open ones from the second on."""
OVERLAP_DM = 0.006
"""How far closed lips overlap, in decimetres: their middle touches before their sides do."""
MOUTH_CLOSE = "mouthClose"


class Lips:
    """The lips of a head model.

    Args:
        names: of the 64 expressions.
        gaps: float32 [145], decimetres between the inner lips: of the mean face, of 80 modes of identity, of 64 of
            expression; empty for a face model without such expressions.
    """

    def __init__(self, names: Sequence[str], gaps: F32) -> None:
        self._slot = list(names).index(MOUTH_CLOSE) if MOUTH_CLOSE in names and len(gaps) == 145 else None
        self._mean, self._identity, self._expression = gaps[:1].sum(), gaps[1:81], gaps[81:]

    def closed(self, identity: F32, expression: F32) -> F32:
        """Return the expression [64] with lips closed that are hardly open.

        Args:
            identity: float32 [80].
            expression: float32 [64].
        """
        if self._slot is None:
            return expression
        opened = float(expression @ self._expression)
        share = 1 - _smoothstep((opened - CLOSED_DM) / (OPEN_DM - CLOSED_DM))
        gap = float(self._mean + identity @ self._identity) + opened
        more = share * max(0.0, gap + OVERLAP_DM) / -float(self._expression[self._slot])
        changed = expression.copy()
        changed[self._slot] += more
        return changed


def _smoothstep(x: float) -> float:
    x = min(max(x, 0.0), 1.0)
    return x * x * (3 - 2 * x)
