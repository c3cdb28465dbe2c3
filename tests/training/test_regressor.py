"""A training run on tiny data: it goes on where it stopped, and its labels project to where the render shows them."""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import nn

from export.camera import project, rotation
from tests.export.synthetic import face_model
from training import regressor
from training.regressor import Renders, Trainer, seen_by_render_camera, write_weights
from training.render import SIZE


class SmallNet(nn.Module):
    """Stands where the ResNet50 stands, with the same answer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 8, 8), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
        self.final_layers = nn.ModuleList([nn.Conv2d(4, 257, 1)])

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        """(B, 3, S, S) -> (B, 257)."""
        answer: torch.Tensor = self.final_layers[0](self.stem(picture)).flatten(1)
        return answer


def shard(stem: Path, number: int, count: int = 3) -> None:
    rng = np.random.default_rng(number)
    np.save(f"{stem}-0-{number:03d}.npy", rng.integers(0, 256, (count, SIZE, SIZE, 3), np.uint8))
    np.savez(
        f"{stem}-0-{number:03d}.labels.npz",
        identity=rng.normal(0, 1, (count, 80)).astype(np.float32),
        expression=rng.random((count, 64)).astype(np.float32),
        angle=rng.normal(0, 0.2, (count, 3)).astype(np.float32),
        camera=np.tile(np.array([10, 101.5, 112, 111], np.float32), (count, 1)),
    )


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> argparse.Namespace:
    """Arguments of a run on noise: two batches of four."""
    monkeypatch.setattr(regressor, "ReconstructionNet", SmallNet)
    for name in ("RENDERS_A_BATCH", "PICTURES_A_BATCH", "HELD_OUT"):
        monkeypatch.setattr(regressor, name, 2)
    rng = np.random.default_rng(0)
    face_model().save(tmp_path / "face_model.npz")
    scatter = np.where(np.arange(478) < 50, 1.0, 9.0).astype(np.float32)
    np.savez(tmp_path / "map.npz", vertex=rng.integers(0, 1681, 478).astype(np.int32), scatter_mm=scatter)
    shard(tmp_path / "r", 0)
    files = [f"{k}.png" for k in range(5)]
    for file in files:
        cv2.imwrite(str(tmp_path / file), rng.integers(0, 256, (120, 100, 3), np.uint8))
    np.savez(tmp_path / "labels.npz", files=np.array(files), points=rng.uniform(20, 90, (5, 478, 3)))
    return argparse.Namespace(
        face_model=tmp_path / "face_model.npz", teacher_map=tmp_path / "map.npz", renders=tmp_path / "r",
        pictures=tmp_path, labels=tmp_path / "labels.npz", checkpoint=tmp_path / "run.pt", resolution=112,
        samples=8, minutes=1e9, rate=1e-3, restart=False, seed=0,
    )  # fmt: skip


def test_a_run_goes_on_counting_where_it_stopped(run: argparse.Namespace, tmp_path: Path) -> None:
    first = Trainer(run)
    first.run()
    assert first.samples == 8
    second = Trainer(run)
    assert second.samples == 8
    for name, tensor in second.net.state_dict().items():
        assert torch.equal(tensor, first.net.state_dict()[name])
    second.run()
    assert second.samples == 16
    restarted = Trainer(argparse.Namespace(**{**vars(run), "restart": True}))
    assert restarted.samples == 0
    for name, tensor in restarted.net.state_dict().items():
        assert torch.equal(tensor, second.average[name])
    write_weights(run.checkpoint, tmp_path / "weights.safetensors", 112)
    with safe_open(tmp_path / "weights.safetensors", "pt") as file:
        assert file.metadata()["resolution"] == "112"
        assert set(file.keys()) == set(second.average)


def test_shards_that_appear_later_are_found_once(tmp_path: Path) -> None:
    shard(tmp_path / "r", 0)
    renders = Renders(tmp_path / "r")
    shard(tmp_path / "r", 1, count=4)
    shard(tmp_path / "other", 0)
    renders.refresh()
    renders.refresh()
    assert len(renders) == 7
    crops, labels = renders.sample(np.random.default_rng(0), 5)
    assert crops.shape == (5, 3, SIZE, SIZE)
    assert labels["camera"].shape == (5, 4)


def test_a_render_camera_ten_decimetres_away_is_the_service_s_camera() -> None:
    generator = torch.Generator().manual_seed(0)
    head = torch.randn(2, 30, 3, generator=generator) * 0.5
    posed = head @ rotation(torch.randn(2, 3, generator=generator) * 0.3)
    camera = torch.tensor([[10.0, 101.5, 112.0, 111.0]]).expand(2, 4)
    np.testing.assert_allclose(seen_by_render_camera(posed, camera), project(posed), atol=1e-3)
