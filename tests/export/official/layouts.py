"""Checkpoints and face models of the published layouts with random contents.

Keys and shapes are spelled out here, not taken from the code under test.
"""

from __future__ import annotations

import warnings
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.io import savemat
from torch import Tensor, nn

State = dict[str, Tensor]
BFM_VERTICES, BFM_TRIANGLES = 35_709, 70_789


class Maker:
    """Random tensors of the sizes that keep activations in range, under given names."""

    def __init__(self, seed: int = 0) -> None:
        self.chance = torch.Generator().manual_seed(seed)
        self.state: State = {}

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.chance)

    def conv(self, name: str, out: int, channels: int, kernel: int, bias: bool = False) -> None:
        self.state[f"{name}.weight"] = self.normal(out, channels, kernel, kernel) / (channels * kernel**2) ** 0.5
        if bias:
            self.state[f"{name}.bias"] = self.normal(out) * 0.1

    def norm(self, name: str, width: int) -> None:
        self.state[f"{name}.weight"] = 1 + 0.2 * self.normal(width)
        self.state[f"{name}.bias"] = 0.1 * self.normal(width)
        self.state[f"{name}.running_mean"] = 0.1 * self.normal(width)
        self.state[f"{name}.running_var"] = 0.5 + torch.rand(width, generator=self.chance)
        self.state[f"{name}.num_batches_tracked"] = torch.tensor(7)

    def resnet50(self, prefix: str) -> None:
        self.conv(f"{prefix}conv1", 64, 3, 7)
        self.norm(f"{prefix}bn1", 64)
        width = 64
        for index, (planes, blocks) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3)), 1):
            for block in range(blocks):
                name = f"{prefix}layer{index}.{block}."
                for number, (out, channels, kernel) in enumerate(
                    ((planes, width, 1), (planes, planes, 3), (4 * planes, planes, 1)), 1
                ):
                    self.conv(f"{name}conv{number}", out, channels, kernel)
                    self.norm(f"{name}bn{number}", out)
                if block == 0:
                    self.conv(f"{name}downsample.0", 4 * planes, width, 1)
                    self.norm(f"{name}downsample.1", 4 * planes)
                width = 4 * planes


def net_recon(seed: int = 0) -> State:
    """Make `net_recon`: 332 entries, 24,087,798 elements, whose tensors others have too: change none in place."""
    return dict(_net_recon(seed))


@lru_cache(maxsize=2)  # 96 MB each
def _net_recon(seed: int) -> State:
    maker = Maker(seed)
    maker.resnet50("backbone.")
    for index, size in enumerate((80, 64, 80, 3, 27, 2, 1)):
        maker.conv(f"final_layers.{index}", size, 2048, 1, bias=True)
        maker.state[f"final_layers.{index}.weight"] *= 0.2
    return maker.state


def detail_net(channels: int, out: int) -> State:
    """Make `mid_net` or `high_net` with the keys that are read."""
    return {"model.1.weight": torch.zeros(64, channels, 7, 7), "model.26.weight": torch.zeros(out, 64, 7, 7)}


def hrn(seed: int = 0) -> dict[str, object]:
    """Make `pytorch_model.pt` of ModelScope, epoch_10.pth of HRN."""
    return {
        "net_recon": net_recon(seed),
        "mid_net": detail_net(6, 3),
        "high_net": detail_net(9, 1),
        "alpha": torch.tensor([0.02]),
        "beta": torch.tensor([0.03]),
    }


def deep3d(seed: int = 0) -> dict[str, object]:
    """Make epoch_20.pth of Deep3DFaceRecon, with optimiser and scheduler."""
    return {"net_recon": net_recon(seed), "opt_00": {"state": {}, "param_groups": []}, "sched_00": {"last_epoch": 20}}


