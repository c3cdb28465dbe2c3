"""RetinaFace as a graph of our detector's contract: backbone, pyramid, heads, decode and suppression in one.

Layouts: `retinaface_resnet50_2020-07-20` (ternaus) and `Resnet50_Final`, `mobilenet0.25_Final` (biubug6). Both ResNet
files have the same keys and shapes but were trained with different pre-processing, which the weights cannot tell;
the recipe is therefore named. Formulas: Deng et al. 2019 and biubug6/Pytorch_Retinaface (MIT).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from export.errors import ExportError
from export.official import checkpoint
from networks.detector.cascade import MIN_SCORE, SLOTS
from networks.detector.pyramid import CANVAS
from networks.detector.suppression import overlaps, suppress
from networks.regressor import Backbone

STEPS = (8, 16, 32)
MIN_SIZES = ((16, 32), (64, 128), (256, 512))
VARIANCE = (0.1, 0.2)
CANDIDATES = 128
"""Boxes that suppression sees, eight for each slot; TensorRT's largest top-k is 3840."""
SUPPRESS = 0.4


@dataclass(frozen=True)
class Recipe:
    """How pixels are prepared, and what else differs between the two published codes.

    Attributes:
        mean, scale: (pixel - mean) * scale, in the order of the network's channels.
        flip: whether the channels are blue, green, red.
        extra: added to sides when suppression computes areas.
    """

    mean: tuple[float, float, float]
    scale: tuple[float, float, float]
    flip: bool
    extra: float


RECIPES = {
    "imagenet": Recipe((123.675, 116.28, 103.53), (1 / 58.395, 1 / 57.12, 1 / 57.375), flip=False, extra=0.0),
    "bgr-mean": Recipe((104.0, 117.0, 123.0), (1.0, 1.0, 1.0), flip=True, extra=1.0),
}
"""By name: `imagenet` (ternaus, ModelScope) and `bgr-mean` (biubug6)."""


def _conv(channels: int, out: int, kernel: int, leaky: float | None, stride: int = 1) -> nn.Sequential:
    layers: list[nn.Module] = [
        nn.Conv2d(channels, out, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(out),
    ]
    if leaky is not None:
        layers.append(nn.LeakyReLU(leaky) if leaky else nn.ReLU())
    return nn.Sequential(*layers)


def _depthwise(channels: int, out: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=False),
        nn.BatchNorm2d(channels),
        nn.LeakyReLU(0.1),
        nn.Conv2d(channels, out, 1, bias=False),
        nn.BatchNorm2d(out),
        nn.LeakyReLU(0.1),
    )


class MobileNet(nn.Module):
    """MobileNet v1 at a quarter of its width, three stages."""

    def __init__(self) -> None:
        super().__init__()
        plan = ((8, 16, 1), (16, 32, 2), (32, 32, 1), (32, 64, 2), (64, 64, 1))
        self.stage1 = nn.Sequential(_conv(3, 8, 3, 0.1, stride=2), *(_depthwise(*step) for step in plan))
        self.stage2 = nn.Sequential(_depthwise(64, 128, 2), *(_depthwise(128, 128, 1) for _ in range(5)))
        self.stage3 = nn.Sequential(_depthwise(128, 256, 2), _depthwise(256, 256, 1))

    def stages(self, x: Tensor) -> list[Tensor]:
        """Feature maps at strides 8, 16 and 32."""
        first = self.stage1(x)
        second = self.stage2(first)
        return [first, second, self.stage3(second)]


