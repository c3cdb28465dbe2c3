"""The parser: 224 px crop -> what is skin, hair, other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from export.criteria import Criterion
from export.models.base import WEIGHTS, ExportedModel, Loaded
from export.official import checkpoint
from export.samples import Sample
from export.session import Feed
from networks.head_model import AnyFaceModel
from networks.parser import HAIR, SKIN, Parser, ParserNet, example_inputs


class ParserModel(ExportedModel):
    """The parser."""

    name = "parser"
    weights = WEIGHTS / "parser.safetensors"
    inputs = Parser.INPUTS
    outputs = Parser.OUTPUTS
    needs_face_model = False
    # Of some milliseconds INT8 saves less than its weights err at the border of the skin; on request it is made.
    cpu_precisions = ("fp32",)
    calibration_error = "parts, mean difference"

    def load(
        self, weights: Path | None, face_model: AnyFaceModel | None, recipe: str | None = None, fixed: bool = False
    ) -> Loaded:
        """Load the network."""
        del face_model, recipe, fixed
        path = weights or self.weights
        network = ParserNet()
        checkpoint.load_strictly(network, checkpoint.state_dict(checkpoint.read(path), path), path)
        return Parser(network).eval(), example_inputs()

    def feed(self, sample: Sample, earlier: Feed) -> Feed:
        """Return the 224 px crop, and a fingerprint, which changes nothing."""
        del earlier
        return {"crop": sample.crop, "fingerprint": np.zeros((1, 1), np.int64)}

    def compare(self, expected: Feed, actual: Feed, feed: Feed) -> list[Criterion]:
        """Compare probabilities (0..1), and where skin and hair are the likeliest part."""
        del feed
        a, b = expected["parts"].astype(np.float64) / 255, actual["parts"].astype(np.float64) / 255
        overlaps = [overlap(a.argmax(1) == part, b.argmax(1) == part) for part in (SKIN, HAIR)]
        return [
            Criterion("parts, mean difference", float(np.abs(a - b).mean()), 0.02),
            Criterion("skin, intersection over union", overlaps[0], 0.98, "at least"),
            Criterion("hair, intersection over union", overlaps[1], 0.95, "at least"),
        ]


def overlap(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """Return the intersection over union of two bool arrays; 1 where both are empty."""
    either = np.logical_or(a, b).sum()
    return float(np.logical_and(a, b).sum() / either) if either else 1.0


MODEL = ParserModel()
