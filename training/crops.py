"""Faces of a folder, found and cut out exactly as the service does it: what texture training and evaluation look at."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from export.pictures import load_picture
from export.samples import THRESHOLD, Sample, sample_of
from networks.detector.single_shot import SingleShotDetector


class Finder:
    """The detector's PyTorch module behind the signature that `export.samples` wants."""

    def __init__(self) -> None:
        self.detector = SingleShotDetector.load()

    @torch.no_grad()
    def __call__(self, canvas: npt.NDArray[np.uint8], geometry: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        faces: npt.NDArray[np.float32] = self.detector(torch.from_numpy(canvas), torch.from_numpy(geometry)).numpy()
        return faces


def faces_of(
    folder: Path, files: list[str], label: str, threshold: float = THRESHOLD
) -> Iterator[tuple[int, Sample | None]]:
    """Yield (index, best face or None where none has that score) of each picture."""
    find = Finder()
    for k, file in enumerate(tqdm(files, desc=label, mininterval=5)):
        yield k, sample_of(file, load_picture(folder / file), find, threshold)


def listed(folder: Path) -> list[str]:
    """Read the file names of the folder's index.csv."""
    with (folder / "index.csv").open(newline="") as handle:
        return [row["file"] for row in csv.DictReader(handle)]
