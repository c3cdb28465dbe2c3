"""The enhancement network: a soft, noisy or enlarged part of a face -> the same, sharper and cleaner."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np

from export.criteria import Criterion
from export.models.base import WEIGHTS, ExportedModel, Loaded
from export.official import checkpoint
from export.samples import Sample
from export.session import Feed
from networks.enhance import TILE, Enhance, EnhanceNet, example_inputs
from networks.head_model import AnyFaceModel


class EnhanceModel(ExportedModel):
    """The enhancement network."""

    name = "enhance"
    weights = WEIGHTS / "enhance.safetensors"
    inputs = Enhance.INPUTS
    outputs = Enhance.OUTPUTS
    needs_face_model = False
    calibration_error = "enhanced, mean squared error in levels"

    def load(
        self, weights: Path | None, face_model: AnyFaceModel | None, recipe: str | None = None, fixed: bool = False
    ) -> Loaded:
        """Load the network."""
        del face_model, recipe, fixed
        path = weights or self.weights
        network = EnhanceNet()
        checkpoint.load_strictly(network, checkpoint.state_dict(checkpoint.read(path), path), path)
        return Enhance(network).eval(), example_inputs()

    def feed(self, sample: Sample, earlier: Feed) -> Feed:
        """Return the middle of the 512 px crop as a photograph of half as many pixels shows it."""
        del earlier
        first = (sample.crop_hd.shape[-1] - TILE) // 2
        middle = sample.crop_hd[0, :, first : first + TILE, first : first + TILE].transpose(1, 2, 0)
        small = cv2.resize(np.ascontiguousarray(middle), (TILE // 2, TILE // 2), interpolation=cv2.INTER_AREA)
        kept = cv2.imdecode(cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 80])[1], cv2.IMREAD_COLOR)
        large = np.asarray(cv2.resize(kept, (TILE, TILE), interpolation=cv2.INTER_LANCZOS4), np.uint8)
        return {"tile": np.ascontiguousarray(large.transpose(2, 0, 1)[None])}

    def compare(self, expected: Feed, actual: Feed, feed: Feed) -> list[Criterion]:
        """Compare pictures: how far apart they are beside what the network changes, and the largest difference."""
        a, b = expected["enhanced"].astype(np.float64), actual["enhanced"].astype(np.float64)
        apart, changed = float(((a - b) ** 2).mean()), float(((a - feed["tile"]) ** 2).mean())
        return [
            Criterion("enhanced, PSNR in dB", 10 * math.log10(255**2 / max(apart, 1e-3)), 45, "at least"),
            Criterion("enhanced, error as a part of what is changed", apart / max(changed, 1e-3), 0.1),
            Criterion("enhanced, mean squared error in levels", apart),
        ]


MODEL = EnhanceModel()
