"""The correction that is folded into the heads is the one that was fitted, and it brings answers nearer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from export.regressor import ReconstructionNet
from tests.export.synthetic import face_model
from tests.training.made import run_arguments
from training import refit
from training.prune import load
from training.refit import answers, correction, fold, wanted
from training.regressor import Probes, Renders

MODEL = face_model()


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    net = ReconstructionNet(window=4)
    for parameter in net.final_layers.parameters():
        torch.nn.init.normal_(parameter, 0, 0.01)
    path = tmp_path / "regressor.safetensors"
    save_file(dict(net.state_dict()), path, {"resolution": "112", "licence": "Apache-2.0"})
    return path


def test_the_correction_finds_a_linear_relation() -> None:
    rng = np.random.default_rng(0)
    given = rng.normal(0, rng.uniform(0.1, 2, 144), (4000, 144)) + 0.3
    matrix, constant = rng.normal(0, 0.1, (144, 144)), rng.normal(0, 1, 144)
    found, rest = correction(given, given @ matrix + constant, ridge=1e-9)
    np.testing.assert_allclose(found, matrix, atol=1e-6)
    np.testing.assert_allclose(rest, constant, atol=1e-6)


def test_nothing_missing_corrects_nothing() -> None:
    matrix, constant = correction(np.random.default_rng(0).normal(0, 1, (500, 144)), np.zeros((500, 144)))
    assert not matrix.any()
    assert not constant.any()


def test_folded_heads_answer_what_was_answered_and_the_correction(weights: Path) -> None:
    net = load(weights)
    state = dict(net.state_dict())
    rng = np.random.default_rng(1)
    matrix, constant = rng.normal(0, 0.1, (144, 144)), rng.normal(0, 0.1, 144)
    picture = torch.rand(2, 3, 112, 112)
    with torch.no_grad():
        before = net(picture).double().numpy()
        fold(state, matrix, constant)
        net.load_state_dict(state)
        after = net(picture).double().numpy()
    np.testing.assert_allclose(after[:, :144], before[:, :144] @ (np.eye(144) + matrix) + constant, atol=1e-4)
    np.testing.assert_array_equal(after[:, 144:], before[:, 144:])


def test_what_is_wanted_of_a_head_of_usual_size_is_itself(tmp_path: Path) -> None:
    probes = Probes(MODEL, run_arguments(tmp_path).teacher_map)
    found = wanted(probes, {"identity": torch.zeros(2, 80), "expression": torch.rand(2, 64)})
    np.testing.assert_allclose(found[:, :80], 0, atol=1e-4)
    scale = float(probes.observable(probes.neutral(torch.zeros(1, 80)))[0])
    assert scale == pytest.approx(1, abs=1e-5)


def test_the_command_brings_answers_nearer_and_keeps_the_file_s_notes(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_arguments(tmp_path)
    renders = Renders(run.renders)
    probes = Probes(MODEL, run.teacher_map)
    crops, labels = renders.sample(np.random.default_rng(3), 24)

    def away() -> float:
        return float(np.abs(wanted(probes, labels) - answers(load(weights), crops, 112)).mean())

    before = away()
    refit.main([
        str(weights), "--renders", str(run.renders), "--face-model", str(run.face_model), "--teacher-map",
        str(run.teacher_map), "--count", "64",
    ])  # fmt: skip
    assert away() < 0.9 * before
    assert "identity: " in capsys.readouterr().out
    with safe_open(weights, "pt") as file:
        assert file.metadata() == {"resolution": "112", "licence": "Apache-2.0", "refitted": "64"}
