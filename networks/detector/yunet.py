"""YuNet (Wu et al. 2023), OpenCV zoo's 2023mar file: a single-shot network for faces, a box and five points a cell.

The published ONNX file is read as data: its convolutions, in the order of the graph, are the layers of this module. The
weights in it are 8-bit numbers with a scale for each block, batch normalisation is folded into them. Every layer but
the first is a pointwise convolution followed by a depthwise one.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import torch
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn

from networks.detector.mtcnn import INSTALL_HINT
from networks.errors import NetworkError

STRIDES = (8, 16, 32)
"""Pixels between two cells of each of the three maps."""
BACKBONE = (
    ((16, 16), (16, 32)),
    ((32, 32), (32, 64)),
    ((64, 64), (64, 64)),
    ((64, 64), (64, 64)),
    ((64, 64), (64, 64)),
)
"""Channels in and out of the two layers of each stage."""
POOLED_AFTER = (1, 2, 3)
"""Stages whose result is pooled before the next one reads it."""
WIDTH = 64
"""Channels of the three maps that the heads read."""
HEADS = (("class", 1), ("box", 4), ("objectness", 1), ("points", 10))
"""Outputs of a cell, in the order of this module's result."""
OUTPUTS = sum(size for _, size in HEADS)

Floats = NDArray[np.float32]


class _Separable(nn.Module):
    """Pointwise and then depthwise 3 x 3 convolution, with no activation between them."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.point = nn.Conv2d(channels, out, 1)
        self.depth = nn.Conv2d(out, out, 3, padding=1, groups=out)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.depth(self.point(x))
        return y


class YuNet(nn.Module):
    """Score the cells of a picture: RGB pixels 0..255 [B,3,H,W] -> three maps [B,16,H/s,W/s] for s = 8, 16, 32.

    H and W are multiples of 32. Channels: logit of a face; x, y of the box's centre from the cell's corner in strides,
    and the logarithms of its sides in strides; logit of an object; x and y of five points as the centre's.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.stem2 = _Separable(16, 16)
        self.stages = nn.ModuleList(nn.ModuleList(_Separable(*layer) for layer in stage) for stage in BACKBONE)
        self.lateral = nn.ModuleList(_Separable(WIDTH, WIDTH) for _ in STRIDES)
        self.heads = nn.ModuleList(_Separable(WIDTH, OUTPUTS) for _ in STRIDES)

    def forward(self, pixels: Tensor, may_be_empty: bool = False) -> list[Tensor]:
        """Compute the three maps; `may_be_empty`: whether the graph has to take a batch of no picture."""
        doubled = _looked_up if may_be_empty else _enlarged
        x = torch.relu(self.stem2(torch.relu(self.stem(pixels))))
        x = nn.functional.max_pool2d(x, 2)
        maps = []
        for index, stage in enumerate(self.stages):
            assert isinstance(stage, nn.ModuleList)
            for layer in stage:
                x = torch.relu(layer(x))
            maps.append(x)
            if index in POOLED_AFTER:
                x = nn.functional.max_pool2d(x, 2)
        fine, middle, coarse = maps[2:]
        coarse = torch.relu(self.lateral[2](coarse))
        middle = torch.relu(self.lateral[1](middle + doubled(coarse)))
        fine = torch.relu(self.lateral[0](fine + doubled(middle)))
        return [head(x) for head, x in zip(self.heads, (fine, middle, coarse), strict=True)]

    @classmethod
    def load(cls, path: Path) -> YuNet:
        """Read the published ONNX file strictly; nothing of it is executed.

        Raises:
            NetworkError: the file is missing, damaged, or of another network.
        """
        network = cls()
        layers = _convolutions(path)
        with torch.no_grad():
            for name, convolution in network._published_order():
                _fill(convolution, *_next(layers, path, name), path, name)
            network._fill_heads(layers, path)
            # The published network takes blue, green, red.
            network.stem.weight.copy_(network.stem.weight.flip(1))
        if next(layers, None) is not None:
            raise NetworkError(f"{path} does not hold YuNet: it has more convolutions.")
        return network.eval()

    def _published_order(self) -> Iterator[tuple[str, nn.Conv2d]]:
        """Yield the convolutions before the heads as they follow each other in the published graph."""
        yield "stem", self.stem
        separable: list[tuple[str, nn.Module]] = [("stem2", self.stem2)]
        for index, stage in enumerate(self.stages):
            assert isinstance(stage, nn.ModuleList)
            separable += [(f"stage {index}.{number}", layer) for number, layer in enumerate(stage)]
        separable += [(f"lateral {index}", self.lateral[index]) for index in (2, 1, 0)]
        for name, layer in separable:
            assert isinstance(layer, _Separable)
            yield f"{name}, pointwise", layer.point
            yield f"{name}, depthwise", layer.depth

    def _fill_heads(self, layers: Iterator[tuple[Floats, Floats]], path: Path) -> None:
        """Join the four heads of each map, published one after the other, into one layer."""
        start = 0
        for name, size in HEADS:
            for head in self.heads:
                assert isinstance(head, _Separable)
                for part in (head.point, head.depth):
                    label = f"{name} head"
                    weight, bias = _next(layers, path, label)
                    joined = nn.Conv2d(
                        part.in_channels if part.groups == 1 else size,
                        size,
                        part.kernel_size[0],
                        groups=1 if part.groups == 1 else size,
                    )
                    _fill(joined, weight, bias, path, label)
                    assert part.bias is not None
                    assert joined.bias is not None
                    part.weight[start : start + size] = joined.weight
                    part.bias[start : start + size] = joined.bias
            start += size


