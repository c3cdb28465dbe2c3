"""The embedder: an upright face -> a vector of unit length that says who it is."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType

import numpy as np
import onnx

from export.criteria import Criterion
from export.errors import ExportError
from export.models.base import ExportedModel, Loaded
from export.official import arcface
from export.samples import Sample
from export.session import Feed
from networks.embedder.embedder import Embedder, default_weights, example_inputs
from networks.errors import NetworkError
from networks.head_model import AnyFaceModel


class EmbedderModel(ExportedModel):
    """The embedder: aligned face -> embedding, fingerprint."""

    name = "embedder"
    weights = default_weights()
    inputs = Embedder.INPUTS
    outputs = Embedder.OUTPUTS
    dynamic_axes = MappingProxyType({"embedding": {1: "dimensions"}})
    needs_face_model = False
    calibration_error = "embedding, one minus mean cosine"

    def load(
        self, weights: Path | None, face_model: AnyFaceModel | None, recipe: str | None = None, fixed: bool = False
    ) -> Loaded:
        """Load SFace, or dlib's ResNet from a .dat file."""
        del face_model, recipe, fixed
        return Embedder.load(weights or self.weights), example_inputs()

    def trace(
        self, weights: Path | None, face_model: AnyFaceModel | None, recipe: str | None = None, fixed: bool = False
    ) -> onnx.ModelProto:
        """Trace SFace or dlib's ResNet; with a recipe, take an ONNX file in ArcFace's format as it is.

        Raises:
            ExportError: the file is of no network that is known, and no recipe says how it wants its pixels.
        """
        if weights is not None and recipe is not None:
            return arcface.graph_of(weights, recipe)
        try:
            return super().trace(weights, face_model, recipe, fixed)
        except NetworkError as error:
            if weights is None or "not those of SFace" not in str(error):
                raise
            sentence = str(error).rstrip(".")
            raise ExportError(
                f"{sentence}; an embedder in ArcFace's format needs --recipe: {', '.join(arcface.RECIPES)}."
            ) from error

    def feed(self, sample: Sample, earlier: Feed) -> Feed:
        """Return the upright crop."""
        del earlier
        return {"aligned": sample.aligned}

    def compare(self, expected: Feed, actual: Feed, feed: Feed) -> list[Criterion]:
        """Compare the directions of embeddings by their cosine, and their lengths.

        Two photographs of one person have cosines from about 0.35 on: 0.99 moves such a cosine by some 0.01.
        """
        del feed
        a, b = expected["embedding"].astype(np.float64), actual["embedding"].astype(np.float64)
        lengths = np.linalg.norm(b, axis=1)
        cosine = (a * b).sum(1) / np.maximum(np.linalg.norm(a, axis=1) * lengths, 1e-12)
        return [
            Criterion("embedding, one minus mean cosine", float(1 - cosine.mean()), 0.01),
            Criterion("embedding, smallest cosine", float(cosine.min()), 0.98, "at least"),
            Criterion("embedding, largest error of the length", float(np.abs(lengths - 1).max()), 1e-3),
            Criterion("fingerprints that differ", float((expected["embedder"] != actual["embedder"]).sum()), 0),
        ]


MODEL = EmbedderModel()
