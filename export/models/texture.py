"""The texture network, UV sampling, visibility and the U-Net that fills: 512 px crop, shapes and parts -> texture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
import skimage.metrics
from numpy.typing import NDArray
from torch import Tensor, nn

from export.criteria import Criterion
from export.graph import SIDE, VERTICES
from export.models import texture_split
from export.models.base import WEIGHTS, ExportedModel, Loaded, is_built_in
from export.official import checkpoint
from export.samples import Sample
from export.session import Feed
from networks.head_model import AnyFaceModel
from networks.texture import TextureNet, example_inputs
from networks.texture_fill import UNet


class TextureModel(ExportedModel):
    """The texture network; on a CPU it is served in parts."""

    name = "texture"
    weights = WEIGHTS / "texture.safetensors"
    inputs = TextureNet.INPUTS
    outputs = TextureNet.OUTPUTS
    inner = TextureNet.INNER
    # The parts give a texture of half the size where the photograph has no pixels for more; the whole graph never does.
    dynamic_axes = MappingProxyType({"shapes": {2: VERTICES}, "texture": {2: SIDE, 3: SIDE}})
    needs_earlier = True
    # The U-Net is a tenth of the time: INT8 saves a millisecond, and is made on request.
    cpu_precisions = ("fp32",)
    calibration_error = "texture, mean squared error"

    def load(
        self, weights: Path | None, face_model: AnyFaceModel | None, recipe: str | None = None, fixed: bool = False
    ) -> Loaded:
        """Load the network; the U-Net belongs to the built-in UV layout and is left out for another one."""
        del recipe, fixed
        assert face_model is not None
        path = weights or self.weights
        count = len(face_model.mean)
        sampler = TextureNet(face_model, None)
        if is_built_in(face_model):
            unet = UNet()
            checkpoint.load_strictly(unet, checkpoint.state_dict(checkpoint.read(path), path), path)
            sampler.completion.unet = unet
        return _FirstVertices(sampler.eval(), count), example_inputs(count)

    def feed(self, sample: Sample, earlier: Feed) -> Feed:
        """Return the 512 px crop, the regressor's shapes, the context, and the parser's parts."""
        found = {"shapes": earlier["shapes"], "parts": earlier["parts"]}
        return {"crop_hd": sample.crop_hd, "context": sample.context, **found}

    def compare(self, expected: Feed, actual: Feed, feed: Feed) -> list[Criterion]:
        """Compare structural similarity and mean squared error (0..1) of the textures, and changes of visibility."""
        del feed
        similarities, errors = [], []
        for a, b in zip(expected["texture"], actual["texture"], strict=True):
            similarities.append(similarity(a, b))
            errors.append(np.mean(((a.astype(np.float64) - b) / 255.0) ** 2))
        changed = np.abs(expected["visibility"].astype(np.int16) - actual["visibility"]) > 8
        moved = np.abs(expected["places"] - actual["places"])[:, :2].mean()
        return [
            Criterion("texture, mean SSIM", float(np.mean(similarities)), 0.982, "at least"),
            Criterion("texture, mean squared error", float(np.mean(errors)), 0.005),
            Criterion("visibility, part of texels that differ", float(changed.mean()), 0.01),
            Criterion("places, mean distance in pixels of the 224 px crop", float(moved), 0.1),
            Criterion("texture, smallest SSIM", float(np.min(similarities))),
        ]

    def split(self, graph: onnx.ModelProto) -> texture_split.SplitGraph | None:
        """Split the graph where SciPy and OpenCV are faster than ONNX Runtime."""
        return texture_split.split(graph)

    def note(self, face_model: AnyFaceModel) -> str | None:
        """Return a remark when the graph has no U-Net."""
        if is_built_in(face_model):
            return None
        return (
            "without the texture network, which belongs to the built-in UV layout: sampling, mirrored and diffused fill"
        )


class _FirstVertices(nn.Module):
    """Drop the rows of shapes beyond the face model's vertices.

    The configuration names one size for the warm-up sample of any face model: that of the largest.
    """

    def __init__(self, network: TextureNet, count: int) -> None:
        super().__init__()
        self.network, self.count = network, count

    def forward(self, crop_hd: Tensor, shapes: Tensor, context: Tensor, parts: Tensor) -> tuple[Tensor, ...]:
        results: tuple[Tensor, ...] = self.network(crop_hd, shapes[:, :, : self.count], context, parts, inner=True)
        return results


def similarity(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """Return the structural similarity of two uint8 pictures [3,h,w]."""
    structural_similarity: Callable[..., Any] = skimage.metrics.structural_similarity
    return float(structural_similarity(a, b, channel_axis=0, data_range=255))


MODEL = TextureModel()
