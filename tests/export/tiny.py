"""A network small enough for every test: stem, one residual block, pooling, two heads, and arithmetic after them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from export.criteria import Criterion
from export.graph import VERTICES
from export.models.base import ExportedModel, Loaded
from export.samples import Sample
from export.session import Feed
from export.stages.surgery import clean
from export.stages.trace import onnx_from_module
from networks.head_model import AnyFaceModel

ROWS = 5
"""Rows of the output whose axis is opened."""


class Tiny(nn.Module):
    """Named like the regressor's interface: crop, context -> shapes, coefficients."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.conv1 = nn.Sequential(nn.Conv2d(16, 16, 3, 1, 1), nn.ReLU())
        self.conv2 = nn.Conv2d(16, 32, 3, 2, 1)
        self.skip = nn.Conv2d(16, 32, 1, 2)
        self.heads = nn.ModuleList([nn.Conv2d(32, 8, 1), nn.Conv2d(32, 3 * ROWS, 1)])
        self.eval()

    def forward(self, crop: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Compute [B,5,3] and [B,8] of uint8 [B,3,32,32] and float [B,4]."""
        x = self.stem(crop.float() / 255)
        x = torch.relu(self.conv2(self.conv1(x)) + self.skip(x))
        x = nn.functional.max_pool2d(x, 2).mean((2, 3), keepdim=True)
        first, second = (head(x).flatten(1) for head in self.heads)
        return second.view(-1, ROWS, 3) * 100 + context[:, None, :3], first + torch.sin(first) * context[:, :1]


def example(batch: int = 2) -> tuple[Tensor, Tensor]:
    return torch.zeros(batch, 3, 32, 32, dtype=torch.uint8), torch.ones(batch, 4)


def traced(seed: int = 0) -> onnx.ModelProto:
    return onnx_from_module(Tiny(seed), example(), ("crop", "context"), ("shapes", "coefficients"))


def cleaned(seed: int = 0) -> onnx.ModelProto:
    return clean(traced(seed), {"shapes": {1: VERTICES}})


def feeds(count: int, seed: int = 0, batch: int = 1) -> list[Feed]:
    """Make smooth random pictures: noise would average out in the network."""
    chance = np.random.default_rng(seed)
    result: list[Feed] = []
    for _ in range(count):
        coarse = chance.integers(0, 256, (batch, 3, 4, 4)).astype(np.uint8)
        crop = coarse.repeat(8, 2).repeat(8, 3)
        result.append({"crop": crop, "context": chance.normal(size=(batch, 4)).astype(np.float32)})
    return result


class TinyModel(ExportedModel):
    """The tiny network as a model of the repository that is compared by nothing of its own."""

    name = "tiny"
    inputs = ("crop", "context")
    outputs = ("shapes", "coefficients")
    needs_face_model = False

    def load(
        self, weights: Path | None, face_model: AnyFaceModel | None, recipe: str | None = None, fixed: bool = False
    ) -> Loaded:
        return Tiny(), example()

    def feed(self, sample: Sample, earlier: Feed) -> Feed:
        return {"crop": sample.crop, "context": sample.context}

    def compare(self, expected: Feed, actual: Feed, feed: Feed) -> list[Criterion]:
        return []
