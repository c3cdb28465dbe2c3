"""A training run on tiny data: it goes on where it stopped, and its labels project to where the render shows them."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import nn

from networks.camera import project, rotation
from networks.regressor import ReconstructionNet, window_of
from tests.export.synthetic import face_model
from tests.training.made import run_arguments, shard
from training import regressor
from training.regressor import Probes, Renders, Trainer, mirror, mirrored, seen_by_render_camera, write_weights
from training.render import SIZE


class SmallNet(nn.Module):
    """Stands where the ResNet50 stands, with the same answer."""

    def __init__(self, window: int) -> None:
        super().__init__()
        self.window = window
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 8, 8), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
        self.final_layers = nn.ModuleList([nn.Conv2d(4, 257, 1)])

    def load_averaging(self, state: dict[str, torch.Tensor]) -> None:
        """As `ReconstructionNet.load_averaging`; the heads of this one have no window."""
        self.load_state_dict(state)

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        """(B, 3, S, S) -> (B, 257)."""
        answer: torch.Tensor = self.final_layers[0](self.backbone(picture)).flatten(1)
        return answer


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> argparse.Namespace:
    """Arguments of a run on noise: two batches of four."""
    monkeypatch.setattr(regressor, "ReconstructionNet", SmallNet)
    for name in ("RENDERS_A_BATCH", "PICTURES_A_BATCH", "HELD_OUT"):
        monkeypatch.setattr(regressor, name, 2)
    return run_arguments(tmp_path)


@pytest.fixture
def trained(run: argparse.Namespace) -> Trainer:
    """A run that is over: eight samples were seen."""
    trainer = Trainer(run)
    trainer.run()
    assert trainer.samples == 8
    return trainer


def test_a_run_goes_on_counting_where_it_stopped(run: argparse.Namespace, trained: Trainer) -> None:
    more = Trainer(argparse.Namespace(**{**vars(run), "samples": 16}))
    assert more.samples == 8
    for name, tensor in more.net.state_dict().items():
        assert torch.equal(tensor, trained.net.state_dict()[name])
    more.run()
    assert more.samples == 16


def test_a_run_that_has_seen_what_was_asked_for_does_nothing(run: argparse.Namespace, trained: Trainer) -> None:
    again = Trainer(run)
    again.run()
    assert again.samples == trained.samples


def test_a_restart_begins_with_the_averaged_weights_and_counts_on(run: argparse.Namespace, trained: Trainer) -> None:
    restarted = Trainer(argparse.Namespace(**{**vars(run), "restart": True}))
    assert restarted.samples == 8
    for name, tensor in restarted.net.state_dict().items():
        assert torch.equal(tensor, trained.average[name])


def test_written_weights_say_for_which_resolution_they_are(trained: Trainer, tmp_path: Path) -> None:
    write_weights(trained.average, trained.samples, tmp_path / "weights.safetensors", 112)
    with safe_open(tmp_path / "weights.safetensors", "pt") as file:
        assert file.metadata()["resolution"] == "112"
        assert set(file.keys()) == set(trained.average)


def test_frozen_normalisations_keep_their_statistics_and_learn_all_the_same(
    run: argparse.Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(regressor, "ReconstructionNet", ReconstructionNet)
    first = Trainer(argparse.Namespace(**{**vars(run), "samples": 4, "resolution": 32}))
    first.run()
    frozen = Trainer(
        argparse.Namespace(**{**vars(run), "samples": 4, "resolution": 32, "restart": True, "freeze": True})
    )
    before = {name: value.clone() for name, value in frozen.net.state_dict().items()}
    picture = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        first.net.eval()
        first.net.load_state_dict(first.average)
        np.testing.assert_allclose(frozen.net(picture), first.net(picture), rtol=1e-3, atol=1e-4)
    frozen.run()
    after = frozen.net.state_dict()
    assert not any(isinstance(module, nn.BatchNorm2d) for module in frozen.net.modules()), "there is nothing to gather"
    for name in ("backbone.conv1.weight", "backbone.conv1.bias", "backbone.layer4.2.conv3.bias"):
        assert not torch.equal(before[name], after[name]), name
    again = Trainer(argparse.Namespace(**{**vars(run), "samples": 12, "resolution": 32, "freeze": True}))
    assert torch.equal(again.net.state_dict()["backbone.conv1.bias"], after["backbone.conv1.bias"])


def test_muon_trains_convolutions_and_goes_on_with_its_momentum(
    run: argparse.Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(regressor, "ReconstructionNet", ReconstructionNet)
    run = argparse.Namespace(**{**vars(run), "samples": 4, "resolution": 32, "freeze": True, "muon": True})
    first = Trainer(run)
    before = {name: value.clone() for name, value in first.net.state_dict().items()}
    first.run()
    after = first.net.state_dict()
    for name in ("backbone.conv1.weight", "backbone.layer1.0.conv2.weight", "backbone.layer4.2.conv3.bias"):
        assert not torch.equal(before[name], after[name]), name
    again = Trainer(argparse.Namespace(**{**vars(run), "samples": 8}))
    assert first.muon is not None
    assert again.muon is not None
    states = (muon.optimiser.state_dict()["state"] for muon in (first.muon, again.muon))
    for mine, other in zip(*(state.values() for state in states), strict=True):
        torch.testing.assert_close(mine, other)


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


@pytest.fixture
def teacher_map(tmp_path: Path) -> Path:
    vertex = np.random.default_rng(0).integers(0, 1681, 478).astype(np.int32)
    np.savez(tmp_path / "map.npz", vertex=vertex, scatter_mm=np.ones(478, np.float32))
    return tmp_path / "map.npz"


def test_heads_spread_over_the_window_answer_what_they_answered_on_the_average() -> None:
    torch.manual_seed(0)
    averaging, whole = ReconstructionNet().eval(), ReconstructionNet(window=2).eval()
    for head in averaging.final_layers.parameters():
        nn.init.normal_(head, 0, 0.1)
    whole.load_averaging(averaging.state_dict())
    assert (window_of(averaging.state_dict()), window_of(whole.state_dict())) == (1, 2)
    picture = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        np.testing.assert_allclose(whole(picture), averaging(picture), atol=1e-4)


def test_what_no_picture_shows_of_a_head_is_taken_out_of_the_truth(teacher_map: Path) -> None:
    probes = Probes(face_model(), teacher_map)
    neutral = probes.neutral(torch.randn(2, 80, generator=torch.Generator().manual_seed(0)))
    moved = neutral * torch.tensor([1.3, 0.8]).view(2, 1, 1) + torch.tensor([0.1, -0.2, 0.4])
    shapes = []
    for points in (neutral, moved):
        scale, centre, mean_centre = probes.observable(points)
        shapes.append((points - centre) * scale + mean_centre)
    np.testing.assert_allclose(shapes[0], shapes[1], atol=1e-5)
    inner, mean = shapes[0][:, probes.shape_probes], probes.mean[probes.shape_probes]
    np.testing.assert_allclose(inner.mean(1), mean.mean(0).expand(2, 3), atol=1e-5)
    assert not torch.allclose(shapes[0][0], shapes[0][1], atol=1e-3)  # the shape itself is still there


def test_a_render_turned_round_shows_the_head_turned_round(teacher_map: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    model = face_model()
    probes, other = Probes(model, teacher_map), Probes(model, teacher_map, mirrored=True)
    identity, angle = torch.randn(2, 80, generator=generator), torch.randn(2, 3, generator=generator) * 0.3
    camera = torch.tensor([[8.0, 101.5, 118.0, 109.0]]).expand(2, 4)
    crops = torch.randint(0, 256, (2, 3, 8, 8), generator=generator)
    flip = torch.tensor([True, False])
    turned = mirrored(crops, flip)
    turned_angle, turned_camera = mirror(flip, angle, camera)
    assert torch.equal(turned[0], crops[0].flip(2))
    assert torch.equal(turned[1], crops[1])
    # A probe keeps its place; what stands there in the looking-glass stood on the other side.
    np.testing.assert_allclose(other.mean, probes.mean, atol=1e-5)
    there = other.neutral(identity) * torch.tensor([-1.0, 1.0, 1.0])
    reflected = seen_by_render_camera(there @ rotation(angle), camera) * torch.tensor([-1.0, 1.0])
    seen = seen_by_render_camera(other.neutral(identity) @ rotation(turned_angle), turned_camera)
    np.testing.assert_allclose(seen[0], reflected[0] + torch.tensor([223.0, 0.0]), atol=1e-3)
    plain = probes.neutral(identity)
    straight = seen_by_render_camera(plain @ rotation(angle), camera)
    np.testing.assert_allclose(
        seen_by_render_camera(plain @ rotation(turned_angle), turned_camera)[1], straight[1], atol=1e-4
    )