class FeaturePyramid(nn.Module):
    """Three maps to one width, coarse added to fine."""

    def __init__(self, widths: tuple[int, int, int], out: int) -> None:
        super().__init__()
        leaky = 0.1 if out <= 64 else 0.0
        self.output1, self.output2, self.output3 = (_conv(width, out, 1, leaky) for width in widths)
        self.merge1, self.merge2 = _conv(out, out, 3, leaky), _conv(out, out, 3, leaky)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Maps at strides 8, 16, 32 -> the same at width `out`."""
        fine, middle, coarse = self.output1(maps[0]), self.output2(maps[1]), self.output3(maps[2])
        middle = self.merge2(middle + F.interpolate(coarse, scale_factor=2.0, mode="nearest"))
        fine = self.merge1(fine + F.interpolate(middle, scale_factor=2.0, mode="nearest"))
        return [fine, middle, coarse]


class Context(nn.Module):
    """SSH: 3x3, 5x5 and 7x7 views of a map side by side. Names are those of the published files."""

    def __init__(self, width: int) -> None:
        super().__init__()
        leaky = 0.1 if width <= 64 else 0.0
        self.conv3X3 = _conv(width, width // 2, 3, None)
        self.conv5X5_1 = _conv(width, width // 4, 3, leaky)
        self.conv5X5_2 = _conv(width // 4, width // 4, 3, None)
        self.conv7X7_2 = _conv(width // 4, width // 4, 3, leaky)
        self.conv7x7_3 = _conv(width // 4, width // 4, 3, None)

    def forward(self, x: Tensor) -> Tensor:
        """Keep size and width."""
        five = self.conv5X5_1(x)
        return torch.relu(torch.cat([self.conv3X3(x), self.conv5X5_2(five), self.conv7x7_3(self.conv7X7_2(five))], 1))


class Head(nn.Module):
    """1x1 convolution to `size` numbers for each of two boxes a cell: [B,C,h,w] -> [B,h*w*2,size]."""

    def __init__(self, width: int, size: int) -> None:
        super().__init__()
        self.size = size
        self.conv1x1 = nn.Conv2d(width, 2 * size, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Rows in the order of row, column, box."""
        return cast(Tensor, self.conv1x1(x)).permute(0, 2, 3, 1).reshape(x.shape[0], -1, self.size)


