"""dlib's ResNet-29 for faces (King, `dlib_face_recognition_resnet_model_v1.dat`, 2017, public domain).

The file is a stream of dlib's serialisation, layers from the input to the output; a layer's parameters stand behind its
name as little-endian float32. The format, and the network's layers, are those of dlib's `dnn/layers.h` and its example
`dnn_face_recognition_ex.cpp`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from networks.errors import NetworkError

SIDE = 150
"""Side of dlib's chip in pixels."""
FEATURES, DIMENSIONS = 256, 128
MAX_BYTES = 64 << 20
# RGB means of the network's input layer, and its divisor.
_MEAN, _DIVISOR = (122.782, 117.001, 104.298), 256.0
# Channels of each residual block, and whether it halves the resolution.
BLOCKS = (
    *(((32, False),) * 3),
    *((64, True), (64, False), (64, False), (64, False)),
    *((128, True), (128, False), (128, False)),
    *((256, True), (256, False), (256, False), (256, True)),
)
_STEM, _MAP = 32, 35  # channels behind the stem, and side of its map after pooling
# The chip in the 112 px crop of the service: chip = scale * crop + offset. They are the least-squares fit of the
# template of embedding_crop.py to where a detector's five points lie on dlib's chips: (47.91, 46.51) (100.91, 46.77)
# (74.73, 75.84) (50.83, 98.62) (97.06, 98.98).
_CROP_SIDE, _SCALE, _OFFSET_X, _OFFSET_Y = 112, 1.3804, -3.05, -25.91


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: (B, inputs, side, side) -> (B, outputs, side, side) or half of it.

    Where the sizes of both differ, what is missing of the smaller one counts as 0, as in dlib's ``add_prev``. The sizes
    are known beforehand, so that an exported graph has none to compute.
    """

    def __init__(self, inputs: int, outputs: int, halve: bool, side: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, 2 if halve else 1, 0 if halve else 1)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1)
        self.halve = halve
        self.missing_rows = side // 2 - (side - 1) // 2 if halve else 0
        self.missing_channels = outputs - inputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute the block's output."""
        y = self.second(torch.relu(self.first(x)))
        shortcut = nn.functional.avg_pool2d(x, 2, 2) if self.halve else x
        if self.missing_channels:
            shortcut = nn.functional.pad(shortcut, (0, 0, 0, 0, 0, self.missing_channels))
        if self.missing_rows:
            y = nn.functional.pad(y, (0, self.missing_rows, 0, self.missing_rows))
        return torch.relu(shortcut + y)


