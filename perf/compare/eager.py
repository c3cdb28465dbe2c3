"""PyTorch as in a notebook: a detector, then the other networks in eager float32, with the served weights.

The detector is that of this family's pipelines, facenet-pytorch's MTCNN on the whole picture, or the served one, on the
canvas that the service gives it. facenet-pytorch 2.6.0 is imported as it is; it requires torchvision, which is not
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
from perf.compare.repository_steps import Answer, Array, RepositorySteps
from server.repository import ROOT

FACENET = ROOT / ".tools" / "wheels" / "facenet_pytorch"

Found = tuple[Array, tuple[float, float], Array]
"""Pixels uint8 [h, w, 3], width and height of the photograph, faces float32 [n, 15] in its pixels."""


class FamilyDetector:
    """The family's: Pillow decodes the whole picture, and facenet-pytorch's cascade goes over it."""

    def __init__(self, steps: RepositorySteps) -> None:
        del steps
        self._detector = _mtcnn()

    def find(self, data: bytes) -> Found:
        """Decode a photograph's file bytes and find its faces.

        Raises:
            ValueError: no face was found.
        """
        with Image.open(io.BytesIO(data)) as opened:
            picture = ImageOps.exif_transpose(opened).convert("RGB")
        boxes, scores, points = self._detector.detect(picture, landmarks=True)
        if boxes is None:
            raise ValueError("no face was found")
        faces = np.concatenate([boxes, scores[:, None], points.reshape(len(boxes), 10)], axis=1).astype(np.float32)
        return np.asarray(picture), picture.size, faces


class ServedDetector:
    """The service's: its decoder, and its detector in eager float32 on the canvas."""

    def __init__(self, steps: RepositorySteps) -> None:
        self._steps = steps
        self._detector = get_model("detector").load(None, None, None, False)[0].eval()

    def find(self, data: bytes) -> Found:
        """Decode a photograph's file bytes and find its faces."""
        pictures = self._steps.pictures
        picture = pictures.decode(data, self._steps.limits)
        canvas, ratio = pictures.canvas_of(picture)
        geometry = pictures.geometry_of(picture, ratio)
        with torch.inference_mode():
            faces = self._detector(torch.from_numpy(np.array(canvas))[None], torch.from_numpy(geometry)[None])
        return picture.pixels, picture.source, faces[0].numpy()


class EagerEmbedder:
    """Embeds one picture after the other, with the served networks."""

    def __init__(self) -> None:
        torch.set_num_threads(len(os.sched_getaffinity(0)))
        self._steps = RepositorySteps()
        self._detector = ServedDetector(self._steps)
        self._embedder = get_model("embedder").load(None, None, None, False)[0].eval()

    def run(self, data: bytes) -> Answer:
        """Embed the best face of a photograph's file bytes."""
        aligned, quality = self._steps.upright(*self._detector.find(data))
        with torch.inference_mode():
            embedding, *_ = self._embedder(torch.from_numpy(aligned)[None])
        return self._steps.embedding(embedding[0].numpy(), quality)

    def run_batch(self, files: list[bytes]) -> list[Answer]:
        """Embed photographs one after the other."""
        return [self.run(data) for data in files]


class EagerPyTorch:
    """Reconstructs one picture after the other."""

    def __init__(self, detector: type[FamilyDetector | ServedDetector] = FamilyDetector) -> None:
        torch.set_num_threads(len(os.sched_getaffinity(0)))
        self._steps = RepositorySteps()
        self._detector = detector(self._steps)
        model = load_face_model(ROOT / "weights" / "face_model.npz")
        self._regressor = get_model("regressor").load(None, model, None, False)[0].eval()
        self._parser = get_model("parser").load(None, None, None, False)[0].eval()
        self._texture = get_model("texture").load(None, model, None, False)[0].eval()

    def run(self, data: bytes) -> Answer:
        """Reconstruct the best face of a photograph's file bytes.

        Raises:
            ValueError: no face was found.
        """
        crop, crop_hd, context = self._steps.align(*self._detector.find(data))
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
            painted = self._texture(*(feed[name] for name in get_model("texture").inputs))
        numbers = {name: value[0].numpy() for name, value in regressed.items()}
        texture = dict(zip(get_model("texture").outputs, (value[0].numpy() for value in painted), strict=False))
        return self._steps.reconstruction(numbers, texture, parts[0].numpy(), crop_hd, context)

    def run_batch(self, files: list[bytes]) -> list[Answer]:
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
