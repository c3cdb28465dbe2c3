"""Step 1, label: MediaPipe Face Mesh (Apache-2.0) gives 478 points for every picture of a folder.

Runs in an environment of its own, because mediapipe pins old versions of shared libraries::

    python -m venv .tools/teacher && .tools/teacher/bin/pip install mediapipe==0.10.21 tqdm
    .tools/teacher/bin/python training/label.py PICTURES LABELS.npz

Only the points' image positions are used as labels. Against heads of exactly known geometry the teacher's depth is no
better than its own mean face, so nothing three-dimensional is learned from it.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from typing import Any

import cv2
import mediapipe as mp
import numpy as np
import numpy.typing as npt
from tqdm import tqdm

POINTS = 478


def _read(path: Path) -> npt.NDArray[Any] | None:
    """Read a picture (H, W, 3) BGR; None where there is none, which cv2's types leave out."""
    return cv2.imread(str(path))


def label(folder: Path, output: Path) -> None:
    """Label the pictures of a folder's index.csv.

    Writes ``files`` (n,), ``licences`` (n,), ``notes`` (n,) and ``points`` (n, 478, 3) float32: column and row in
    source pixels, depth in their unit; NaN where no face was found.
    """
    with (folder / "index.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    points = np.full((len(rows), POINTS, 3), np.nan, np.float32)
    mesh = mp.solutions.face_mesh.FaceMesh(static_image_mode=True, max_num_faces=1, refine_landmarks=True)
    for k, row in enumerate(tqdm(rows, desc=f"label {folder.name}", mininterval=2)):
        picture = _read(folder / row["file"])
        if picture is None:
            continue
        height, width = picture.shape[:2]
        found = mesh.process(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)).multi_face_landmarks
        if found:
            # MediaPipe's 0..1 runs over the picture's edges; pixel centres lie half a pixel inside.
            points[k] = [(p.x * width - 0.5, p.y * height - 0.5, p.z * width) for p in found[0].landmark]
    output.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        output,
        files=np.array([r["file"] for r in rows]),
        licences=np.array([r["licence"] for r in rows]),
        notes=np.array([r["note"] for r in rows]),
        points=points,
    )
    print(f"{int(np.isfinite(points[:, 0, 0]).sum())} of {len(rows)} pictures labelled -> {output}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", type=Path, help="folder with index.csv (file, licence, note)")
    parser.add_argument("labels", type=Path, help="output .npz")
    arguments = parser.parse_args()
    label(arguments.pictures, arguments.labels)
