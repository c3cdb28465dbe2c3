"""Suppression as tensor operations against the greedy loop."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from export.session import Session
from export.stages.trace import onnx_from_module
from networks.detector.reference import greedy_suppression
from networks.detector.suppression import overlaps, suppress, suppress_union

Floats = NDArray[np.float32]


def _kept(boxes: Floats, valid: int, threshold: float, mode: str, extra: float) -> list[int]:
    mask = torch.zeros(len(boxes))
    mask[:valid] = 1.0
    keep = suppress(overlaps(torch.from_numpy(boxes), threshold, mode, extra), mask)  # type: ignore[arg-type]
    return [int(i) for i in torch.nonzero(keep).flatten()]


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 100),
    crowding=st.floats(5, 200),
    threshold=st.sampled_from([0.3, 0.5, 0.7]),
    mode=st.sampled_from(["union", "smaller"]),
    extra=st.sampled_from([0.0, 1.0]),
)
def test_tensor_suppression_keeps_exactly_what_the_greedy_loop_keeps(
    seed: int, count: int, crowding: float, threshold: float, mode: str, extra: float
) -> None:
    chance = np.random.default_rng(seed)
    low = chance.uniform(0, crowding, (count, 2))
    boxes = np.concatenate([low, low + chance.uniform(1, 60, (count, 2))], 1).astype(np.float32)
    scores = np.sort(chance.random(count).astype(np.float32))[::-1].copy()

    greedy = greedy_suppression(boxes, scores, threshold, mode, extra)  # type: ignore[arg-type]

    assert _kept(boxes, count, threshold, mode, extra) == sorted(greedy)


def test_the_longest_possible_chain_of_suppressions_is_resolved() -> None:
    # Each box overlaps only its neighbours: 1 kills 2, which frees 3, and so on through all 100.
    left = np.arange(100, dtype=np.float32) * 4
    boxes = np.stack([left, np.zeros(100, np.float32), left + 10, np.full(100, 10, np.float32)], 1)
    assert _kept(boxes, 100, 0.3, "union", 0.0) == list(range(0, 100, 2))


def test_empty_slots_are_never_kept_and_suppress_nothing() -> None:
    boxes = np.tile(np.array([[10, 10, 20, 20]], np.float32), (5, 1))
    assert _kept(boxes, 1, 0.5, "union", 0.0) == [0]
    assert _kept(np.zeros((5, 4), np.float32), 0, 0.5, "union", 0.0) == []


@pytest.mark.parametrize("mode", ["union", "smaller"])
def test_each_picture_of_a_batch_is_suppressed_on_its_own(mode: str) -> None:
    chance = np.random.default_rng(1)
    low = chance.uniform(0, 40, (3, 20, 2))
    boxes = torch.from_numpy(np.concatenate([low, low + 20], 2).astype(np.float32))
    together = suppress(overlaps(boxes, 0.5, mode), torch.ones(3, 20))  # type: ignore[arg-type]
    for row, alone in zip(together, boxes, strict=True):
        assert torch.equal(row, suppress(overlaps(alone, 0.5, mode), torch.ones(20)))  # type: ignore[arg-type]


class _Union(torch.nn.Module):
    def forward(self, boxes: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return suppress_union(boxes, scores, 0.5)


def test_the_exported_operator_keeps_exactly_what_the_greedy_loop_keeps() -> None:
    chance = np.random.default_rng(2)
    example = (torch.rand(2, 90, 4), torch.rand(2, 90))
    session = Session(onnx_from_module(_Union(), example, ("boxes", "scores"), ("kept",)))
    for crowding in (5, 40, 200):
        low = chance.uniform(0, crowding, (3, 90, 2))
        boxes = np.concatenate([low, low + chance.uniform(1, 60, (3, 90, 2))], 2).astype(np.float32)
        # Equal scores, as saturated sigmoids give them, and empty slots.
        scores = -np.sort(-np.round(chance.random((3, 90)), 1), axis=1).astype(np.float32)
        scores[1, 50:] = 0
        scores[2] = 0
        kept = session({"boxes": boxes, "scores": scores})["kept"]
        for picture in range(3):
            filled = int((scores[picture] > 0).sum())
            greedy = greedy_suppression(boxes[picture, :filled], scores[picture, :filled], 0.5)
            expected = np.zeros(90, np.float32)
            expected[greedy] = scores[picture][greedy]
            np.testing.assert_array_equal(kept[picture], expected)
        np.testing.assert_array_equal(
            suppress_union(torch.from_numpy(boxes), torch.from_numpy(scores), 0.5).numpy(), kept
        )
