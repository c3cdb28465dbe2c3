"""Faces are made worse as said, measures tell worse from better, training goes on from its checkpoint."""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from networks.enhance import Enhance
from training.enhance import compare, gradient_similarity, loss_of, quality, report, train
from training.enhance_data import KINDS, PATCH, U8, Faces, Harm

CHANCE = np.random.default_rng(0)


def picture() -> U8:
    """Edges, ramps and grain, (160, 144, 3)."""
    rows, columns = np.mgrid[:160, :144]
    plain = 90 + 60 * np.sin(rows / 9) + 40 * (columns > 70)
    return np.repeat(plain[..., None], 3, -1).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "clean"])
def test_every_kind_of_harm_makes_a_picture_worse_and_keeps_its_size(kind: str) -> None:
    truth = picture()
    worse = KINDS[kind].done(truth, np.random.default_rng(1))
    assert worse.shape == truth.shape
    psnr, same, edges = quality(worse, truth)
    assert psnr < 45
    assert same < 1
    assert edges > 0


def test_no_harm_is_none() -> None:
    np.testing.assert_array_equal(Harm().done(picture(), CHANCE), picture())
    assert quality(picture(), picture())[1:] == (1.0, 0.0)


def test_more_blur_is_less_alike() -> None:
    grey = picture()[..., 0].astype(np.float32)
    little, much = (np.asarray(cv2.GaussianBlur(grey, (0, 0), s), np.float32) for s in (1.0, 4.0))
    assert 0 < gradient_similarity(grey, little) < gradient_similarity(grey, much)


def test_the_loss_is_least_for_the_truth() -> None:
    truth = torch.rand(1, 3, 16, 16)
    assert loss_of(truth, truth) < loss_of(truth + 0.1, truth) - 5 < loss_of(truth.flip(3), truth) - 5


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write thirty pictures with an index."""
    with (tmp_path / "index.csv").open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["file"])
        for number in range(30):
            cv2.imwrite(str(tmp_path / f"{number}.png"), np.roll(picture(), number, 0))
            writer.writerow([f"{number}.png"])
    return tmp_path


def test_patches_come_in_pairs(folder: Path) -> None:
    faces = Faces(folder)
    assert (len(faces.held_out), len(faces.pictures)) == (2, 28)
    pairs = [faces.drawn(np.random.default_rng(k)) for k in range(12)]
    assert {array.shape for pair in pairs for array in pair} == {(PATCH, PATCH, 3)}
    assert any((given != truth).any() for given, truth in pairs)


def test_training_goes_on_from_its_checkpoint(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = argparse.Namespace(
        pictures=folder, checkpoint=folder / "e.pt", weights=folder / "e.safetensors", steps=1, minutes=1e9, rate=1e-3,
        seed=0,
    )  # fmt: skip
    train(options)
    options.steps = 2
    train(options)
    assert "resumed at step 1" in capsys.readouterr().out
    assert "dB" in report(compare(Enhance.load(options.weights), [picture()]))
