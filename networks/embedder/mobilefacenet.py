"""MobileFaceNet (Chen et al., "MobileFaceNets: Efficient CNNs for Accurate Real-Time Face Verification", 2018)."""

from __future__ import annotations

import torch
from torch import nn

DIMENSIONS = 128
# Expansion, channels, blocks and stride of the first one, of each stage of inverted residuals (the paper's table 1).
STAGES = ((2, 64, 5, 2), (4, 128, 1, 2), (2, 128, 6, 1), (4, 128, 1, 2), (2, 128, 2, 1))
_LAST, _GRID = 512, 7


def _convolution(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """A convolution with batch norm and PReLU, which keeps the size but for the stride."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.PReLU(outputs),
    )


class InvertedResidual(nn.Module):
    """Expansion, depthwise 3x3 and linear projection: (B, inputs, H, W) -> (B, outputs, H / stride, W / stride)."""

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int) -> None:
        super().__init__()
        inner = inputs * expansion
        self.body = nn.Sequential(
            _convolution(inputs, inner, 1),
            _convolution(inner, inner, 3, stride, inner),
            nn.Conv2d(inner, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute the block's output."""
        y: torch.Tensor = self.body(x)
        return x + y if self.shortcut else y


class MobileFaceNet(nn.Module):
    """MobileFaceNet of 1.0 M parameters: float32 (B, 3, 112, 112) RGB of 0..255 -> (B, 128), not normalised."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [_convolution(3, 64, 3, 2), _convolution(64, 64, 3, 1, 64)]
        channels = 64
        for expansion, outputs, blocks, stride in STAGES:
            for block in range(blocks):
                layers.append(InvertedResidual(channels, outputs, expansion, stride if block == 0 else 1))
                channels = outputs
        layers.append(_convolution(channels, _LAST, 1))
        self.layers = nn.Sequential(*layers)
        # A depthwise convolution as large as the map weighs its places, where an average would treat them alike.
        self.head = nn.Sequential(
            nn.Conv2d(_LAST, _LAST, _GRID, groups=_LAST, bias=False),
            nn.BatchNorm2d(_LAST),
            nn.Conv2d(_LAST, DIMENSIONS, 1, bias=False),
            nn.BatchNorm2d(DIMENSIONS),
        )

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Compute the embedding before normalisation."""
        vector: torch.Tensor = self.head(self.layers((pixels - 127.5) * (1 / 128)))
        return vector.flatten(1)
