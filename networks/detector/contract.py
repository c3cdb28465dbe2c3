"""What every detector of the repository takes and gives: names, sizes, and inputs to trace one with."""

from __future__ import annotations

import torch
from torch import Tensor

INPUTS = ("canvas", "geometry")
OUTPUTS = ("faces",)
CANVAS = 512
"""Side of the canvas in pixels."""
GREY = 127.0
"""Level of the canvas around the picture."""
SLOTS = 64
"""Rows of the output."""
MIN_SCORE = 0.3
"""Lowest score that is reported; the models that read the faces apply their own threshold."""
FACE_THRESHOLD = 0.7
"""Score, 0..1, from which on a detection counts as a face where detectors are compared: the default of `align`."""


def example_inputs(batch: int = 2) -> tuple[Tensor, Tensor]:
    """Return a black canvas uint8 [B,3,512,512] and its geometry float32 [B,6], to trace with."""
    geometry = torch.tensor([[CANVAS, CANVAS, 1, 1, 1, 1]], dtype=torch.float32)
    return torch.zeros(batch, 3, CANVAS, CANVAS, dtype=torch.uint8), geometry.repeat(batch, 1)


def gather_rows(rows: Tensor, index: Tensor) -> Tensor:
    """Gather rows [B,n,c] at indices [B,k]: [B,k,c]."""
    return torch.gather(rows, 1, index[..., None].expand(-1, -1, rows.shape[2]))
