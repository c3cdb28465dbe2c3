"""The regressor, ResNet50 with the face model's decoder: crop -> coefficients, shapes, landmarks."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType

import numpy as np

from export.criteria import Criterion
from export.errors import ExportError
from export.graph import VERTICES
from export.models.base import WEIGHTS, ExportedModel, Loaded, is_built_in
from export.official import checkpoint
from export.official.recon import load_regressor
from export.samples import Sample
from export.session import Feed
from networks import certainty, identity_correction
from networks.certainty import Certainty
from networks.head_model import AnyFaceModel
from networks.identity_correction import IdentityCorrection
from networks.regressor import (
    ReconstructionNet,
    Regressor,
    example_inputs,
    inner_of,
    trained_resolution,
    window_of,
)


class RegressorModel(ExportedModel):
    """The regressor: crop -> 3D face."""

    name = "regressor"
    weights = WEIGHTS / "regressor.safetensors"
    companion_files = (
        WEIGHTS / certainty.FILE,
        WEIGHTS / identity_correction.FILE,
        identity_correction.default_weights(),
    )
    inputs = ("crop", "context")
    outputs = Regressor.OUTPUTS
    dynamic_axes = MappingProxyType(
        {"shapes": {2: VERTICES}, "vertices": {1: VERTICES}, "vertices_neutral": {1: VERTICES}}
    )
    float_streams = 1
    calibration_error = "landmarks in the crop, mean px"

    def load(
        self, weights: Path | None, face_model: AnyFaceModel | None, recipe: str | None = None, fixed: bool = False
    ) -> Loaded:
        """Load weights of this project (safetensors) or a published checkpoint.

        Raises:
            ExportError: the default weights are asked for with another face model than the built-in one.
        """
        del recipe, fixed
        assert face_model is not None
        if weights is None and not is_built_in(face_model):
            raise ExportError(
                f"The default regressor belongs to the built-in face model, not to '{face_model.name}': name those "
                "weights that do with --weights."
            )
        path = weights or self.weights
        if path.suffix != ".safetensors":
            return load_regressor(path, face_model), example_inputs()
        state = checkpoint.state_dict(checkpoint.read(path), path)
        network = ReconstructionNet(window_of(state), inner_of(state))
        checkpoint.load_strictly(network, state, path)
        beside = Certainty.beside(path), IdentityCorrection.beside(path, face_model.fingerprint)
        return Regressor(network, face_model, trained_resolution(path), *beside).eval(), example_inputs()

    def feed(self, sample: Sample, earlier: Feed) -> Feed:
        """Return the 224 px crop and its context."""
        del earlier
        return {"crop": sample.crop, "context": sample.context}

    def compare(self, expected: Feed, actual: Feed, feed: Feed) -> list[Criterion]:
        """Compare coefficients, shapes in the head frame (mm), and landmarks in pixels of the 224 px crop."""
        a, b = expected["coefficients"].astype(np.float64), actual["coefficients"].astype(np.float64)
        norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        cosine = np.where(norms > 0, (a * b).sum(1) / np.maximum(norms, 1e-12), np.all(a == b, axis=1))
        head = np.linalg.norm(expected["shapes"][:, 1] - actual["shapes"][:, 1], axis=-1) * 100  # dm -> mm
        posed = np.linalg.norm(expected["vertices"] - actual["vertices"], axis=-1)
        sure = (expected["certainty"] + 1e-6) / (actual["certainty"] + 1e-6)
        pixels = (expected["landmarks"] - actual["landmarks"]) / feed["context"][:, None, 15:17]
        return [
            Criterion("coefficients, mean cosine", float(cosine.mean()), 0.99, "at least"),
            Criterion("vertices in the head frame, mean mm", float(head.mean()), 0.3),
            Criterion("landmarks in the crop, mean px", float(np.linalg.norm(pixels, axis=-1).mean()), 0.5),
            Criterion("expected errors, mean ratio", float(np.exp(np.abs(np.log(sure)).mean())), 1.15),
            Criterion("vertices in the camera frame, mean mm", float(posed.mean())),
            Criterion("coefficients, smallest cosine", float(cosine.min())),
        ]


MODEL = RegressorModel()