class DlibResNet(nn.Module):
    """dlib's network: float32 (B, 3, 150, 150) RGB of 0..255 -> (B, 128), compared by Euclidean distance."""

    mean: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1))
        self.stem = nn.Conv2d(3, _STEM, 7, 2)
        blocks, channels, side = [], _STEM, _MAP
        for outputs, halve in BLOCKS:
            blocks.append(ResidualBlock(channels, outputs, halve, side))
            channels, side = outputs, side // 2 if halve else side
        self.blocks = nn.Sequential(*blocks)
        self.linear = nn.Linear(channels, DIMENSIONS, bias=False)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Compute the embedding before normalisation."""
        vector: torch.Tensor = self.linear(self.features(pixels))
        return vector

    def features(self, pixels: torch.Tensor) -> torch.Tensor:
        """Compute the means (B, 256) of the last map, of which the embedding is a linear map."""
        x = nn.functional.max_pool2d(torch.relu(self.stem((pixels - self.mean) / _DIVISOR)), 3, 2)
        means: torch.Tensor = self.blocks(x).mean((2, 3))
        return means

    @classmethod
    def load(cls, path: Path) -> DlibResNet:
        """Load dlib's file.

        Raises:
            NetworkError: the file is missing, damaged, or of another network.
        """
        try:
            if path.stat().st_size > MAX_BYTES:
                raise NetworkError(f"{path} is larger than {MAX_BYTES >> 20} MiB: it is not dlib's embedder.")
            return cls._from_layers(_layers(path.read_bytes()))
        except OSError as error:
            raise NetworkError(f"The weights {path} cannot be read ({error.strerror}).") from error
        except ValueError as error:
            raise NetworkError(f"{path} is not dlib's dlib_face_recognition_resnet_model_v1.dat ({error}).") from error

    @classmethod
    def _from_layers(cls, layers: list[_Layer]) -> DlibResNet:
        network = cls()
        convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
        kinds = [[layer.values for layer in layers if layer.kind == kind] for kind in ("con", "affine", "fc")]
        if [len(kind) for kind in kinds] != [len(convolutions), len(convolutions), 1]:
            raise ValueError(f"{[len(kind) for kind in kinds]} convolutions, affine and linear layers")
        for convolution, values, affine in zip(convolutions, kinds[0], kinds[1], strict=True):
            count = convolution.out_channels
            if len(values) != convolution.weight.numel() + count or len(affine) != 2 * count:
                raise ValueError("a layer of another size")
            gamma, beta = affine[:count], affine[count:]
            weight = values[:-count].reshape(tuple(convolution.weight.shape)) * gamma[:, None, None, None]
            with torch.no_grad():
                convolution.weight.copy_(torch.from_numpy(weight))
                assert convolution.bias is not None
                convolution.bias.copy_(torch.from_numpy(values[-count:] * gamma + beta))
        if kinds[2][0].size != network.linear.weight.numel():
            raise ValueError("a linear layer of another size")
        with torch.no_grad():
            network.linear.weight.copy_(torch.from_numpy(kinds[2][0].reshape(-1, DIMENSIONS).T.copy()))
        return network.eval()


class FromCrop(nn.Module):
    """dlib's network behind the service's crop: float32 (B, 3, 112, 112) -> (B, 128).

    The chip is sampled from the crop, bilinearly along both axes. Its lowest 22 rows lie below the crop and are black.
    """

    rows: torch.Tensor
    columns: torch.Tensor

    def __init__(self, network: DlibResNet) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("rows", _sampling(_OFFSET_Y))
        self.register_buffer("columns", _sampling(_OFFSET_X).T.contiguous())

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Compute the embedding before normalisation."""
        vector: torch.Tensor = self.network(self.rows @ pixels @ self.columns)
        return vector


def _sampling(offset: float) -> torch.Tensor:
    """Weights (150, 112) of the crop's rows in each row of the chip."""
    places = (torch.arange(SIDE, dtype=torch.float64) - offset) / _SCALE
    distances = (places[:, None] - torch.arange(_CROP_SIDE, dtype=torch.float64)).abs()
    return (1 - distances).clamp(min=0).float()


@dataclass(frozen=True)
class _Layer:
    kind: str
    values: NDArray[np.float32]


# A name is a serialised string: its length as an integer (one byte that counts the integer's bytes, then those).
_NAME = re.compile(rb"\x01(?:\x05con_[45]|\x04con_|\x07affine_|\x04fc_2|\x03fc_)")


def _layers(data: bytes) -> list[_Layer]:
    """Return the layers with parameters in the file's order; bytes inside of parameters may look like a name."""
    layers, at = [], 0
    while match := _NAME.search(data, at):
        kind = next(kind for kind in ("con", "affine", "fc") if match[0][2:].startswith(kind.encode()))
        read = _tensor(data, _skip(data, match.end(), 2) if kind == "fc" else match.end())
        if read is None:
            at = match.end()
            continue
        values, at = read
        layers.append(_Layer(kind, values))
    return layers


def _skip(data: bytes, at: int, count: int) -> int:
    for _ in range(count):
        _, at = _integer(data, at)
    return at


def _integer(data: bytes, at: int) -> tuple[int, int]:
    """A serialised integer and the place behind it: a byte with count of bytes and sign, then these, little-endian."""
    if at >= len(data):
        raise ValueError("it ends early")
    end = at + 1 + (data[at] & 0x0F)
    value = int.from_bytes(data[at + 1 : end], "little")
    return (-value if data[at] & 0x80 else value), end


def _tensor(data: bytes, at: int) -> tuple[NDArray[np.float32], int] | None:
    """A serialised tensor (version 2, four sizes, float32 values) and the place behind it; None where there is none."""
    version, at = _integer(data, at)
    if version != 2:
        return None
    size = 1
    for _ in range(4):
        length, at = _integer(data, at)
        size *= length
    if not 0 < size <= (len(data) - at) // 4:
        raise ValueError("it ends early")
    return np.frombuffer(data, "<f4", size, at), at + 4 * size
