"""Training of embedders: the margins' formulas, sampling, schedule, and that a little training learns something."""

from __future__ import annotations

import argparse
import math
from collections import Counter
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from networks.embedder.mobilefacenet import DIMENSIONS, MobileFaceNet
from training.recognition import augmented, class_aware, distil, embedded, people, rate_at
from training.recognition_losses import MarginClassifier, distillation


def test_mobilefacenet_is_as_small_as_said() -> None:
    network = MobileFaceNet().eval()
    assert sum(parameter.numel() for parameter in network.parameters()) < 1_200_000
    assert network(torch.zeros(2, 3, 112, 112)).shape == (2, DIMENSIONS)


@pytest.mark.parametrize("angle", [0.1, 0.9, 1.7, 2.5])
@pytest.mark.parametrize("kind", ["arcface", "cosface"])
def test_a_margin_is_added_to_the_angle_or_taken_from_the_cosine(kind: str, angle: float) -> None:
    classifier = MarginClassifier(2, 2, kind, scale=10.0)  # type: ignore[arg-type]
    with torch.no_grad():
        classifier.directions.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    embedding = 3 * torch.tensor([[math.cos(angle), math.sin(angle)]])
    right, wrong = classifier.logits(embedding, torch.tensor([0]))[0].tolist()
    expected = math.cos(angle + 0.5) if kind == "arcface" else math.cos(angle) - 0.35
    assert right == pytest.approx(10 * expected, abs=1e-4)
    assert wrong == pytest.approx(10 * math.sin(angle), abs=1e-4)


def test_arcface_falls_with_the_angle_all_the_way() -> None:
    classifier = MarginClassifier(2, 2, "arcface")
    with torch.no_grad():
        classifier.directions.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    angles = torch.linspace(0.01, math.pi - 0.01, 200)
    logits = classifier.logits(torch.stack([angles.cos(), angles.sin()], 1), torch.zeros(200, dtype=torch.int64))
    assert (logits[1:, 0] < logits[:-1, 0]).all()


def test_distillation_is_nothing_for_the_teacher_itself() -> None:
    teacher = torch.randn(8, 128)
    assert float(distillation(3 * teacher, teacher)) == pytest.approx(0, abs=1e-5)
    assert float(distillation(torch.randn(8, 128), teacher)) > 0.5


def test_each_person_is_drawn_as_often_whoever_has_more_pictures() -> None:
    person = np.repeat(np.arange(4), [1, 2, 50, 400])
    drawn = Counter(
        int(person[place])
        for batch in islice(class_aware(person, 3, np.random.default_rng(0)), 2000)
        for place in batch
    )
    assert min(drawn.values()) > 0.9 * max(drawn.values())


def test_the_rate_rises_and_falls_to_nothing() -> None:
    rates = [rate_at(step, 1000, 0.1) for step in range(1001)]
    assert max(rates) == pytest.approx(0.1)
    assert int(np.argmax(rates)) in range(45, 55)
    assert rates[0] < 0.01
    assert rates[-1] == pytest.approx(0, abs=1e-9)


def test_augmented_crops_stay_pictures() -> None:
    crops = np.random.default_rng(0).integers(0, 256, (6, 3, 112, 112)).astype(np.uint8)
    x = augmented(crops, np.random.default_rng(1))
    assert x.shape == (6, 3, 112, 112)
    assert float(x.min()) >= 0
    assert float(x.max()) <= 255


class Small(nn.Module):
    """A linear embedding of a reduced picture."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(3 * 7 * 7, DIMENSIONS)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        x: torch.Tensor = self.linear(nn.functional.avg_pool2d(pixels / 128 - 1, 16).flatten(1))
        return x


def noisy_patterns() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Four "people", each a pattern under noise, six pictures each."""
    rng = np.random.default_rng(0)
    patterns = rng.integers(0, 256, (4, 3, 7, 7)).repeat(16, 2).repeat(16, 3)
    person = np.repeat(np.arange(4), 6)
    return np.clip(patterns[person] + rng.normal(0, 20, (24, 3, 112, 112)), 0, 255).astype(np.uint8), person


def options(**given: Any) -> argparse.Namespace:
    usual = {"seed": 0, "batch": 16, "steps": 150, "minutes": math.inf, "rate": 3e-3, "every": 10}
    return argparse.Namespace(**usual | given)


@pytest.mark.parametrize("loss", ["arcface", "cosface"])
def test_training_brings_pictures_of_one_person_together(loss: str) -> None:
    crops, person = noisy_patterns()
    network = Small()

    def gap() -> float:
        vectors = embedded(network, crops)
        similarity, same = vectors @ vectors.T, torch.from_numpy(person[:, None] == person[None])
        return float(similarity[same].mean() - similarity[~same].mean())

    before = gap()
    curve = people(network, crops, person, options(loss=loss))
    assert len(curve) == 15
    assert curve[-1] < curve[0]
    assert gap() > before + 0.2


def test_a_student_comes_nearer_to_its_teacher() -> None:
    crops, _ = noisy_patterns()
    teacher, student = Small(), Small()
    with torch.no_grad():
        teacher.linear.weight.mul_(torch.randn_like(teacher.linear.weight))
    curve = distil(student, teacher, np.repeat(crops, 2, axis=0), options())
    assert curve[-1] > curve[0] + 0.1
    assert distil(student, teacher, crops, options(minutes=0)) == []
