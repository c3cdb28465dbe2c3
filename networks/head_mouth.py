"""Lips that a photograph shows closed, closed.

The regressor's landmarks are some millimetres off; between lips that is a slit with teeth in it. Face model 1 hid it
behind a patch of skin, the whole head would show it. How far lips are apart is a linear function of the coefficients,
and so is what ``mouthClose`` takes from it.
"""

from __future__ import annotations

import numpy as np

from networks.head_model import F32, HeadModel

# Inner lips in iBUG-68: three above and the three below them.
_UPPER, _LOWER = [61, 62, 63], [67, 66, 65]
# Decimetres further apart than in the neutral face, up to which lips count as closed: on eight photographs closed lips
# came out 0 to 4 mm apart, smiles that show teeth 9 and 10.
CLOSED_DM = 0.05
# How far closed lips overlap, in decimetres: their middle touches before their sides do.
OVERLAP_DM = 0.006


def lip_gap(model: HeadModel, vertices: F32) -> float:
    """Mean height of the opening between the inner lips of a shape (N, 3) or displacement, decimetres."""
    upper, lower = vertices[model.landmarks[_UPPER], 1], vertices[model.landmarks[_LOWER], 1]
    return float((upper - lower).mean())


def close_lips(model: HeadModel, identity: F32, expression: F32, closed: float = CLOSED_DM) -> F32:
    """Expression coefficients (64,) with lips closed that are hardly open.

    Args:
        model: the head.
        identity: (80,) coefficients.
        expression: (64,) coefficients.
        closed: decimetres beyond the neutral face's gap up to which lips count as closed.

    Returns:
        ``expression`` itself where the mouth is open, else a copy with more of ``mouthClose``.
    """
    marks = model.landmarks[_UPPER + _LOWER]
    sign = np.array([1.0] * 3 + [-1.0] * 3, np.float32) / 3
    neutral = float(sign @ (model.mean[marks, 1] + np.tensordot(identity, model.identity[:, marks, 1], 1)))
    opened = float(sign @ np.tensordot(expression, model.expression[:, marks, 1], 1))
    if opened >= closed:
        return expression
    slot = model.expression_names.index("mouthClose")
    closes = -float(sign @ model.expression[slot, marks, 1])
    result = expression.copy()
    result[slot] += max(0.0, neutral + opened + OVERLAP_DM) / closes
    return result
