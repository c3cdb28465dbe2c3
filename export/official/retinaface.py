"""RetinaFace as a graph of the detector's contract: backbone, pyramid, heads, decoding and suppression.

Layouts: `retinaface_resnet50_2020-07-20` (ternaus) and `Resnet50_Final`, `mobilenet0.25_Final` (biubug6). Both ResNet
files have the same keys and shapes but were trained with different pre-processing, which the weights do not show;
so the recipe is an option. Formulas: Deng et al. 2019 and biubug6/Pytorch_Retinaface (MIT).
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
from networks.detector.contract import CANVAS, MIN_SCORE, SLOTS
from networks.detector.suppression import overlaps, suppress
from networks.regressor import Backbone

STEPS = (8, 16, 32)
MIN_SIZES = ((16, 32), (64, 128), (256, 512))
VARIANCE = (0.1, 0.2)
CANDIDATES = 256
"""Boxes that enter suppression, four for each slot; TensorRT's largest top-k is 3840."""
SUPPRESS = 0.4


@dataclass(frozen=True)
class Recipe:
    """Preparation of pixels, and the other difference between the two published implementations.

    Attributes:
        mean, scale: (pixel - mean) * scale, pixels 0..255, in the order of the network's channels.
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
"""Recipes by name: `imagenet` (ternaus, ModelScope) and `bgr-mean` (biubug6)."""


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
    """MobileNet v1 (Howard et al. 2017) at a quarter of its width, in three stages."""

    def __init__(self) -> None:
        super().__init__()
        plan = ((8, 16, 1), (16, 32, 2), (32, 32, 1), (32, 64, 2), (64, 64, 1))
        self.stage1 = nn.Sequential(_conv(3, 8, 3, 0.1, stride=2), *(_depthwise(*step) for step in plan))
        self.stage2 = nn.Sequential(_depthwise(64, 128, 2), *(_depthwise(128, 128, 1) for _ in range(5)))
        self.stage3 = nn.Sequential(_depthwise(128, 256, 2), _depthwise(256, 256, 1))

    def stages(self, x: Tensor) -> list[Tensor]:
        """Compute feature maps at strides 8, 16 and 32 of [B,3,H,W]."""
        first = self.stage1(x)
        second = self.stage2(first)
        return [first, second, self.stage3(second)]


class FeaturePyramid(nn.Module):
    """Feature pyramid (Lin et al. 2017): three maps of one width, coarse ones added to finer ones."""

    def __init__(self, widths: tuple[int, int, int], out: int) -> None:
        super().__init__()
        leaky = 0.1 if out <= 64 else 0.0
        self.output1, self.output2, self.output3 = (_conv(width, out, 1, leaky) for width in widths)
        self.merge1, self.merge2 = _conv(out, out, 3, leaky), _conv(out, out, 3, leaky)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Merge maps at strides 8, 16 and 32 into maps with `out` channels at the same strides."""
        fine, middle, coarse = self.output1(maps[0]), self.output2(maps[1]), self.output3(maps[2])
        middle = self.merge2(middle + F.interpolate(coarse, scale_factor=2.0, mode="nearest"))
        fine = self.merge1(fine + F.interpolate(middle, scale_factor=2.0, mode="nearest"))
        return [fine, middle, coarse]


class Context(nn.Module):
    """Context module of SSH (Najibi et al. 2017): 3x3, 5x5 and 7x7 receptive fields, concatenated.

    Attribute names are those of the published files.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        leaky = 0.1 if width <= 64 else 0.0
        self.conv3X3 = _conv(width, width // 2, 3, None)
        self.conv5X5_1 = _conv(width, width // 4, 3, leaky)
        self.conv5X5_2 = _conv(width // 4, width // 4, 3, None)
        self.conv7X7_2 = _conv(width // 4, width // 4, 3, leaky)
        self.conv7x7_3 = _conv(width // 4, width // 4, 3, None)

    def forward(self, x: Tensor) -> Tensor:
        """Compute a map [B,C,h,w] of the same shape."""
        five = self.conv5X5_1(x)
        return torch.relu(torch.cat([self.conv3X3(x), self.conv5X5_2(five), self.conv7x7_3(self.conv7X7_2(five))], 1))


class Head(nn.Module):
    """1x1 convolution to `size` numbers for each of two boxes a cell: [B,C,h,w] -> [B,h*w*2,size]."""

    def __init__(self, width: int, size: int) -> None:
        super().__init__()
        self.size = size
        self.conv1x1 = nn.Conv2d(width, 2 * size, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Compute rows ordered by row, column and box."""
        return cast(Tensor, self.conv1x1(x)).permute(0, 2, 3, 1).reshape(x.shape[0], -1, self.size)


