"""SFace (Zhong et al., "SFace: Sigmoid-Constrained Hypersphere Loss for Robust Face Recognition", 2021).

A MobileNet of depthwise separable convolutions, each followed by a batch norm and a PReLU, and one linear layer. The
batch norms are folded into what they follow, in float64.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from networks.embedder.onnx_weights import Constants
from networks.errors import NetworkError

SIDE = 112
"""Side of the aligned face in pixels."""
DIMENSIONS = 128
"""Length of the embedding."""
# Channels and stride of each separable convolution.
BLOCKS = (
    *((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)),
    *(((512, 1),) * 5),
    *((1024, 2), (1024, 1)),
)
_STEM = 32
_GRID = SIDE // 16
# Epsilons of the batch norms in the published graph: those behind convolutions, and the two last ones.
_EPSILON, _LAST_EPSILON = 1e-3, 2e-5


class ConvPReLU(nn.Module):
    """A 3x3 or 1x1 convolution with a PReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups)
        self.slopes = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute (B, inputs, H, W) -> (B, outputs, H / stride, W / stride)."""
        return nn.functional.prelu(self.conv(x), self.slopes)


class SFace(nn.Module):
    """SFace: float32 (B, 3, 112, 112) RGB of 0..255 -> (B, 128), not normalised."""

    def __init__(self) -> None:
        super().__init__()
        layers, channels = [ConvPReLU(3, _STEM, 3)], _STEM
        for outputs, stride in BLOCKS:
            layers += [ConvPReLU(channels, channels, 3, stride, channels), ConvPReLU(channels, outputs, 1)]
            channels = outputs
        self.layers = nn.Sequential(*layers)
        self.linear = nn.Linear(channels * _GRID * _GRID, DIMENSIONS)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Compute the embedding before normalisation."""
        features: torch.Tensor = self.layers((pixels - 127.5) * (1 / 128))
        vector: torch.Tensor = self.linear(features.flatten(1))
        return vector

    @classmethod
    def from_constants(cls, constants: Constants) -> SFace:
        """Load the constants of the published graph (`onnx_weights.read`).

        Raises:
            NetworkError: they are those of another network.
        """
        network = cls()
        names = ["conv_1"]
        for number in range(2, len(BLOCKS) + 2):
            names += [f"conv_{number}_dw", f"conv_{number}"]
        try:
            for layer, name in zip(network.layers, names, strict=True):
                assert isinstance(layer, ConvPReLU)
                scale, shift = _batch_norm(constants, f"{name}_batchnorm", _EPSILON)
                weight = constants[f"{name}_conv2d_weight"].astype(np.float64) * scale[:, None, None, None]
                assert layer.conv.bias is not None
                _load(layer.conv.weight, weight)
                _load(layer.conv.bias, shift)
                _load(layer.slopes, constants[f"{name}_relu_gamma"].reshape(-1))
            _load_linear(network.linear, constants)
        except (KeyError, ValueError) as error:
            raise NetworkError(f"The weights are not those of SFace ({error}).") from error
        return network.eval()


def _batch_norm(
    constants: Mapping[str, NDArray[np.float32]], name: str, epsilon: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return scale and shift of a batch norm: y = scale * x + shift."""
    gamma, beta, mean, variance = (
        constants[f"{name}_{part}"].astype(np.float64) for part in ("gamma", "beta", "moving_mean", "moving_var")
    )
    scale = gamma / np.sqrt(variance + epsilon)
    return scale, beta - mean * scale


def _load_linear(linear: nn.Linear, constants: Constants) -> None:
    """Fold the batch norms before and behind the linear layer into it."""
    before, shift = _batch_norm(constants, "bn1", _LAST_EPSILON)
    behind, offset = _batch_norm(constants, "fc1", _LAST_EPSILON)
    weight = constants["pre_fc1_weight"].astype(np.float64)
    cells = _GRID * _GRID
    bias = constants["pre_fc1_bias"].astype(np.float64) + weight @ np.repeat(shift, cells)
    _load(linear.weight, behind[:, None] * weight * np.repeat(before, cells))
    _load(linear.bias, behind * bias + offset)


def _load(parameter: torch.Tensor, values: NDArray[np.floating[Any]]) -> None:
    if tuple(parameter.shape) != values.shape:
        raise ValueError(f"a tensor has shape {list(values.shape)} and not {list(parameter.shape)}")
    with torch.no_grad():
        parameter.copy_(torch.from_numpy(np.ascontiguousarray(values)))
