"""Pruning keeps what matters, and teaching brings the light network nearer to the whole one."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from export.models import get_model
from export.session import Session
from networks.regressor import STAGES, ReconstructionNet, Regressor, inner_of
from tests.export.synthetic import face_model
from tests.training.made import run_arguments
from training import prune
from training.prune import Pupil, bottlenecks, channel_strengths, prune_channels, settle

MODEL = face_model()


def network(seed: int = 0) -> ReconstructionNet:
    torch.manual_seed(seed)
    net = ReconstructionNet(window=2)
    for parameter in net.final_layers.parameters():
        torch.nn.init.normal_(parameter, 0, 0.01)
    settle(net, [pictures(1)])
    return net


def pictures(seed: int, count: int = 4) -> torch.Tensor:
    return torch.rand(count, 3, 64, 64, generator=torch.Generator().manual_seed(seed))


def answer(net: ReconstructionNet, seed: int = 9) -> torch.Tensor:
    with torch.no_grad():
        given: torch.Tensor = net.eval()(pictures(seed))
    return given


class TestPruned:
    def test_keeping_all_changes_nothing(self) -> None:
        net = network()
        torch.testing.assert_close(answer(prune_channels(net, 1.0, [pictures(2)])), answer(net), rtol=1e-4, atol=1e-5)

    def test_widths_are_a_share_in_whole_lanes(self) -> None:
        light = prune_channels(network(), 0.7, [pictures(2)])
        widths = [block.conv1.out_channels for _, block in bottlenecks(light)]
        whole = [planes for planes, blocks, _ in STAGES for _ in range(blocks)]
        assert all(0.7 * all_of <= width < 0.7 * all_of + 16 for width, all_of in zip(widths, whole, strict=True))
        assert not any(width % 16 for width in widths)
        assert inner_of(light.state_dict()) == widths

    def test_channels_that_hand_nothing_on_go_first(self) -> None:
        net = network()
        with torch.no_grad():
            for _, block in bottlenecks(net):  # half of the channels are never read
                block.conv2.weight[:, 1::2] = 0
                block.conv3.weight[:, ::2] = 0
        light = prune_channels(
            net, 0.5, [pictures(9)]
        )  # a channel that is silent on these is as good as one that is not read
        torch.testing.assert_close(answer(light), answer(net), rtol=1e-4, atol=1e-5)
        assert sum(p.numel() for p in light.parameters()) < 0.62 * sum(p.numel() for p in net.parameters())

    def test_the_whole_network_stays_as_it_is(self) -> None:
        net = network()
        before = answer(net)
        prune_channels(net, 0.5, [pictures(2)])
        assert torch.equal(answer(net), before)

    def test_energy_is_of_the_values_and_of_the_weights_that_read_them(self) -> None:
        net = network()
        first = channel_strengths(net, [pictures(2)])["backbone.layer1.0.conv2"]
        with torch.no_grad():
            net.backbone.layer1[0].conv2.weight[:, 3] *= 2  # type: ignore[index, union-attr]
        second = channel_strengths(net, [pictures(2)])["backbone.layer1.0.conv2"]
        torch.testing.assert_close(second[3], 4 * first[3])
        torch.testing.assert_close(second[4:], first[4:])


def total(pupil: Pupil) -> float:
    return sum(term.item() for term in pupil.losses(pictures(4, 8)).values())


def test_teaching_brings_the_answers_nearer() -> None:
    net = network()
    light = prune_channels(net, 0.5, [pictures(2)])
    settle(light, [pictures(3, 8)])
    pupil = Pupil(net, light, MODEL, rate=1e-3)
    before = total(pupil)
    for number in range(12):
        pupil.step(pictures(4, 8), 0.0, number + 60)
    after = total(pupil)
    assert after < 0.8 * before
    assert all(parameter.grad is None for parameter in net.parameters())


def test_a_pruned_file_is_exported_like_any_other(tmp_path: Path) -> None:
    light = prune_channels(network(), 0.5, [pictures(2)])
    save_file(
        {k: v.half() if v.is_floating_point() else v for k, v in light.state_dict().items()},
        tmp_path / "light.safetensors",
        {"resolution": "56"},
    )
    graph = get_model("regressor").clean(get_model("regressor").trace(tmp_path / "light.safetensors", MODEL))
    crop = np.random.default_rng(0).integers(0, 256, (1, 3, 224, 224)).astype(np.uint8)
    context = np.zeros((1, 23), np.float32)
    given = Session(graph)({"crop": crop, "context": context})["coefficients"]
    wanted = Regressor.load(tmp_path / "light.safetensors", MODEL)(torch.from_numpy(crop), torch.from_numpy(context))
    np.testing.assert_allclose(given, wanted[2].detach().numpy(), rtol=1e-3, atol=1e-4)


def test_the_command_writes_a_light_network_and_refuses_one_that_has_learned_nothing(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    portrait_bytes: bytes,
    portrait_jpeg: bytes,
) -> None:
    monkeypatch.setattr(prune, "SETTLING", 8)
    run = run_arguments(tmp_path)
    (tmp_path / "judges").mkdir()
    for name, data in (("one.png", portrait_bytes), ("two.jpg", portrait_jpeg)):
        (tmp_path / "judges" / name).write_bytes(data)
    net = ReconstructionNet(window=2)
    for parameter in net.final_layers.parameters():
        torch.nn.init.normal_(parameter, 0, 0.05)
    save_file(dict(net.state_dict()), tmp_path / "whole.safetensors", {"resolution": "56"})
    code = prune.main([
        str(tmp_path / "whole.safetensors"), str(tmp_path / "light.safetensors"), "--keep", "0.25", "--steps", "2",
        "--face-model", str(run.face_model), "--renders", str(run.renders), "--pictures", str(run.pictures),
        "--labels", str(run.labels), "--judge", str(tmp_path / "judges"), "--faces", "2",
    ])  # fmt: skip
    said = capsys.readouterr().out
    assert code == 1
    assert "refused" in said
    assert re.search(r"2 faces: .*FAILED", said)
    assert (tmp_path / "light.safetensors").stat().st_size < 0.7 * (tmp_path / "whole.safetensors").stat().st_size / 2
