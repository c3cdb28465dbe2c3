"""A UV layout for face models without one: cylindrical projection about a vertical axis."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def cylindrical(mean: NDArray[np.float32]) -> NDArray[np.float32]:
    """Compute UV by the angle about a vertical axis behind the face (u) and by height (v).

    Args:
        mean: [N,3], x right, y up, z out of the face, in any unit.

    Returns:
        float32 [N,2] in 0..1, v up.
    """
    x, y, z = mean.T.astype(np.float64)
    # An axis well behind the face avoids overlaps at its sides and compression of its front.
    axis = z.min() - 0.25 * (z.max() - z.min())
    angle = np.arctan2(x - (x.min() + x.max()) / 2, z - axis)
    u = 0.5 + 0.49 * angle / np.abs(angle).max()
    v = 0.01 + 0.98 * (y - y.min()) / (y.max() - y.min())
    return np.asarray(np.stack([u, v], 1), np.float32)
