"""Sheets of pictures, two faces a row, and the options of the commands that draw them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from training.crops import listed

U8 = npt.NDArray[np.uint8]

QUALITY = 85  # of the JPEG


def sheet_parser(description: str | None, count: int) -> argparse.ArgumentParser:
    """Make the parser of a command that draws a sheet of so many faces of a folder."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--weights", type=Path, default=Path("weights"))
    parser.add_argument("--count", type=int, default=count)
    parser.add_argument(
        "--leave-out", nargs="*", default=(), help="parts of file names: people who are in the training set too"
    )
    return parser


def chosen(arguments: argparse.Namespace) -> list[str]:
    """List the pictures of the folder whose names hold none of the parts that are left out."""
    return [file for file in listed(arguments.folder) if not any(part in file for part in arguments.leave_out)]


def write_sheet(faces: Sequence[U8], blank: int, output: Path) -> None:
    """Write a sheet as a JPEG file.

    Args:
        faces: uint8 [h, w, 3] RGB each, at least one, of one size.
        blank: level of the last place where the faces are odd in number.
        output: the file; its folder is made.
    """
    rest = [np.full_like(faces[0], blank)] * (len(faces) % 2)
    both = [*faces, *rest]
    sheet = np.vstack([np.hstack(both[k : k + 2]) for k in range(0, len(both), 2)])
    output.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(output), sheet[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
