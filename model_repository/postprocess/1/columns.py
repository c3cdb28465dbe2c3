"""Puts the rows of an output together, one face each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

FILES = ("mesh", "texture_image", "preview")
WARNINGS, THUMBNAIL = "texture_warnings", "thumbnail"


def column(name: str, rows: Sequence[Any]) -> NDArray[Any]:
    """Make one tensor of the rows of an output, batch first.

    Args:
        name: the output's. Of sentences, rows with fewer end with empty ones; thumbnails are brought to the largest.
        rows: bytes of files, lists of bytes of sentences, arrays of one shape of everything else.
    """
    if name == WARNINGS:
        most = max(len(row) for row in rows)
        return np.array([[*row, *[b""] * (most - len(row))] for row in rows], np.object_).reshape(len(rows), most)
    if name in FILES:
        return np.array(rows, np.object_)[:, None]
    if name == THUMBNAIL:
        side = max(map(len, rows))
        rows = [
            row if len(row) == side else cv2.resize(row, (side, side), interpolation=cv2.INTER_LINEAR) for row in rows
        ]
    return np.stack(rows)
