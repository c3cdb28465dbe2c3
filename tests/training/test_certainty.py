"""A network learns to say how large its errors are: of those it cannot foresee the usual size, of others their own."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from networks.certainty import FEATURES, Certainty
from training.certainty import angle_between, judge, loss_of, train


def test_the_likelihood_is_greatest_for_the_root_mean_square() -> None:
    errors = torch.tensor([[1.0], [2.0], [2.0], [3.0]])
    best = errors.square().mean().sqrt().log()
    losses = [float(loss_of(torch.full((4, 1), float(best) + shift), errors)) for shift in (-0.1, 0.0, 0.1)]
    assert losses[1] == min(losses)


def test_errors_that_nobody_knows_teach_nothing() -> None:
    errors = torch.tensor([[1.0, torch.nan]])
    deviation = torch.zeros(1, 2, requires_grad=True)
    loss_of(deviation, errors).backward()
    assert deviation.grad is not None
    assert deviation.grad[0, 1] == 0


def test_the_angle_between_rotations() -> None:
    turn = torch.tensor([[[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]])
    assert float(angle_between(torch.eye(3)[None], turn)) == pytest.approx(90, abs=0.1)


def test_an_error_that_a_feature_tells_is_announced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chance = np.random.default_rng(0)
    features = chance.normal(0, 1, (1200, FEATURES)).astype(np.float32)
    features[:, 0] = chance.choice([0, 4], 1200)
    size = np.where(features[:, :1] > 2, 3.0, 1.0)
    errors = np.abs(chance.normal(0, 1, (1200, 4))) * np.concatenate([size, np.ones((1200, 3))], 1)
    errors[::7, 2] = np.nan
    np.savez(tmp_path / "seen.npz", features=features, errors=errors.astype(np.float32))
    save_file({"any": torch.zeros(1)}, tmp_path / "regressor.safetensors", {"resolution": "112"})
    options = argparse.Namespace(features=tmp_path / "seen.npz", regressor=tmp_path / "regressor.safetensors")
    train(argparse.Namespace(**vars(options), epochs=40, seed=0))
    net = Certainty.beside(options.regressor)
    assert net is not None
    with torch.no_grad():
        said = (1 / net(torch.from_numpy(features))).numpy()
    easy, hard = (said[features[:, 0] == value, 0].mean() for value in (0, 4))
    assert hard > 1.6 * easy
    assert said[:, 1].mean() == pytest.approx(1, abs=0.15)
    judge(options)
    assert "identity: n 1200" in capsys.readouterr().out
