"""Close-ups of faces lit from the side, each without the relief of `detail` and with it, to be looked at.

    python -m training.relief_sheet FOLDER OUTPUT.jpg [--leave-out PART ...]

Photographs of FOLDER (files of its index.csv, larger ones first); heads are finished and drawn by the modules of
`postprocess`, the light is divided out of their textures (`texture_light` albedo).
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import numpy.typing as npt

from export.pictures import load_picture
from export.samples import sample_of
from training.crops import Finder
from training.evaluate import SERVED_THRESHOLD
from training.evaluate_skin import Skin
from training.sheets import chosen, sheet_parser, write_sheet
from training.texture_measures import served, tables, turned_normals

F32 = npt.NDArray[np.float32]
U8 = npt.NDArray[np.uint8]

DRAWN = 760  # pixels of the whole head, of which a close-up shows the face
FACE = slice(196, 456), slice(212, 472)  # rows and columns of it
YAW = -20.0  # degrees
LAMP, AMBIENT, STRENGTH = (-0.85, 0.3, 0.43), 0.06, 1.5  # direction in the picture, and shares of the colour
SHINE, GLOSS = 0.10, 12.0


def close_ups(surface: Any, tensors: dict[str, npt.NDArray[Any]]) -> tuple[U8, U8] | None:
    """Draw a face lit from the side, without relief and with it; None where the photograph has none."""
    options = served("options").Options(detail=0.8, texture_size=2048, texture_light="albedo")
    files, preview = served("files").Files(surface, tensors, options), served("preview")
    relief = files._skin.relief_map("png")
    if relief is None:
        return None
    figure = files.upright
    turned, smooth = turned_normals(surface, relief, figure.vertices, surface.normals(figure.vertices))
    painted = figure.painted(files.finished)
    seen = preview.Scene(painted).from_side(YAW, DRAWN)
    colours = (preview.coloured(seen, painted.pictures) ** 2.2).astype(np.float32)
    a = np.radians(YAW)
    turn = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]], np.float32)
    skin = seen.part == 0
    drawn = []
    for normals in (smooth, turned):
        own = seen.normals.copy()
        own[skin] = _at(normals, seen.uv[skin]) @ turn.T
        picture = preview.draw(seen, _lit(colours, own), np.zeros((DRAWN, DRAWN, 3), np.uint8))
        drawn.append(picture[FACE])
    return drawn[0], drawn[1]


def _at(table: F32, uv: F32) -> F32:
    """Normals (n, 3) at texture coordinates (n, 2)."""
    side = len(table)
    columns = np.clip(np.rint(uv[:, 0] * side - 0.5), 0, side - 1).astype(np.intp)
    rows = np.clip(np.rint((1 - uv[:, 1]) * side - 0.5), 0, side - 1).astype(np.intp)
    return np.asarray(table[rows, columns], np.float32)


def _lit(linear: F32, normals: F32) -> F32:
    """Light colours (n, 3) by one lamp from the side: sRGB (n, 3), 0..1."""
    lamp = np.array(LAMP, np.float32) / np.linalg.norm(LAMP)
    halfway = lamp + np.array([0, 0, 1], np.float32)
    facing = np.maximum(normals @ lamp, 0)
    shine = SHINE * np.maximum(normals @ (halfway / np.linalg.norm(halfway)), 0) ** GLOSS * facing
    light = linear * (AMBIENT + STRENGTH * facing)[:, None] + shine[:, None]
    return np.asarray(light.clip(0, 1) ** (1 / 2.2), np.float32)


def main(arguments: argparse.Namespace) -> None:
    """Draw the sheet: two faces a row, each without relief and with it."""
    skin, find = Skin(arguments.weights), Finder()
    surface = tables(skin.model)
    pairs: list[U8] = []
    pictures = [(file, load_picture(arguments.folder / file)) for file in chosen(arguments)]
    for file, picture in sorted(pictures, key=lambda pair: -pair[1].size):
        sample = sample_of(file, picture, find, SERVED_THRESHOLD)
        drawn = None if sample is None else close_ups(surface, skin.tensors(picture, sample))
        if drawn is not None:
            pairs.append(np.hstack(drawn))
        if len(pairs) == arguments.count:
            break
    write_sheet(pairs, 0, arguments.output)


if __name__ == "__main__":
    main(sheet_parser(__doc__, count=10).parse_args())
