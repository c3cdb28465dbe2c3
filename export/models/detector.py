"""YuNet and O-Net as one graph, MTCNN as one graph, or a RetinaFace checkpoint."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from export.criteria import Criterion
from export.models.base import ExportedModel, Loaded
from export.official.retinaface import RetinaFaceDetector
from export.samples import Sample
from export.session import Feed
from networks.detector import contract
from networks.detector.cascade import Detector
from networks.detector.contract import example_inputs
from networks.detector.single_shot import SingleShotDetector
from networks.detector.weights import ONET, SCREEN, YUNET
from networks.head_model import AnyFaceModel

Floats = NDArray[np.float32]

SAME_IOU, SAME_POINTS = 0.85, 0.03
"""Two detectors agree on a face from this IoU on, and on its points within this part of the box's longer side."""


def iou(box: Floats, boxes: Floats) -> Floats:
    """Return the intersection over union of one box [4] with many [n,4]."""
    low, high = np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:4], boxes[:, 2:4])
    inter = np.prod(np.maximum(high - low, 0), axis=1)
    area = np.prod(boxes[:, 2:4] - boxes[:, :2], axis=1)
    return np.asarray(inter / np.maximum(np.prod(box[2:4] - box[:2]) + area - inter, 1e-9), np.float32)


class DetectorModel(ExportedModel):
    """The detector: canvas -> boxes, scores and five points."""

    name = "detector"
    weights = YUNET
    inputs = contract.INPUTS
    outputs = contract.OUTPUTS
    companion_files = (ONET, SCREEN)
    needs_face_model = False
    cpu_precisions = ("fp32",)

    def load(
        self, weights: Path | None, face_model: AnyFaceModel | None, recipe: str | None = None, fixed: bool = False
    ) -> Loaded:
        """Load YuNet from an ONNX file, MTCNN from a folder with its three files, or RetinaFace from another file.

        RetinaFace always has fixed sizes.
        """
        del face_model
        path = weights or self.weights
        if path.suffix == ".onnx" or path == self.weights:
            return SingleShotDetector.load(path, fixed=fixed), example_inputs()
        if path.is_file():
            return RetinaFaceDetector.load(path, recipe), example_inputs()
        return Detector.load(path, fixed), example_inputs()

    def feed(self, sample: Sample, earlier: Feed) -> Feed:
        """Return canvas and geometry."""
        del earlier
        return {"canvas": sample.canvas, "geometry": sample.geometry}

    def compare(self, expected: Feed, actual: Feed, feed: Feed) -> list[Criterion]:
        """Compare IoU and points of all faces that float32 scores from `FACE_THRESHOLD` on."""
        del feed
        same = points = total = 0
        overlaps = []
        for reference_rows, all_rows in zip(expected["faces"], actual["faces"], strict=True):
            candidates = all_rows[all_rows[:, 4] >= 0.5]
            for row in reference_rows[reference_rows[:, 4] >= contract.FACE_THRESHOLD]:
                total += 1
                overlap = iou(row[:4], candidates[:, :4])
                if not overlap.size:
                    overlaps.append(0.0)
                    continue
                best = int(overlap.argmax())
                overlaps.append(float(overlap[best]))
                same += overlap[best] >= SAME_IOU
                side = max(row[2] - row[0], row[3] - row[1])
                points += (
                    np.linalg.norm((row[5:] - candidates[best, 5:]).reshape(5, 2), axis=1).max() <= SAME_POINTS * side
                )
        return [
            Criterion("faces compared", float(total), 1, "at least"),
            Criterion(f"same faces (IoU >= {SAME_IOU})", same / max(1, total), 0.97, "at least"),
            Criterion(f"points within {SAME_POINTS:.0%} of the box", points / max(1, total), 0.97, "at least"),
            Criterion("mean IoU", float(np.mean(overlaps or [0.0]))),
        ]


MODEL = DetectorModel()
