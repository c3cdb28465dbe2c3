"""The faces of a picture that the detector looked at in tiles: each once.

A face larger than the tiles' overlap is found on the whole picture, and every smaller one lies whole in some tile. So
what a tile shows cut at a border is left out, but at a border of the picture; of faces found more than once the best
score stays.
"""

from __future__ import annotations

import numpy as np
from merge_refusals import Refused
from numpy.typing import NDArray

SLOTS = 64
"""Rows of the result at least: as many as `detect` has."""
MOST = 512
"""Rows of the result at most: a crowd of as many faces of 12 megapixels has 150 pixels for each one's side."""
OVERLAP = 0.4
"""Intersection over union from which two boxes are one face, as in the detector."""
INSIDE = 0.75
"""Part of the smaller box that lies in a larger one, from which on it is a part of that face."""
EDGE = 1.0
"""Canvas pixels of 512 from a border within which a box counts as cut by it."""
CANVAS = 512
MAX_TILES = 64
"""Rows of a request; `preprocess` gives at most half as many."""
LONGEST = 1e8
"""Source pixels: coordinates beyond are of no picture."""

F32 = NDArray[np.float32]


def join(faces: F32, views: F32) -> F32:
    """Join the faces of a picture's tiles.

    Args:
        faces: float32 [T, K, 15] of the detector, in source pixels from a view's corner on; empty slots zero.
        views: float32 [T, 4], left, top, right and bottom border of each in source pixels; the first is the picture.

    Returns:
        [N, 15] in source pixels, best score first, empty slots zero; N is `SLOTS` to `MOST`.

    Raises:
        Refused: ``BadTensor``, shapes or values that the steps before do not give.
    """
    _check(faces, views)
    whole = views[0]
    kept = [_whole_faces(rows, view, whole) for rows, view in zip(faces, views, strict=True)]
    rows = np.concatenate(kept)
    rows = rows[np.argsort(-rows[:, 4], kind="stable")]
    rows = rows[_suppressed(rows[:, :4])][:MOST]
    result = np.zeros((max(SLOTS, len(rows)), faces.shape[2]), np.float32)
    result[: len(rows)] = rows
    return result


def _check(faces: F32, views: F32) -> None:
    if faces.ndim != 3 or views.shape != (len(faces), 4) or not 1 <= len(faces) <= MAX_TILES or faces.shape[2] != 15:
        raise Refused(
            "BadTensor",
            f"`tile_faces` and `tile_view` have shapes {list(faces.shape)} and {list(views.shape)}: send [T, 64, 15] "
            f"and [T, 4], T from 1 to {MAX_TILES}.",
        )
    if not (np.abs(faces) <= LONGEST).all() or not (np.abs(views) <= LONGEST).all():  # a NaN fails
        raise Refused("BadTensor", "`tile_faces` or `tile_view` is of no picture: send what the steps before give.")


def _whole_faces(rows: F32, view: F32, whole: F32) -> F32:
    """Move a view's faces to where they are in the picture, without those that a border inside the picture cuts."""
    rows = rows[rows[:, 4] > 0].copy()
    edge = EDGE * max(view[2] - view[0], view[3] - view[1]) / CANVAS
    rows[:, [0, 2, *range(5, 15, 2)]] += view[0]
    rows[:, [1, 3, *range(6, 15, 2)]] += view[1]
    low = np.where(view[:2] > whole[:2], view[:2] + edge, -np.inf)
    high = np.where(view[2:] < whole[2:], view[2:] - edge, np.inf)
    return np.asarray(rows[((rows[:, :2] > low) & (rows[:, 2:4] < high)).all(1)])


def _suppressed(boxes: F32) -> list[int]:
    """Return which boxes [n, 4], best first, stay when those that a better one covers go."""
    areas = (boxes[:, 2:] - boxes[:, :2]).clip(0).prod(1)
    kept: list[int] = []
    for index, box in enumerate(boxes):
        better, sizes = boxes[kept], areas[kept]
        sides = np.minimum(better[:, 2:], box[2:]) - np.maximum(better[:, :2], box[:2])
        shared = sides.clip(0).prod(1)
        same = shared > OVERLAP * (sizes + areas[index] - shared)
        part = shared > INSIDE * np.minimum(sizes, areas[index])
        if not (same | part).any():
            kept.append(index)
    return kept
