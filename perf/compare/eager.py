"""A: what a notebook does. facenet-pytorch's MTCNN on the whole picture, then both networks in eager float32.

The weights are those that are served. facenet-pytorch 2.6.0 is imported as it is; of torchvision, which it wants and
which is not installed, it uses one function for this, and that is given here.
"""

from __future__ import annotations

import importlib.machinery
import io
import os
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps

from export.models import get_model
from networks.detector.reference import greedy_suppression
from networks.face_model import FaceModel
from perf.compare.work import Answer, HandWork
from server.repository import ROOT

FACENET = ROOT / ".tools" / "facenet-pytorch" / "facenet_pytorch"


class Eager:
    """One picture after the other."""

    def __init__(self) -> None:
        torch.set_num_threads(len(os.sched_getaffinity(0)))
        self._work = HandWork()
        self._detector = _mtcnn()
        model = FaceModel.load(ROOT / "weights" / "face_model.npz")
        self._regressor = get_model("regressor").load(None, model, None, False)[0].eval()
        self._texture = get_model("texture").load(None, model, None, False)[0].eval()

    def one(self, data: bytes) -> Answer:
        """A photograph's bytes to its answer."""
        with Image.open(io.BytesIO(data)) as opened:
            picture = ImageOps.exif_transpose(opened).convert("RGB")
        boxes, scores, points = self._detector.detect(picture, landmarks=True)
        if boxes is None:
            raise ValueError("no face was found")
        faces = np.concatenate([boxes, scores[:, None], points.reshape(len(boxes), 10)], axis=1).astype(np.float32)
        crop, crop_hd, context = self._work.aligned(np.asarray(picture), picture.size, faces)
        with torch.inference_mode():
            place = torch.from_numpy(context)[None]
            outputs = self._regressor(torch.from_numpy(crop)[None], place)
            regressed = dict(zip(get_model("regressor").outputs, outputs, strict=True))
            texture, *_ = self._texture(torch.from_numpy(crop_hd)[None], regressed["shapes"], place)
        numbers = {name: value[0].numpy() for name, value in regressed.items()}
        return self._work.answer(numbers, texture[0].numpy(), crop_hd, context)

    def many(self, files: list[bytes]) -> list[Answer]:
        """One after the other: eager PyTorch has no batch of cascades."""
        return [self.one(data) for data in files]


def _mtcnn(folder: Path = FACENET) -> Any:
    """facenet-pytorch's own class, without the package's `__init__` (which imports what is not needed)."""

    def batched_nms(boxes: torch.Tensor, scores: torch.Tensor, groups: torch.Tensor, limit: float) -> torch.Tensor:
        if not len(boxes):
            return torch.zeros(0, dtype=torch.long)
        apart = boxes + (groups.to(boxes) * (boxes.max() + 1))[:, None]
        return torch.tensor(greedy_suppression(apart.numpy(), scores.numpy(), limit), dtype=torch.long)

    for name in ("torchvision", "torchvision.ops", "torchvision.transforms"):
        sys.modules.setdefault(name, types.ModuleType(name))
    inner = types.ModuleType("torchvision.ops.boxes")
    inner.batched_nms = batched_nms  # type: ignore[attr-defined]
    sys.modules.setdefault("torchvision.ops.boxes", inner)
    sys.modules["torchvision.transforms"].functional = types.ModuleType("functional")  # type: ignore[attr-defined]
    package = types.ModuleType("facenet_pytorch")
    package.__path__ = [str(folder)]
    package.__spec__ = importlib.machinery.ModuleSpec("facenet_pytorch", None, is_package=True)
    sys.modules.setdefault("facenet_pytorch", package)
    from facenet_pytorch.models.mtcnn import MTCNN

    return MTCNN(keep_all=True, device="cpu", post_process=False)
