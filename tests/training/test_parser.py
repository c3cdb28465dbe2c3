"""Covers hide what they say they hide, labels add up, and the parser's training goes on from its checkpoint."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pytest
import torch

from networks.parser import PARTS, Parser, ParserNet
from training.parser import (
    BATCH,
    RENDERED,
    Pictures,
    batch_of,
    loss_of,
    monitor,
    parts_of,
    photographed,
    seen_by,
    train,
)
from training.parser_covers import KINDS, cover
from training.parser_labels import HAIR, PERSON, SKIN, UNKNOWN
from training.parser_renders import labels_of
from training.render import SIZE, Surface

GREY = np.full((224, 224, 3), 120, np.uint8)


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_cover_changes_the_picture_where_its_mask_is_and_nowhere_else(kind: str) -> None:
    chance = np.random.default_rng(3)
    covers = [cover(GREY, GREY[::-1], chance, kind) for _ in range(6)]
    assert all(drawn.kind == kind for drawn in covers)
    for drawn in covers:
        np.testing.assert_array_equal(drawn.picture[drawn.mask == 0], 120)
    assert any((drawn.picture[drawn.mask > 0.9] != 120).any() for drawn in covers)
    assert any((drawn.mask > 0.9).mean() > 0.002 for drawn in covers)


def test_what_the_selfie_network_calls_background_is_other() -> None:
    answers = np.zeros((2, 2, 3), np.float32)
    answers[0, 0, [SKIN, PERSON]] = 1
    answers[0, 1, [HAIR, PERSON]] = 1
    answers[1, 0, SKIN] = 1  # a wooden door behind the person
    parts = parts_of(answers)
    assert parts.argmax(-1).tolist() == [[0, 1], [2, 2]]
    np.testing.assert_allclose(parts.sum(-1), 1)


def test_a_photographed_picture_keeps_its_size() -> None:
    chance = np.random.default_rng(0)
    assert {photographed(GREY[:128, :128], chance).shape for _ in range(20)} == {(128, 128, 3)}


def test_what_nobody_knows_costs_nothing() -> None:
    target = torch.zeros(1, len(PARTS), 8, 8)
    target[:, 0, :4] = 1
    wrong_below = torch.zeros(1, len(PARTS), 8, 8)
    wrong_below[:, 0, :4], wrong_below[:, 1, 4:] = 20, 20
    right_below = wrong_below.flip(2) + wrong_below
    assert float(loss_of(wrong_below, target)) == pytest.approx(float(loss_of(20 * target, target)), abs=1e-4)
    assert float(loss_of(right_below, target)) > 0.3


def test_the_loss_is_least_for_the_target() -> None:
    target = torch.zeros(1, len(PARTS), 8, 8)
    target[:, 0, :4], target[:, 2, 4:] = 1, 1
    sure = 20 * target - 10
    assert float(loss_of(sure, target)) < 0.2 < float(loss_of(-sure, target))


@pytest.fixture
def learned_from(tmp_path: Path) -> argparse.Namespace:
    """Write fifty crops whose upper half is hair and whose lower half is skin, and name the files of a training."""
    chance = np.random.default_rng(0)
    crops = chance.integers(0, 60, (50, 64, 64, 3)).astype(np.uint8)
    crops[:, 32:] += 150
    labels = np.zeros((50, 4, 256, 256), np.uint8)
    labels[:, HAIR, :128], labels[:, SKIN, 128:], labels[:, PERSON] = 255, 255, 255
    labels[7] = 0  # nobody is seen there
    np.save(tmp_path / "crops.npy", crops)
    np.save(tmp_path / "labels.npy", labels)
    return argparse.Namespace(
        crops=tmp_path / "crops.npy", labels=tmp_path / "labels.npy", renders=None, start=None,
        checkpoint=tmp_path / "parser.pt",
        weights=tmp_path / "parser.safetensors", side=32, steps=2, minutes=1e9, rate=1e-3, seed=0,
    )  # fmt: skip


def test_a_crop_in_which_nobody_is_seen_is_left_out(learned_from: argparse.Namespace) -> None:
    pictures = Pictures(learned_from.crops, learned_from.labels)
    assert 7 not in pictures.sources
    images, targets = batch_of([pictures.plain(0, 32)], torch.device("cpu"))
    assert images.shape == targets.shape == (1, 3, 32, 32)
    assert float(targets[0, 1, :14].min()) == 1


def test_renders_are_a_third_of_the_samples_and_held_out_with_their_photograph(
    learned_from: argparse.Namespace, tmp_path: Path
) -> None:
    heads = tmp_path / "heads.npy"
    np.save(heads, np.zeros((4, 256, 256, 3), np.uint8))
    labels = np.zeros((4, 4, 256, 256), np.uint8)
    labels[:, UNKNOWN, :128] = 255
    np.save(heads.with_suffix(".labels.npy"), labels)
    np.save(heads.with_suffix(".sources.npy"), np.array([0, 1, 2, 24]))
    pictures = Pictures(learned_from.crops, learned_from.labels, heads)
    assert pictures.held_out.tolist() == [0, 23, 47, 49, 52]  # row 7 of the crops shows nobody
    drawn = pictures.chosen(4000, np.random.default_rng(0))
    assert (drawn >= pictures.photographs).mean() == pytest.approx(RENDERED, abs=0.03)
    assert not set(drawn.tolist()) & set(pictures.held_out.tolist())
    _, target = pictures.plain(50, 32)
    assert not target[:, :15].any()
    assert target[2, 17:].all()
    said = monitor(ParserNet(), pictures, 32, torch.device("cpu"))
    assert all(word in said for word in ("photographs skin", "renders skin", "stick"))


def test_training_goes_on_from_its_checkpoint(
    learned_from: argparse.Namespace, capsys: pytest.CaptureFixture[str]
) -> None:
    train(learned_from)
    Parser.load(learned_from.weights)
    learned_from.steps = 3
    train(learned_from)
    assert "resumed at step 2" in capsys.readouterr().out
    assert seen_by(learned_from.weights) == 3 * BATCH
    learned_from.start, learned_from.checkpoint = learned_from.weights, learned_from.weights.with_name("next.pt")
    learned_from.weights, learned_from.steps = learned_from.weights.with_name("next.safetensors"), 1
    train(learned_from)
    assert seen_by(learned_from.weights) == 4 * BATCH


def test_labels_go_the_way_of_the_picture_on_a_turned_head() -> None:
    answers = np.zeros((4, 256, 256), np.uint8)
    answers[PERSON], answers[SKIN, 128:], answers[HAIR, :128] = 255, 255, 255
    answers[PERSON, :, :40] = 0
    answers[UNKNOWN, :30] = 255
    rows, columns = np.mgrid[:SIZE, :SIZE].astype(np.float32)
    # The photograph is twice the crop and upside down on the head.
    where = np.stack([(columns - 32) * 2 + 10, (223 - (rows - 32)) * 2 + 20], -1)
    hit = columns < 200
    surface = Surface(where, np.zeros((SIZE, SIZE, 3)), hit, np.where(rows < 250, 1, 0).astype(np.float32), {})
    labels = labels_of(surface, answers, np.array([2, 2, 10, 20], np.float32))
    assert labels.shape == (4, 256, 256)
    at = {
        "top": (60, 100),
        "bottom": (180, 100),
        "beside": (60, 230),
        "no person": (60, 10),
        "unseen": (252, 100),
        "unknown": (240, 100),
    }
    found = {name: labels[:, row, column].tolist() for name, (row, column) in at.items()}
    assert found["top"] == [255, 0, 255, 0]
    assert found["bottom"] == [0, 255, 255, 0]
    assert found["beside"] == [0, 0, 0, 0]
    assert found["unknown"][UNKNOWN] == 255
    assert found["no person"][UNKNOWN] == found["unseen"][UNKNOWN] == 255
