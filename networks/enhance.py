"""The enhancement network: a blurred, noisy, compressed or enlarged face -> the same face, sharper and cleaner.

A small U-Net over 2x2 blocks of pixels that answers a correction of the picture. It is trained for the least error and
not to please: it makes up no pores and no lashes, and leaves a good picture nearly as it is.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

from networks.camera import CROP_HD

WIDTHS = (24, 48, 64)  # channels at a half, a fourth and an eighth of the picture's size
BLOCK = 8  # the sides of a picture are multiples of it


def _convolutions(*channels: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(channels):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class EnhanceNet(nn.Module):
    """RGB 0..1 (B, 3, H, W) -> the same, corrected and not clipped; 0.27 M weights, 3 GMAC at 512 px.

    No normalisation: the strength of noise and the contrast are what it has to tell.
    """

    def __init__(self) -> None:
        super().__init__()
        a, b, c = WIDTHS
        self.first = _convolutions(12, a, a)
        self.down1 = nn.Conv2d(a, b, 2, 2)
        self.second = _convolutions(b, b, b)
        self.down2 = nn.Conv2d(b, c, 2, 2)
        self.third = _convolutions(c, c, c, c, c)
        self.up2 = nn.Conv2d(c, 4 * b, 1)
        self.fourth = _convolutions(b, b, b)
        self.up1 = nn.Conv2d(b, 4 * a, 1)
        self.fifth = _convolutions(a, a, a)
        self.last = nn.Conv2d(a, 12, 3, padding=1)
        nn.init.zeros_(self.last.weight)
        assert self.last.bias is not None
        nn.init.zeros_(self.last.bias)

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        """Correct pictures; see the class."""
        one = self.first(F.pixel_unshuffle(picture - 0.5, 2))
        two = self.second(self.down1(one))
        three = self.down2(two)
        three = three + self.third(three)
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
