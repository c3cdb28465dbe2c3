"""Do the pictures that measure show what the pictures that train show? Near-duplicates of two folders, by face.

    python -m training.overlap TRAINING_FOLDER TRAINING_LABELS.npz FOLDER LABELS.npz

Faces are cut out by the teacher's points; their fine structure (64 px, without the slow shades that light makes) is
correlated, also mirrored. That finds the same photograph, cropped, scaled or recoded. It does not find the same person
in another photograph: names do that, where there are any (see the model card).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch

from training.regressor import cut_pictures
from training.render import MARGIN

# Correlation above which two faces are looked at. Among the pictures of the model card different people, aligned alike,
# reach 0.77; a photograph scaled to a half and recoded stays above 0.9 (tests/training/test_overlap.py).
SUSPECT = 0.8


def fine_structure(faces: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Reduce grey pictures (n, H, W) to (n, 4096), each row of mean 0 and length 1."""
    rows = []
    for face in faces:
        small = cv2.resize(face, (64, 64), interpolation=cv2.INTER_AREA).astype(np.float32)
        row = (small - cv2.GaussianBlur(small, (0, 0), 6)).ravel()
        rows.append((row - row.mean()) / (np.linalg.norm(row - row.mean()) + 1e-6))
    return np.asarray(np.stack(rows), np.float32)


def nearest(
    training: npt.NDArray[np.uint8], measuring: npt.NDArray[np.uint8]
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float32]]:
    """Find for each measuring face (m, H, W) the most alike training face of (n, H, W): number, correlation (m,)."""
    known = fine_structure(training)
    both = [fine_structure(faces) @ known.T for faces in (measuring, np.ascontiguousarray(measuring[:, :, ::-1]))]
    alike = np.maximum(*both)
    return alike.argmax(1), alike.max(1)


def grey_faces(folder: Path, labels: Path) -> npt.NDArray[np.uint8]:
    """Cut the inner part out of the aligned crops, (n, 144, 144) grey."""
    crops: torch.Tensor = cut_pictures(folder, labels)[0]
    inner = slice(MARGIN + 40, MARGIN + 184)
    return crops[:, :, inner, inner].float().mean(1).round().byte().numpy()


def file_names(labels: Path) -> list[str]:
    """Return the labelled files, in the order of `cut_pictures`."""
    with np.load(labels, allow_pickle=False) as data:
        return [str(file) for file in data["files"][np.isfinite(data["points"][:, 0, 0])]]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("training", "training_labels", "measuring", "measuring_labels"):
        parser.add_argument(name, type=Path)
    options = parser.parse_args()
    found, alike = nearest(
        grey_faces(options.training, options.training_labels), grey_faces(options.measuring, options.measuring_labels)
    )
    known_files, files = file_names(options.training_labels), file_names(options.measuring_labels)
    for k in np.argsort(-alike):
        if alike[k] > SUSPECT:
            print(f"{files[k]} looks like {known_files[found[k]]}: correlation {alike[k]:.2f}")
    print(f"{(alike > SUSPECT).sum()} of {len(files)} faces are suspect; most alike pair {alike.max():.2f}, "
          f"median {np.median(alike):.2f}")  # fmt: skip
