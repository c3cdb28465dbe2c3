"""The enhancement network: 512 px crop -> the same, sharper and cleaner."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from export.criteria import Criterion
from export.models.base import WEIGHTS, ExportedModel, Loaded
from export.official import checkpoint
from export.samples import Sample
from export.session import Feed
from networks.enhance import Enhance, EnhanceNet, example_inputs
from networks.head_model import AnyFaceModel


class EnhanceModel(ExportedModel):
    """The enhancement network."""

    name = "enhance"
    weights = WEIGHTS / "enhance.safetensors"
    inputs = Enhance.INPUTS
    outputs = Enhance.OUTPUTS
    needs_face_model = False
    # What it corrects is a few levels: as fine as INT8's steps.
    cpu_precisions = ("fp32",)

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
        """Return the 512 px crop."""
        del earlier
        return {"crop_hd": sample.crop_hd}

    def compare(self, expected: Feed, actual: Feed, feed: Feed) -> list[Criterion]:
        """Compare pictures, in levels."""
        del feed
        away = np.abs(expected["enhanced"].astype(np.int16) - actual["enhanced"].astype(np.int16))
        return [
            Criterion("enhanced, mean difference", float(away.mean()), 0.5),
            Criterion("enhanced, share of values off by more than 4 levels", float((away > 4).mean()), 0.01),
        ]


MODEL = EnhanceModel()
