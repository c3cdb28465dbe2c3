"""P-, R- and O-Net of MTCNN (Zhang et al. 2016), in the layout of the facenet-pytorch 2.6.0 weight files (MIT).

The networks take RGB pixels less 127 (the grey around the picture on the canvas is then zero): the rest of the
normalisation (x - 127.5) / 128 is folded into the first convolution when the weights are loaded, so nothing outside
has to know it. None of them pads, hence the fold is exact.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from export.errors import ExportError

GREY = 127.0
"""Subtracted from the pixels before the networks see them."""
PIXEL_MEAN = 127.5
PIXEL_SCALE = 1.0 / 128.0
STRIDE = 2
"""Canvas-level pixels between two neighbouring windows of P-Net."""
CELL = 12
"""Side of P-Net's window in pixels of its pyramid level."""
HINT = (
    "install it with `pip install --no-deps --target .tools/facenet-pytorch facenet-pytorch==2.6.0` (`make setup` does)"
)


class _Network(nn.Module):
    """What the three share: strict loading, and the normalisation folded into `conv1`."""

    conv1: nn.Conv2d

    @classmethod
    def load(cls, path: Path) -> _Network:
        """Read one weight file strictly and without executing anything in it.

        Raises:
            ExportError: the file is missing, is not a state dict of this network, or is damaged.
        """
        if not path.is_file():
            raise ExportError(f"The detector's weights {path} are not there: {HINT}.")
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            network = cls()
            network.load_state_dict(state)
        except Exception as error:  # torch.load has no exception of its own for a damaged file
            reason = str(error).splitlines()[0]
            raise ExportError(f"{path} does not hold the weights of {cls.__name__}: {reason}") from error
        with torch.no_grad():
            weight = network.conv1.weight * PIXEL_SCALE
            assert network.conv1.bias is not None
            network.conv1.bias += (GREY - PIXEL_MEAN) * weight.sum(dim=(1, 2, 3))
            network.conv1.weight.copy_(weight)
        return network.eval()


class _PReLU(nn.Module):
    """x where positive, slope * x elsewhere, per channel.

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


class PNet(_Network):
    """Proposal network: every 12 px window of a picture, at a stride of 2."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 10, 3)
        self.prelu1 = _PReLU(10)
        self.pool1 = nn.MaxPool2d(2, 2, ceil_mode=True)
        self.conv2 = nn.Conv2d(10, 16, 3)
        self.prelu2 = _PReLU(16)
        self.conv3 = nn.Conv2d(16, 32, 3)
        self.prelu3 = _PReLU(32)
        self.conv4_1 = nn.Conv2d(32, 2, 1)
        self.conv4_2 = nn.Conv2d(32, 4, 1)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """[B,3,H,W] centred pixels -> face probability [B,h,w] and box offsets [B,4,h,w] in parts of the window."""
        x = self.pool1(self.prelu1(self.conv1(pixels)))
        x = self.prelu3(self.conv3(self.prelu2(self.conv2(x))))
        return _face_probability(self.conv4_1(x)), self.conv4_2(x)


class RNet(_Network):
    """Refinement network for 24 px crops."""

    SIDE = 24

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 28, 3)
        self.prelu1 = _PReLU(28)
        self.pool1 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv2 = nn.Conv2d(28, 48, 3)
        self.prelu2 = _PReLU(48)
        self.pool2 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv3 = nn.Conv2d(48, 64, 2)
        self.prelu3 = _PReLU(64)
        self.dense4 = nn.Linear(576, 128)
        self.prelu4 = _PReLU(128)
        self.dense5_1 = nn.Linear(128, 2)
        self.dense5_2 = nn.Linear(128, 4)

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """[n,3,24,24] centred pixels -> face probability [n] and box offsets [n,4] as parts of the box's sides."""
        x = self.pool1(self.prelu1(self.conv1(crops)))
        x = self.pool2(self.prelu2(self.conv2(x)))
        x = self.prelu4(self.dense4(_columns_first(self.prelu3(self.conv3(x)))))
        return _face_probability(self.dense5_1(x)), self.dense5_2(x)


class ONet(_Network):
    """Output network for 48 px crops: the final score, box and five points."""

    SIDE = 48

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 3)
        self.prelu1 = _PReLU(32)
        self.pool1 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv2 = nn.Conv2d(32, 64, 3)
        self.prelu2 = _PReLU(64)
        self.pool2 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv3 = nn.Conv2d(64, 64, 3)
        self.prelu3 = _PReLU(64)
        self.pool3 = nn.MaxPool2d(2, 2, ceil_mode=True)
        self.conv4 = nn.Conv2d(64, 128, 2)
        self.prelu4 = _PReLU(128)
        self.dense5 = nn.Linear(1152, 256)
        self.prelu5 = _PReLU(256)
        self.dense6_1 = nn.Linear(256, 2)
        self.dense6_2 = nn.Linear(256, 4)
        self.dense6_3 = nn.Linear(256, 10)

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[n,3,48,48] centred pixels -> probability [n], box offsets [n,4], points [n,10].

        The points are five x, then five y, in parts of the box.
        """
        x = self.pool1(self.prelu1(self.conv1(crops)))
        x = self.pool2(self.prelu2(self.conv2(x)))
        x = self.prelu4(self.conv4(self.pool3(self.prelu3(self.conv3(x)))))
        x = self.prelu5(self.dense5(_columns_first(x)))
        return _face_probability(self.dense6_1(x)), self.dense6_2(x), self.dense6_3(x)


def _columns_first(x: Tensor) -> Tensor:
    """Flatten [n,C,h,w] as the weights expect it: they come from a framework that stores width, height, channel."""
    return x.permute(0, 3, 2, 1).flatten(1)


def _face_probability(logits: Tensor) -> Tensor:
    """Second of two soft-maxed channels; a sigmoid of the difference is the same number in fewer operations."""
    return torch.sigmoid(logits[:, 1] - logits[:, 0])


def load_networks(folder: Path) -> tuple[PNet, RNet, ONet]:
    """Load `pnet.pt`, `rnet.pt` and `onet.pt` from a folder."""
    p_net, r_net, o_net = PNet.load(folder / "pnet.pt"), RNet.load(folder / "rnet.pt"), ONet.load(folder / "onet.pt")
    assert isinstance(p_net, PNet)
    assert isinstance(r_net, RNet)
    assert isinstance(o_net, ONet)
    return p_net, r_net, o_net