def _enlarged(x: Tensor) -> Tensor:
    """Repeat each cell of a map [B,C,h,w] twice along both sides."""
    return nn.functional.interpolate(x, scale_factor=2.0)


def _looked_up(x: Tensor) -> Tensor:
    """Repeat cells as `_enlarged`, but slower: ONNX Runtime's Resize, in its blocked layout, takes no empty batch."""
    height, width = (torch.arange(2 * length) // 2 for length in x.shape[2:])
    return x[:, :, height][:, :, :, width]


def _next(layers: Iterator[tuple[Floats, Floats]], path: Path, name: str) -> tuple[Floats, Floats]:
    layer = next(layers, None)
    if layer is None:
        raise NetworkError(f"{path} does not hold YuNet: it has no convolution for its {name}.")
    return layer


def _fill(convolution: nn.Conv2d, weight: Floats, bias: Floats, path: Path, name: str) -> None:
    assert convolution.bias is not None
    expected = tuple(convolution.weight.shape)
    if weight.shape != expected or bias.shape != expected[:1]:
        raise NetworkError(
            f"{path} does not hold YuNet: its {name} has the shape {list(weight.shape)} and not {list(expected)}."
        )
    if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
        raise NetworkError(f"{path}: its {name} has weights that are not finite numbers.")
    convolution.weight.copy_(torch.from_numpy(weight))
    convolution.bias.copy_(torch.from_numpy(bias))


def _convolutions(path: Path) -> Iterator[tuple[Floats, Floats]]:
    """Yield weights and bias of each convolution of an ONNX file, in the order of its graph.

    Raises:
        NetworkError: the file is missing or no ONNX file, or computes its weights in another way than from blocks of
            8-bit numbers.
    """
    if not path.is_file():
        raise NetworkError(f"The detector's weights {path} are not there: {INSTALL_HINT}.")
    try:
        graph = onnx.load(str(path), load_external_data=False).graph
        tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    except (DecodeError, ValueError, TypeError) as error:
        raise NetworkError(f"{path} is no ONNX file: {error}") from None
    makers = {node.output[0]: node for node in graph.node if node.op_type in {"DequantizeLinear", "Reshape"}}

    def value(name: str) -> NDArray[np.generic]:
        if name in tensors:
            return tensors[name]
        if name not in makers:
            raise NetworkError(f"{path} does not hold YuNet: the tensor {name} is no constant.")
        node = makers[name]
        inputs = [value(part) for part in node.input]
        if node.op_type == "Reshape":
            return inputs[0].reshape([int(length) for length in inputs[1]])
        attributes = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
        return _dequantised(inputs, attributes.get("axis", 1), attributes.get("block_size", 0))

    for node in graph.node:
        if node.op_type == "Conv":
            try:
                weight, bias = (np.array(value(name), np.float32) for name in node.input[1:])
            except (ValueError, IndexError, RecursionError) as error:
                raise NetworkError(f"{path} does not hold YuNet: {error}") from None
            yield weight, bias


def _dequantised(inputs: list[NDArray[np.generic]], axis: int, block: int) -> Floats:
    """Compute (quantised - zero point) * scale, ONNX's DequantizeLinear of opset 21.

    Args:
        inputs: quantised numbers; scales; and, possibly, zero points of the scales' shape.
        axis: along which the scales change.
        block: how many numbers along the axis share a scale; 0: all, one scale an index of the axis.
    """
    numbers = inputs[0].astype(np.float32)

    def spread(values: Floats) -> Floats:
        if block:
            repeated = np.repeat(values, block, axis=axis)
            return repeated[tuple(slice(0, length) for length in numbers.shape)]
        shape = [1] * numbers.ndim
        if values.ndim:
            shape[axis] = -1
        return values.reshape(shape)

    zero = spread(inputs[2].astype(np.float32)) if len(inputs) > 2 else np.float32(0)
    return np.asarray((numbers - zero) * spread(inputs[1].astype(np.float32)), np.float32)