def retinaface(mobile: bool, seed: int = 0) -> State:
    """Make RetinaFace-ResNet50 (456 entries) or MobileNet 0.25."""
    maker = Maker(seed)
    if mobile:
        maker.conv("body.stage1.0.0", 8, 3, 3)
        maker.norm("body.stage1.0.1", 8)
        plan = {1: ((8, 16), (16, 32), (32, 32), (32, 64), (64, 64)), 2: ((64, 128), *[(128, 128)] * 5)}
        plan[3] = ((128, 256), (256, 256))
        for stage, steps in plan.items():
            for step, (channels, out) in enumerate(steps, 1 if stage == 1 else 0):
                name = f"body.stage{stage}.{step}"
                maker.conv(f"{name}.0", channels, 1, 3)
                maker.norm(f"{name}.1", channels)
                maker.conv(f"{name}.3", out, channels, 1)
                maker.norm(f"{name}.4", out)
    else:
        maker.resnet50("body.")
    width, widths = (64, (64, 128, 256)) if mobile else (256, (512, 1024, 2048))
    for index, channels in enumerate(widths, 1):
        maker.conv(f"fpn.output{index}.0", width, channels, 1)
        maker.norm(f"fpn.output{index}.1", width)
    for index in (1, 2):
        maker.conv(f"fpn.merge{index}.0", width, width, 3)
        maker.norm(f"fpn.merge{index}.1", width)
    for index in (1, 2, 3):
        for name, channels, out in (
            ("conv3X3", width, width // 2),
            ("conv5X5_1", width, width // 4),
            ("conv5X5_2", width // 4, width // 4),
            ("conv7X7_2", width // 4, width // 4),
            ("conv7x7_3", width // 4, width // 4),
        ):
            maker.conv(f"ssh{index}.{name}.0", out, channels, 3)
            maker.norm(f"ssh{index}.{name}.1", out)
    for head, size in (("ClassHead", 4), ("BboxHead", 8), ("LandmarkHead", 20)):
        for level in range(3):
            maker.conv(f"{head}.{level}.conv1x1", size, width, 1, bias=True)
    return maker.state


@lru_cache(maxsize=1)
def bfm_arrays(seed: int = 0) -> dict[str, NDArray[Any]]:
    """Make `BFM_model_front.mat`: a curved sheet with BFM's numbers of vertices and triangles, random bases.

    Others have them too: change none.
    """
    chance = np.random.default_rng(seed)
    across = 189
    index = np.arange(BFM_VERTICES)
    x, y = (index % across) / across * 1.6 - 0.8, index // across / across * -2 + 1
    mean = np.stack([x, y, 0.6 - 0.5 * x**2 - 0.2 * y**2], 1) + np.array([0.1, 0.2, 0.3])
    a = index[(index % across < across - 1) & (index + across + 1 < BFM_VERTICES)]
    quads = np.concatenate([np.stack([a, a + across, a + 1], 1), np.stack([a + 1, a + across, a + across + 1], 1)])
    triangles = np.resize(quads, (BFM_TRIANGLES, 3)) + 1
    return {
        "meanshape": mean.reshape(1, -1),
        "meantex": chance.uniform(60, 220, (1, 3 * BFM_VERTICES)),
        "idBase": chance.normal(0, 0.01, (3 * BFM_VERTICES, 80)).astype(np.float32),
        "exBase": chance.normal(0, 0.01, (3 * BFM_VERTICES, 64)).astype(np.float32),
        "texBase": chance.normal(0, 2, (3 * BFM_VERTICES, 80)).astype(np.float32),
        "tri": triangles,
        "keypoints": chance.choice(BFM_VERTICES, (1, 68), replace=False) + 1,
        "point_buf": np.ones((BFM_VERTICES, 8), np.int32),
    }


def save_bfm(path: Path, **changes: NDArray[Any]) -> Path:
    """Write `BFM_model_front.mat`, some arrays exchanged."""
    savemat(path, {**bfm_arrays(), **changes})
    return path


ARCFACE_LENGTH = 64


def save_arcface(path: Path, seed: int = 0, batch: int | None = None) -> nn.Module:
    """Save a small network as InsightFace's files are: `input.1` [batch,3,112,112] -> one vector a face, opset 11.

    Args:
        path: of the file.
        seed: of the weights.
        batch: fixed in the file; None: a free axis.
    """
    torch.manual_seed(seed)
    network = nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1, bias=False),
        nn.BatchNorm2d(16),
        nn.PReLU(16),
        nn.Conv2d(16, 32, 3, 4, 1),
        nn.ReLU(),
        nn.AvgPool2d(7),
        nn.Flatten(),
        nn.Linear(128, ARCFACE_LENGTH),
        nn.BatchNorm1d(ARCFACE_LENGTH),
    ).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (torch.zeros(batch or 2, 3, 112, 112),),
            path,
            input_names=["input.1"],
            output_names=["vector"],
            dynamic_axes=None if batch else {"input.1": {0: "None"}, "vector": {0: "None"}},
            opset_version=11,
            dynamo=False,
        )
    return network