class RetinaFace(nn.Module):
    """The network: prepared pixels -> raw offsets, logits and points of every box."""

    def __init__(self, mobile: bool) -> None:
        super().__init__()
        width = 64 if mobile else 256
        self.body: nn.Module = MobileNet() if mobile else Backbone()
        self.fpn = FeaturePyramid((64, 128, 256) if mobile else (512, 1024, 2048), width)
        self.ssh1, self.ssh2, self.ssh3 = Context(width), Context(width), Context(width)
        self.ClassHead = nn.ModuleList(Head(width, 2) for _ in STEPS)
        self.BboxHead = nn.ModuleList(Head(width, 4) for _ in STEPS)
        self.LandmarkHead = nn.ModuleList(Head(width, 10) for _ in STEPS)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[B,3,512,512] -> offsets [B,10752,4], logits [B,10752,2], points [B,10752,10]."""
        stages = cast(list[Tensor], self.body.stages(pixels))  # type: ignore[operator]
        maps = self.fpn(stages[-3:])
        maps = [context(x) for context, x in zip((self.ssh1, self.ssh2, self.ssh3), maps, strict=True)]
        heads = (self.BboxHead, self.ClassHead, self.LandmarkHead)
        offsets, logits, points = (
            torch.cat([head(x) for head, x in zip(group, maps, strict=True)], 1) for group in heads
        )
        return offsets, logits, points


def priors() -> Tensor:
    """Centre x, y and size of the 10,752 reference boxes in canvas pixels: level, row, column, size."""
    rows = [
        ((column + 0.5) * step, (row + 0.5) * step, size)
        for step, sizes in zip(STEPS, MIN_SIZES, strict=True)
        for row, column in product(range(CANVAS // step), repeat=2)
        for size in sizes
    ]
    return torch.tensor(rows, dtype=torch.float32)


class RetinaFaceDetector(nn.Module):
    """`canvas` UINT8 [B,3,512,512], `geometry` FP32 [B,6] -> `faces` FP32 [B,16,15], as `detector.cascade.Detector`."""

    priors: Tensor
    mean: Tensor
    scale: Tensor

    def __init__(self, network: RetinaFace, recipe: Recipe) -> None:
        super().__init__()
        self.network, self.recipe = network, recipe
        self.register_buffer("priors", priors()[None])
        self.register_buffer("mean", torch.tensor(recipe.mean).reshape(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor(recipe.scale).reshape(1, 3, 1, 1))

    @classmethod
    def load(cls, path: Path, recipe: str | None = None) -> RetinaFaceDetector:
        """Read a published checkpoint strictly.

        Args:
            path: the file; MobileNet or ResNet by its keys.
            recipe: a name in `RECIPES`; None: by the published file name.

        Raises:
            ExportError: the file is damaged or of another network, or the recipe cannot be told from the file name.
        """
        content = checkpoint.read(path)
        state = checkpoint.state_dict(content, path)
        name = recipe or recipe_by_name(path)
        network = RetinaFace(mobile=any(key.startswith("body.stage1.") for key in state))
        checkpoint.load_strictly(network, state, path)
        checkpoint.refuse_zero_heads([*network.ClassHead, *network.BboxHead], path)
        return cls(network, RECIPES[name]).eval()

    def forward(self, canvas: Tensor, geometry: Tensor) -> Tensor:
        """Find faces; arguments and result as in `detector.cascade.Detector.forward`."""
        ratio = geometry[:, None, 2:4]
        offsets, logits, points = self.network(self.prepared(canvas, geometry))
        scores = torch.sigmoid(logits[..., 1] - logits[..., 0])
        scores, at = torch.topk(scores * (scores > MIN_SCORE).to(scores.dtype), CANDIDATES, dim=1)
        where = at[..., None]
        prior = torch.gather(self.priors.expand(canvas.shape[0], -1, -1), 1, where.expand(-1, -1, 3))
        centre, size = prior[..., :2], prior[..., 2:]
        moves = torch.gather(offsets, 1, where.expand(-1, -1, 4))
        middle = centre + moves[..., :2] * VARIANCE[0] * size
        half = size * torch.exp(moves[..., 2:] * VARIANCE[1]) / 2
        boxes = torch.cat([middle - half, middle + half], 2)
        marks = torch.gather(points, 1, where.expand(-1, -1, 10)) * VARIANCE[0] * size + centre.repeat(1, 1, 5)
        overlap = overlaps(boxes, SUPPRESS, extra=self.recipe.extra)
        scores = scores * suppress(overlap, (scores > 0).to(scores.dtype))
        scores, at = torch.topk(scores, SLOTS, dim=1)
        rows = torch.gather(torch.cat([boxes, marks], 2), 1, at[..., None].expand(-1, -1, 14))
        # The network's coordinates run along pixel edges; the contract's have pixel centres at integers.
        places = rows * ratio.repeat(1, 1, 7) - 0.5
        score = scores[..., None]
        found = (score > 0).to(score.dtype)
        return torch.cat([places[..., :4], score, places[..., 4:]], 2) * found

    def prepared(self, canvas: Tensor, geometry: Tensor) -> Tensor:
        """Pixels as the network was trained on; what lies beside the picture is the mean colour, as published."""
        pixels = canvas.float()
        if self.recipe.flip:
            pixels = pixels.flip(1)
        content = torch.round(geometry[:, 0:2] / geometry[:, 2:4])
        places = torch.arange(CANVAS, dtype=geometry.dtype)
        across = (places[None, :] < content[:, :1]).to(pixels.dtype)
        down = (places[None, :] < content[:, 1:2]).to(pixels.dtype)
        return (pixels - self.mean) * self.scale * across[:, None, None, :] * down[:, None, :, None]


def recipe_by_name(path: Path) -> str:
    """The recipe that goes with a published file name.

    Raises:
        ExportError: the name says nothing; the two recipes are named.
    """
    name = path.name.lower()
    if "2020-07-20" in name or name.startswith("retinaface_resnet50"):
        return "imagenet"
    if name in {"resnet50_final.pth", "mobilenet0.25_final.pth"}:
        return "bgr-mean"
    raise ExportError(
        f"The name of {path} does not tell how its network wants pixels: say --recipe imagenet (ternaus, ModelScope) "
        "or --recipe bgr-mean (biubug6)."
    )