class RetinaFace(nn.Module):
    """The network: prepared pixels -> undecoded offsets, logits and points of every box."""

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
        """Compute offsets [B,10752,4], logits [B,10752,2] and points [B,10752,10] of pixels [B,3,512,512]."""
        stages = cast(list[Tensor], self.body.stages(pixels))  # type: ignore[operator]
        maps = self.fpn(stages[-3:])
        maps = [context(x) for context, x in zip((self.ssh1, self.ssh2, self.ssh3), maps, strict=True)]
        heads = (self.BboxHead, self.ClassHead, self.LandmarkHead)
        offsets, logits, points = (
            torch.cat([head(x) for head, x in zip(group, maps, strict=True)], 1) for group in heads
        )
        return offsets, logits, points


def priors() -> Tensor:
    """Return x, y of the centre and size of the 10,752 prior boxes in canvas pixels, by level, row, column, size."""
    rows = [
        ((column + 0.5) * step, (row + 0.5) * step, size)
        for step, sizes in zip(STEPS, MIN_SIZES, strict=True)
        for row, column in product(range(CANVAS // step), repeat=2)
        for size in sizes
    ]
    return torch.tensor(rows, dtype=torch.float32)


class RetinaFaceDetector(nn.Module):
    """`canvas` UINT8 [B,3,512,512], `geometry` FP32 [B,6] -> `faces` FP32 [B,64,15], as in `detector.contract`."""

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
            ExportError: the file is damaged or of another network, or its name implies no recipe.
        """
        content = checkpoint.read(path)
        state = checkpoint.state_dict(content, path)
        name = recipe or recipe_by_name(path)
        if name not in RECIPES:
            raise ExportError(f"A RetinaFace's pixels are prepared by one of {', '.join(RECIPES)}, not by '{name}'.")
        network = RetinaFace(mobile=any(key.startswith("body.stage1.") for key in state))
        checkpoint.load_strictly(network, state, path)
        checkpoint.refuse_zero_heads([*network.ClassHead, *network.BboxHead], path)
        return cls(network, RECIPES[name]).eval()

    def forward(self, canvas: Tensor, geometry: Tensor) -> Tensor:
        """Detect faces; arguments and result as in `networks.detector.cascade.Detector.forward`."""
        ratio = geometry[:, None, 2:4]
        offsets, logits, points = self.network(self.prepare(canvas, geometry))
        scores = torch.sigmoid(logits[..., 1] - logits[..., 0])
        scores, index = torch.topk(scores * (scores > MIN_SCORE).to(scores.dtype), CANDIDATES, dim=1)
        rows = index[..., None]
        prior = torch.gather(self.priors.expand(canvas.shape[0], -1, -1), 1, rows.expand(-1, -1, 3))
        centre, size = prior[..., :2], prior[..., 2:]
        box_offsets = torch.gather(offsets, 1, rows.expand(-1, -1, 4))
        box_centre = centre + box_offsets[..., :2] * VARIANCE[0] * size
        half = size * torch.exp(box_offsets[..., 2:] * VARIANCE[1]) / 2
        boxes = torch.cat([box_centre - half, box_centre + half], 2)
        landmarks = torch.gather(points, 1, rows.expand(-1, -1, 10)) * VARIANCE[0] * size + centre.repeat(1, 1, 5)
        overlap = overlaps(boxes, SUPPRESS, extra=self.recipe.extra)
        scores = scores * suppress(overlap, (scores > 0).to(scores.dtype))
        scores, index = torch.topk(scores, SLOTS, dim=1)
        faces = torch.gather(torch.cat([boxes, landmarks], 2), 1, index[..., None].expand(-1, -1, 14))
        # The network's coordinates run along pixel edges; the contract's have pixel centres at integers.
        coordinates = faces * ratio.repeat(1, 1, 7) - 0.5
        score = scores[..., None]
        is_face = (score > 0).to(score.dtype)
        return torch.cat([coordinates[..., :4], score, coordinates[..., 4:]], 2) * is_face

    def prepare(self, canvas: Tensor, geometry: Tensor) -> Tensor:
        """Prepare pixels by the recipe, float [B,3,512,512]; beside the picture they have the mean colour."""
        pixels = canvas.float()
        if self.recipe.flip:
            pixels = pixels.flip(1)
        content = torch.round(geometry[:, 0:2] / geometry[:, 2:4])
        positions = torch.arange(CANVAS, dtype=geometry.dtype)
        in_width = (positions[None, :] < content[:, :1]).to(pixels.dtype)
        in_height = (positions[None, :] < content[:, 1:2]).to(pixels.dtype)
        return (pixels - self.mean) * self.scale * in_width[:, None, None, :] * in_height[:, None, :, None]


def recipe_by_name(path: Path) -> str:
    """Return the recipe for a published file name.

    Raises:
        ExportError: the name implies no recipe; the message names the two.
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
