"""Apple's 52 face-tracking shapes as combinations of the head model's expressions; see arkit_names.py."""

from __future__ import annotations

import numpy as np
from arkit_names import EXPRESSIONS, NAMES, TONGUE_OUT, slots, weights_of
from head import F32, Head

__all__ = ["EXPRESSIONS", "NAMES", "TONGUE_OUT", "shapes", "weights"]


def shapes(head: Head) -> F32:
    """Compute each shape's displacement at full weight, [52, N, 3] float32 decimetres, in the order of `NAMES`."""
    slot = slots(head.expression_names)
    out = np.zeros((len(NAMES), *head.tongue_out.shape), np.float32)
    for row, (name, parts) in zip(out, EXPRESSIONS.items(), strict=True):
        for part in parts:
            row += head.expression[slot[part]]
        if name == TONGUE_OUT:
            row += head.tongue_out
    return out


def weights(head: Head, expression: F32) -> F32:
    """Find the ARKit weights [52], each within 0..1, nearest to expression coefficients [64]."""
    return weights_of(head.expression_names, expression)
