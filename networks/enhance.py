"""The enhancement network: a blurred, noisy, compressed or enlarged face -> the same face, sharper and cleaner.

A small U-Net over 2x2 blocks of pixels that answers a correction of the picture. It is trained for the least error and
not to please: it makes up no pores and no lashes, and leaves a good picture nearly as it is.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

WIDTHS = (32, 64, 96)  # channels at a half, a fourth and an eighth of the picture's size
SIDE = 256  # pixels of the face's square that it is trained and measured at
TILE = 320  # pixels of a served picture's side: a face of two thirds of the 512 px crop is one
# Details are as strong as colours for the network, and its answer as small as they are.
FINE = 12.0
BLOCK = 8  # the sides of a picture are multiples of it


class _Block(nn.Module):
    """Add two 3x3 convolutions of a map (B, C, h, w) to it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.one = nn.Conv2d(channels, channels, 3, padding=1)
        self.two = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = x + self.two(F.relu(self.one(x)))
        return result


class EnhanceNet(nn.Module):
    """RGB 0..1 (B, 3, H, W) -> the same, corrected and not clipped; 0.74 M weights, 2.3 GMAC at 256 px.

    No normalisation: the strength of noise and the contrast are what it has to tell. It answers what is to be added to
    the picture, and nothing at first.
    """

    def __init__(self) -> None:
        super().__init__()
        a, b, c = WIDTHS
        self.stem = nn.Conv2d(24, a, 3, padding=1)
        self.first = _Block(a)
        self.down1 = nn.Conv2d(a, b, 2, 2)
        self.second = nn.Sequential(_Block(b), _Block(b))
        self.down2 = nn.Conv2d(b, c, 2, 2)
        self.third = nn.Sequential(_Block(c), _Block(c))
        self.up2 = nn.Conv2d(c, 4 * b, 1)
        self.fourth = nn.Sequential(_Block(b), _Block(b))
        self.up1 = nn.Conv2d(b, 4 * a, 1)
        self.fifth = _Block(a)
        self.last = nn.Conv2d(a, 12, 3, padding=1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                assert module.bias is not None
                nn.init.zeros_(module.bias)
        for block in self.modules():
            if isinstance(block, _Block):
                block.two.weight.data.mul_(0.3)
        nn.init.zeros_(self.last.weight)

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        """Correct pictures; see the class."""
        fine = (picture - F.avg_pool2d(picture, 5, 1, 2, count_include_pad=False)) * FINE
        one = self.first(self.stem(F.pixel_unshuffle(torch.cat([picture - 0.5, fine], 1), 2)))
        two = self.second(self.down1(one))
        three = self.third(self.down2(two))
        two = self.fourth(two + F.pixel_shuffle(self.up2(three), 2))
        one = self.fifth(one + F.pixel_shuffle(self.up1(two), 2))
        return picture + F.pixel_shuffle(self.last(one), 2) / FINE


class Enhance(nn.Module):
    """The network with levels in and out.

    Input:
        tile: (B, 3, H, W) uint8 RGB, of sides that are multiples of 8; served at `TILE` a side.

    Output:
        enhanced: the same shape and type.
    """

    INPUTS: ClassVar = ("tile",)
    OUTPUTS: ClassVar = ("enhanced",)

    def __init__(self, net: EnhanceNet) -> None:
        super().__init__()
        self.net = net

    @classmethod
    def load(cls, weights: Path) -> Enhance:
        """Read the weights (safetensors, any float type) strictly.

        Raises:
            OSError, SafetensorError, RuntimeError: the file is missing, damaged, or of another network.
        """
        net = EnhanceNet()
        net.load_state_dict({k: v.float() for k, v in load_file(weights).items()})
        return cls(net).eval()

    def forward(self, tile: torch.Tensor) -> torch.Tensor:
        """Compute the enhanced pictures; see the class."""
        levels = self.net(tile.float() / 255) * 255
        enhanced: torch.Tensor = (levels.clamp(0, 255) + 0.5).to(torch.uint8)
        return enhanced


def example_inputs() -> tuple[torch.Tensor, ...]:
    """Make inputs to trace `Enhance` with."""
    generator = torch.Generator().manual_seed(0)
    return (torch.randint(0, 256, (2, 3, TILE, TILE), dtype=torch.uint8, generator=generator),)
