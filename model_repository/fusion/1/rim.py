"""Where the border of what is exchanged goes: through what both photographs show alike."""

from __future__ import annotations

import cv2
import numpy as np
from channels import mean_of
from drawing import Drawing
from masks import near_eyes, smoothstep
from numpy.typing import NDArray

F32 = NDArray[np.float32]

# Shares of the face's side: how deep below the mask's rim the pictures have to agree, below the eyes and above them,
# where brows are near; and over what they are averaged for it.
BELOW_EYES, ABOVE_EYES, SMOOTH = (0.02, 0.08), (0.025, 0.06), 0.012
# Logarithms between which lightness and hue do not agree.
OFF_LIGHTNESS, OFF_HUE = (0.18, 0.4), (0.08, 0.16)
# Share of the face's side below which what the source's photograph does not show is a line; the share of a cell that is
# shown between which it counts as such; and by how much a difference counts more where it does not.
LINE, SEEN, STRICTER = 0.03, (0.0, 0.4), 0.8


def disagreeing(difference: F32, mask: F32, seen: F32, drawing: Drawing) -> F32:
    """Where, near the mask's rim, one of the pictures shows something else than the other's skin, 0..1.

    Hair, its shadow, collars that the parser takes for skin, and stubble that ends with the face: the border goes where
    the two pictures agree (Jia et al. 2006, "Drag-and-drop pasting", with a threshold for a shortest path).

    Args:
        difference: float32 [rows, columns, 3], logarithms of the drawn face for those of the target.
        mask: float32 [rows, columns] 0..1, where the source's face is to be.
        seen: float32 [rows, columns] 0..1, where the source's photograph shows skin.
        drawing: where the eyes are: brows are above them, and as dark as hair.
    """
    side = max(mask.shape)
    inside = np.pad((mask > 0.5).astype(np.uint8), 1)
    depth = cv2.distanceTransform(inside, cv2.DIST_L2, 3)[1:-1, 1:-1] / side
    depth = np.asarray(depth, np.float32)
    smooth = np.asarray(cv2.GaussianBlur(difference, (0, 0), SMOOTH * side), np.float32)
    lightness = mean_of(smooth)
    hue = mean_of(np.abs(smooth - lightness[..., None]))
    rows = np.flatnonzero(drawing.eyes.any(axis=1))
    above = np.arange(len(mask))[:, None] < (rows.max() if len(rows) else 0)
    near = 1 - np.where(above, smoothstep(depth, *ABOVE_EYES), smoothstep(depth, *BELOW_EYES))
    # What was completed may be wrong anywhere. Nostrils and the lines of lids, which are narrow, are features.
    around = 2 * round(LINE * side) + 1
    broad = cv2.morphologyEx(seen, cv2.MORPH_CLOSE, np.ones((around, around), np.uint8))
    unseen = 1 - smoothstep(np.asarray(broad, np.float32), *SEEN)
    lightness = np.maximum(lightness, np.maximum(-lightness, 0) * ~above) * (1 + STRICTER * unseen)
    other = np.maximum(smoothstep(lightness, *OFF_LIGHTNESS), smoothstep(hue * (1 + STRICTER * unseen), *OFF_HUE))
    other = np.maximum(near, unseen) * other * (1 - near_eyes(drawing))
    return np.asarray(cv2.GaussianBlur(other, (0, 0), SMOOTH * side), np.float32)
