"""Where the surface of a fitted head lies in its photograph, more exactly than the fit says.

A head that is fitted to some fifty points lies beside the teacher's points by 1.6 % of the outer-eye distance, in each
photograph otherwise. A head that is painted with it shows mouth and eyes beside their places, alike in all of its
renders, which no network can tell from the person's shape. What all photographs have in common stays: it is how the
teacher's points differ from the surface's.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.interpolate import RBFInterpolator
from scipy.spatial import cKDTree

Float = npt.NDArray[np.float64]
# A point whose place wanders more than this over the renders (mm, median absolute deviation) slides along the surface.
MAX_SCATTER_MM = 4.0
SMOOTH = 0.1  # of the spline, whose kernel is the distance in decimetres: the points have noise of their own
NEAR_DM, FADE_DM = 0.05, 0.2  # so far from the points all of the move is made, and so fast it ends


class Seen(NamedTuple):
    """A head in its photograph.

    Attributes:
        places: (M, 2) pixels of its vertices by the fit.
        points: (478, 2) pixels of the teacher's points.
        frame: (2, 2), pixels per decimetre along the face's own axes: ``pixels = decimetres @ frame``.
    """

    places: Float
    points: Float
    frame: Float


class Registration:
    """Moves what photographs show of heads to where the teacher's points say that it is.

    Args:
        teacher_map: of `training.teacher_map`, the teacher's points on face model 1.
        mean: (V, 3) of face model 1, decimetres.
        neutral: (M, 3) of the exact heads, in the same frame and unit.
        photographs: from whose median it is told what they have in common.
    """

    def __init__(self, teacher_map: Path, mean: Float, neutral: Float, photographs: Sequence[Seen]) -> None:
        with np.load(teacher_map, allow_pickle=False) as found:
            steady = np.flatnonzero(found["scatter_mm"] < MAX_SCATTER_MM)
            vertices = cKDTree(neutral).query(mean[found["vertex"][steady]])[1]
        # One point for a vertex: two of them at one place have no spline.
        self.vertices, first = np.unique(vertices, return_index=True)
        self.points = steady[first]
        self.neutral, self.places = neutral, neutral[self.vertices]
        distance = cKDTree(self.places).query(neutral)[0]
        self.share = np.exp(-np.square(np.clip(distance - NEAR_DM, 0, None) / FADE_DM))[:, None]
        self.common = np.median([self._left(seen) for seen in photographs], 0)

    def _left(self, seen: Seen) -> Float:
        """What the fit leaves at the points (T, 2), decimetres along the face's own axes."""
        return np.asarray((seen.points[self.points] - seen.places[self.vertices]) @ np.linalg.inv(seen.frame))

    def moved(self, seen: Seen) -> Float:
        """Return the vertices' places (M, 2), pixels, such that they agree with the teacher's points."""
        field = RBFInterpolator(self.places, self._left(seen) - self.common, smoothing=SMOOTH, kernel="linear")
        return np.asarray(seen.places + field(self.neutral) * self.share @ seen.frame)
