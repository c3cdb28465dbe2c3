"""The enhancement network: a blurred, noisy, compressed or enlarged face -> the same face, sharper and cleaner.

A small U-Net over 2x2 blocks of pixels that answers a correction of the picture. It is trained for the least error and
not to please: it makes up no pores and no lashes, and leaves a good picture nearly as it is.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

from networks.camera import CROP_HD

WIDTHS = (24, 48, 64)  # channels at a half, a fourth and an eighth of the picture's size
BLOCK = 8  # the sides of a picture are multiples of it


class _Block(nn.Module):
    """Add two 3x3 convolutions of a map (B, C, h, w) to it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.one = nn.Conv2d(channels, channels, 3, padding=1)
        self.two = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = x + self.two(torch.relu(self.one(x)))
        return result


class EnhanceNet(nn.Module):
    """RGB 0..1 (B, 3, H, W) -> the same, corrected and not clipped; 0.27 M weights, 3 GMAC at 512 px.

    No normalisation: the strength of noise and the contrast are what it has to tell. Every block adds to what it is
    given, so that no unit can fall silent for good.
    """

    def __init__(self) -> None:
        super().__init__()
        a, b, c = WIDTHS
        self.stem = nn.Conv2d(12, a, 3, padding=1)
        self.first = _Block(a)
        self.down1 = nn.Conv2d(a, b, 2, 2)
        self.second = _Block(b)
        self.down2 = nn.Conv2d(b, c, 2, 2)
        self.third = nn.Sequential(_Block(c), _Block(c))
        self.up2 = nn.Conv2d(c, 4 * b, 1)
        self.fourth = _Block(b)
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
                nn.init.normal_(block.two.weight, 0, 0.01)
        nn.init.zeros_(self.last.weight)

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        """Correct pictures; see the class."""
        one = self.first(self.stem(F.pixel_unshuffle(picture - 0.5, 2)))
        two = self.second(self.down1(one))
        three = self.third(self.down2(two))
        two = self.fourth(two + F.pixel_shuffle(self.up2(three), 2))
        one = self.fifth(one + F.pixel_shuffle(self.up1(two), 2))
        return picture + F.pixel_shuffle(self.last(one), 2)


class Enhance(nn.Module):
    """The exported module.

    Input:
        crop_hd: (B, 3, H, W) uint8 RGB, of sides that are multiples of 8; 512 px as served.

    Output:
        enhanced: the same shape and type.
    """

    INPUTS = ("crop_hd",)
    OUTPUTS = ("enhanced",)

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

    def forward(self, crop_hd: torch.Tensor) -> torch.Tensor:
        """Compute the enhanced pictures; see the class."""
        levels = self.net(crop_hd.float() / 255) * 255
        enhanced: torch.Tensor = (levels.clamp(0, 255) + 0.5).to(torch.uint8)
        return enhanced


def example_inputs(batch: int = 2) -> tuple[torch.Tensor]:
    """Return a black crop uint8 [B, 3, 512, 512] to trace with."""
    return (torch.zeros(batch, 3, CROP_HD, CROP_HD, dtype=torch.uint8),)
