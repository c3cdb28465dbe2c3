"""Writes every file once at the start, so that the first request finds all libraries loaded."""

from __future__ import annotations

import numpy as np
from columns import FILES
from files import Files
from options import Options
from surface import Surface

# A face in the middle of a crop of 224 whose pixels are two of the source: box, score and five points.
FACE = (120, 100, 328, 360, 1, 162, 162, 286, 162, 224, 234, 174, 300, 274, 300)


def write_once(surface: Surface) -> None:
    """Write the files of a flat face, plain, with most options, and with a rig where the face model has one."""
    uv = np.zeros((surface.vertices, 2), np.float32)
    uv[surface.vertex] = surface.uv
    shape = np.column_stack([uv - 0.5, -((uv - 0.5) ** 2).sum(axis=1)]) * 2
    tensors = {
        "shapes": np.stack([shape] * 3).astype(np.float32),
        "fingerprint": np.array([surface.fingerprint]),
        "expression": np.zeros(64, np.float32),
        "texture": np.full((3, 1024, 1024), 127, np.uint8),
        "crop_hd": np.full((3, 512, 512), 127, np.uint8),
        "context": np.array([*FACE, 2, 2, 0, 0, 448 / 512, 448 / 512, 0, 0], np.float32),
        "places": np.stack([*np.mgrid[224:0:-0.875, 0:224:0.875][::-1], *np.ones((2, 256, 256))]).astype(np.float32),
        "parts": np.zeros((3, 128, 128), np.uint8),
        "close_up": np.full((512, 512, 3), 127, np.uint8),
        "close_up_camera": np.array([0.4, 0.4, 0, 0], np.float32),
    }
    options = Options(white_balance=True, texture_light="albedo", detail=1.0, hair="paint", texture_size=1152)
    for files in (Files(surface, tensors, Options()), Files(surface, tensors, options)):
        assert all(getattr(files, name) for name in FILES)
    if surface.head is not None:
        assert Files(surface, tensors, Options(rig="arkit")).mesh
