"""PyTorch as in a notebook: facenet-pytorch's MTCNN on the whole picture, then the other networks in eager float32.

Their weights are the served ones. facenet-pytorch 2.6.0 is imported as it is; it requires torchvision, which is not
installed, and uses one function of it here, which `_mtcnn` replaces.
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
from networks.head_model import load_face_model
from perf.compare.repository_steps import Reconstruction, RepositorySteps
from server.repository import ROOT

FACENET = ROOT / ".tools" / "wheels" / "facenet_pytorch"


class EagerPyTorch:
    """Processes one picture after the other."""

    def __init__(self) -> None:
        torch.set_num_threads(len(os.sched_getaffinity(0)))
        self._steps = RepositorySteps()
        self._detector = _mtcnn()
        model = load_face_model(ROOT / "weights" / "face_model.npz")
        self._regressor = get_model("regressor").load(None, model, None, False)[0].eval()
        self._parser = get_model("parser").load(None, None, None, False)[0].eval()
        self._texture = get_model("texture").load(None, model, None, False)[0].eval()

    def run(self, data: bytes) -> Reconstruction:
        """Reconstruct the best face of a photograph's file bytes.

        Raises:
            ValueError: no face was found.
        """
        with Image.open(io.BytesIO(data)) as opened:
            picture = ImageOps.exif_transpose(opened).convert("RGB")
        boxes, scores, points = self._detector.detect(picture, landmarks=True)
        if boxes is None:
            raise ValueError("no face was found")
        faces = np.concatenate([boxes, scores[:, None], points.reshape(len(boxes), 10)], axis=1).astype(np.float32)
        crop, crop_hd, context = self._steps.align(np.asarray(picture), picture.size, faces)
        with torch.inference_mode():
            batched_context = torch.from_numpy(context)[None]
            outputs = self._regressor(torch.from_numpy(crop)[None], batched_context)
            regressed = dict(zip(get_model("regressor").outputs, outputs, strict=True))
            parts = self._parser(torch.from_numpy(crop)[None], regressed["fingerprint"])
            feed = {
                "crop_hd": torch.from_numpy(crop_hd)[None],
                "shapes": regressed["shapes"],
                "context": batched_context,
                "parts": parts,
            }
            texture, *_ = self._texture(*(feed[name] for name in get_model("texture").inputs))
        numbers = {name: value[0].numpy() for name, value in regressed.items()}
        return self._steps.reconstruction(numbers, texture[0].numpy(), crop_hd, context)

    def run_batch(self, files: list[bytes]) -> list[Reconstruction]:
        """Reconstruct photographs one after the other: facenet-pytorch's cascade has no batches."""
        return [self.run(data) for data in files]


def _mtcnn(folder: Path = FACENET) -> Any:
    """Load facenet-pytorch's class without the package's `__init__`, which imports more than is installed."""

    def batched_nms(boxes: torch.Tensor, scores: torch.Tensor, groups: torch.Tensor, threshold: float) -> torch.Tensor:
        if not len(boxes):
            return torch.zeros(0, dtype=torch.long)
        separated = boxes + (groups.to(boxes) * (boxes.max() + 1))[:, None]
        return torch.tensor(greedy_suppression(separated.numpy(), scores.numpy(), threshold), dtype=torch.long)

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
