"""Training of the texture network: it goes on where it was interrupted and says what it has seen."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from tests.conftest import ROOT
from training.texture import train

WEIGHTS = ROOT / "weights"


@pytest.fixture
def arguments(tmp_path: Path, portrait_jpeg: bytes) -> argparse.Namespace:
    """One picture, one step."""
    (tmp_path / "portrait.jpg").write_bytes(portrait_jpeg)
    (tmp_path / "index.csv").write_text("file\nportrait.jpg\n")
    return argparse.Namespace(
        face_model=WEIGHTS / "face_model.npz", regressor=WEIGHTS / "regressor.safetensors", pictures=tmp_path,
        pictures_count=1400, cache=tmp_path / "textures", checkpoint=tmp_path / "texture.pt",
        weights=tmp_path / "texture.safetensors", steps=1, minutes=1e9, rate=1e-3, seed=0,
    )  # fmt: skip


def test_training_goes_on_where_it_was_interrupted(
    arguments: argparse.Namespace, capfd: pytest.CaptureFixture[str]
) -> None:
    train(arguments)
    assert "resumed" not in capfd.readouterr().out
    assert len(np.load(arguments.cache.with_suffix(".seen.npy"), mmap_mode="r")) == 1  # one picture, one texture
    first = torch.load(arguments.checkpoint, weights_only=True)
    arguments.steps = 2
    train(arguments)
    assert "resumed at step 1" in capfd.readouterr().out
    second = torch.load(arguments.checkpoint, weights_only=True)
    assert (first["step"], second["step"]) == (1, 2)
    moments = [state["optimiser"]["state"][0]["exp_avg"] for state in (first, second)]
    assert not torch.equal(*moments)
    train(arguments)  # all steps are done: the weights stay
    third = torch.load(arguments.checkpoint, weights_only=True)
    assert torch.equal(third["unet"]["head.weight"], second["unet"]["head.weight"])
    with safe_open(arguments.weights, "pt") as file:
        assert file.metadata()["steps"] == "2"
        assert "SFHQ" in file.metadata()["sources"]
