"""The parser: which pixels of the 224 px crop are this person's skin, which are hair, which are anything else.

An encoder and decoder of plain 3x3 convolutions: depthwise ones have a fraction of their arithmetic and are no faster
on a CPU, and INT8 gains more on plain ones. It sees the crop at 128 px and answers at the same size.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

from networks.camera import CROP

PARTS = ("skin", "hair", "other")  # in the order of the output's channels; glasses, hands and background are other
SKIN, HAIR, OTHER = range(3)
PARTS_SIDE = 128  # pixels at which it sees the crop, and of its answer
WIDTHS = (16, 32, 64, 96, 128)  # channels at 64, 32, 16, 8 and 4 px
FINE = 12  # channels at 128 px


def _convolution(channels: int, out: int, stride: int = 1, size: int = 3) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, out, size, stride, size // 2, bias=False), nn.BatchNorm2d(out), nn.ReLU(inplace=True)
    )


class _Level(nn.Module):
    """Bring a coarser map (B, below, s, s) up to a map (B, channels, 2 s, 2 s), add both, and mix."""

    def __init__(self, below: int, channels: int) -> None:
        super().__init__()
        self.reduce = nn.Sequential(nn.Conv2d(below, channels, 1, bias=False), nn.BatchNorm2d(channels))
        self.mix = _convolution(channels, channels)

    def forward(self, coarse: torch.Tensor, fine: torch.Tensor) -> torch.Tensor:
        up = F.interpolate(self.reduce(coarse), scale_factor=2, mode="bilinear")
        result: torch.Tensor = self.mix(torch.relu(up + fine))
        return result


class _Fine(nn.Module):
    """Correct logits (B, parts, 2 s, 2 s) by the picture at full size (B, 3, 2 s, 2 s) and the last map (B, C, s, s).

    Sticks, cables and letters are two to four pixels wide at 128 px: at 64 px their edges cannot be told.
    """

    def __init__(self, channels: int, parts: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, FINE, 3, padding=1)
        self.lift = nn.Conv2d(channels, 4 * FINE, 1)
        self.mix = _convolution(FINE, FINE)
        self.head = nn.Conv2d(FINE, parts, 1)
        for parameter in self.head.parameters():
            nn.init.zeros_(parameter)

    def forward(self, logits: torch.Tensor, picture: torch.Tensor, coarse: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(picture) + F.pixel_shuffle(self.lift(coarse), 2))
        result: torch.Tensor = logits + self.head(self.mix(x))
        return result


class ParserNet(nn.Module):
    """RGB 0..1 (B, 3, 128, 128) -> logits (B, 3, 128, 128) in the order of `PARTS`: about 0.11 GMAC, 0.7 M weights."""

    def __init__(self) -> None:
        super().__init__()
        w = WIDTHS
        self.stem = _convolution(3, w[0], 2)
        self.down = nn.ModuleList(
            [
                nn.Sequential(_convolution(w[0], w[1], 2), _convolution(w[1], w[1])),
                nn.Sequential(_convolution(w[1], w[2], 2), _convolution(w[2], w[2])),
                nn.Sequential(_convolution(w[2], w[3], 2), _convolution(w[3], w[3])),
                nn.Sequential(_convolution(w[3], w[4], 2), _convolution(w[4], w[4])),
            ]
        )
        # What the whole crop looks like: its light, how large the head is, whether it is grey.
        self.context = nn.Sequential(nn.Conv2d(w[4], w[4], 1), nn.ReLU(inplace=True), nn.Conv2d(w[4], w[4], 1))
        self.up = nn.ModuleList(_Level(w[k + 1], w[k]) for k in reversed(range(4)))
        self.head = nn.Conv2d(w[0], 4 * len(PARTS), 1)
        self.fine = _Fine(w[0], len(PARTS))

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        """Compute logits; see the class."""
        centred = picture - 0.5
        maps = [self.stem(centred)]
        for stage in self.down:
            maps.append(stage(maps[-1]))
        x = maps.pop()
        x = torch.relu(x + self.context(x.mean((2, 3), keepdim=True)))
        for level in self.up:
            x = level(x, maps.pop())
        logits: torch.Tensor = self.fine(F.pixel_shuffle(self.head(x), 2), centred, x)
        return logits


class Parser(nn.Module):
    """The exported module.

    Inputs:
        crop: (B, 3, 224, 224) uint8 RGB; fingerprint: (B, 1) int64, of the regressor. It changes nothing: a step that
        takes something of the regressor runs after it and not beside it (steps of an ensemble form a chain).

    Output:
        parts: (B, 3, 128, 128) uint8, probabilities 0..255 of `PARTS`, of sum 255 but for rounding.
    """

    INPUTS = ("crop", "fingerprint")
    OUTPUTS = ("parts",)

    def __init__(self, net: ParserNet) -> None:
        super().__init__()
        self.net = net

    @classmethod
    def load(cls, weights: Path) -> Parser:
        """Read the weights (safetensors, any float type) strictly.

        Raises:
            OSError, SafetensorError, RuntimeError: the file is missing, damaged, or of another network.
        """
        net = ParserNet()
        net.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in load_file(weights).items()})
        return cls(net).eval()

    def forward(self, crop: torch.Tensor, fingerprint: torch.Tensor) -> torch.Tensor:
        """Compute the parts; see the class."""
        seen = F.interpolate(crop.float(), size=(PARTS_SIDE, PARTS_SIDE), mode="bilinear")
        logits = self.net(seen / 255)
        levels = 255 + 0 * fingerprint.float()[..., None, None]
        # Not softmax: over the channels, which are not the last axis, runtimes transpose for it.
        parts = (logits - logits.amax(1, keepdim=True)).exp()
        rounded: torch.Tensor = (parts * (levels / parts.sum(1, keepdim=True)) + 0.5).to(torch.uint8)
        return rounded


def example_inputs(batch: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a black crop uint8 [B, 3, 224, 224] and a fingerprint int64 [B, 1], to trace with."""
    return torch.zeros(batch, 3, CROP, CROP, dtype=torch.uint8), torch.zeros(batch, 1, dtype=torch.int64)
