"""`python -m training.evaluate_detection IMAGES GROUND_TRUTH`: average precision by WiderFace's own protocol.

IMAGES is the folder `WIDER_val/images`, GROUND_TRUTH the folder `ground_truth` of the published evaluation tools, with
`wider_face_val.mat` and one list for each of easy, medium and hard. Neither comes with this project; both are read as
data. Faces are found as the service does it, by the exported detector.

Protocol (Yang et al., "WIDER FACE", 2016, and its eval_tools): faces best first; one that overlaps a true face by half
or more is right, unless that one was found before; true faces outside of the list, what was found there, and pictures
without a true face do not count. Precision and recall are taken at 1,000 thresholds of the scores, spread over their
range, and averaged as PASCAL VOC does.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from export.errors import ExportError
from export.options import ROOT
from export.pictures import canvas_of, load_picture
from export.session import Session

Floats = NDArray[np.float64]
Detect = Callable[[Path], Floats]

LISTS: Final = ("easy", "medium", "hard")
OVERLAP: Final = 0.5
THRESHOLDS: Final = 1000


@dataclass(frozen=True)
class Image:
    """A picture of the protocol.

    Attributes:
        path: of the file.
        boxes: float64 [n,4], true faces: x, y, width, height in pixels.
        counted: list -> bool [n], which of them belong to it.
    """

    path: Path
    boxes: Floats
    counted: Mapping[str, NDArray[np.bool_]]


def read_protocol(images: Path, ground_truth: Path) -> Iterator[Image]:
    """Read true faces and lists.

    Raises:
        ExportError: a file is missing or has another layout.
    """
    try:
        whole = loadmat(str(ground_truth / "wider_face_val.mat"))
        lists = {name: loadmat(str(ground_truth / f"wider_{name}_val.mat"))["gt_list"] for name in LISTS}
        for event, entry in enumerate(whole["event_list"][:, 0]):
            folder = str(entry[0])
            for number, name in enumerate(whole["file_list"][event, 0][:, 0]):
                boxes = np.asarray(whole["face_bbx_list"][event, 0][number, 0], np.float64).reshape(-1, 4)
                counted = {}
                for which, places in lists.items():
                    counted[which] = np.zeros(len(boxes), bool)
                    counted[which][np.asarray(places[event, 0][number, 0], np.int64).ravel() - 1] = True
                yield Image(images / folder / f"{name[0]}.jpg", boxes, counted)
    except (OSError, MatReadError, NotImplementedError, KeyError, IndexError, ValueError, TypeError) as error:
        raise ExportError(f"{ground_truth} is not WiderFace's ground_truth folder ({error}).") from error


def overlaps(found: Floats, true: Floats) -> Floats:
    """Return the intersection over union of x, y, width, height [m,4] and [n,4], float64 [m,n], in whole pixels."""
    low = np.maximum(found[:, None, :2], true[:, :2])
    high = np.minimum((found[:, :2] + found[:, 2:])[:, None], true[:, :2] + true[:, 2:])
    shared = np.clip(high - low + 1, 0, None).prod(2)
    areas = [(boxes[:, 2:] + 1).prod(1) for boxes in (found, true)]
    return np.asarray(shared / (areas[0][:, None] + areas[1] - shared))


def judged(found: Floats, image: Image, which: str) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Judge the faces that were found in a picture, best first.

    Args:
        found: float64 [m,5], x, y, width, height, score.
        image: the truth.
        which: the list.

    Returns:
        bool [m], which count at all, and which find a true face that no better one has found.
    """
    counts, right = np.ones(len(found), bool), np.zeros(len(found), bool)
    if not len(image.boxes):
        return ~counts, right
    shared, seen = overlaps(found[:, :4], image.boxes), set()
    for place, best in enumerate(shared.argmax(1).tolist()):
        if shared[place, best] < OVERLAP:
            continue
        if not image.counted[which][best]:
            counts[place] = False
        elif best not in seen:
            seen.add(best)
            right[place] = True
    return counts, right


def average_precision(images: Sequence[Image], faces: Sequence[Floats], which: str) -> float:
    """Compute the average precision of a list, 0..1.

    Args:
        images: the truth.
        faces: of each picture, float64 [m,5], best first, scores spread over 0..1.
        which: the list.
    """
    total = sum(int(image.counted[which].sum()) for image in images)
    verdicts = [judged(found, image, which) for image, found in zip(images, faces, strict=True)]
    scores = np.concatenate([found[:, 4] for found in faces])
    counts, right = (np.concatenate([verdict[side] for verdict in verdicts]) for side in (0, 1))
    thresholds = 1 - np.arange(1, THRESHOLDS + 1) / THRESHOLDS
    above = scores[None] >= thresholds[:, None]
    taken, hits = (above & counts).sum(1), (above & right).sum(1)
    recall, precision = hits / max(total, 1), hits / np.maximum(taken, 1)
    recall, precision = np.concatenate([[0], recall, [1]]), np.concatenate([[0], precision, [0]])
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    return float((np.diff(recall) * precision[1:]).sum())


def detector(file: Path) -> Detect:
    """Return the repository's detector as a function: a picture's file -> float64 [m,5], x, y, width, height, score."""
    if not file.is_file():
        raise ExportError(f"{file} is not there: run `make export`.")
    session = Session(file)

    def detect(path: Path) -> Floats:
        canvas, geometry = canvas_of(load_picture(path))
        rows = session({"canvas": canvas[None], "geometry": geometry[None]})["faces"][0].astype(np.float64)
        rows = rows[rows[:, 4] > 0]
        return np.column_stack([rows[:, :2], rows[:, 2:4] - rows[:, :2], rows[:, 4]])

    return detect


def measure(images: Sequence[Image], detect: Detect) -> dict[str, Any]:
    """Find the faces of every picture and compute the average precision of each list."""
    faces = [detect(image.path) for image in images]
    scores = np.concatenate([found[:, 4] for found in faces] or [np.zeros(0)])
    low, high = (float(scores.min()), float(scores.max())) if len(scores) else (0.0, 1.0)
    for found in faces:
        found[:, 4] = (found[:, 4] - low) / max(high - low, 1e-9)
    return {
        "pictures": len(images),
        "found": len(scores),
        "faces": {which: sum(int(image.counted[which].sum()) for image in images) for which in LISTS},
        "average precision": {which: average_precision(images, faces, which) for which in LISTS},
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0: done, 2: it makes no sense."""
    parser = argparse.ArgumentParser(
        prog="python -m training.evaluate_detection",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("images", type=Path, help="WIDER_val/images")
    parser.add_argument("ground_truth", type=Path, help="the evaluation tools' ground_truth folder")
    parser.add_argument("--repository", type=Path, default=ROOT / "model_repository", metavar="DIR")
    parser.add_argument("--version", type=int, default=1, metavar="N", help="of the detector (1)")
    options = parser.parse_args(arguments)
    try:
        detect = detector(options.repository / "detector" / str(options.version) / "model.onnx")
        figures = measure(list(read_protocol(options.images, options.ground_truth)), detect)
    except (ExportError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(json.dumps(figures, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
