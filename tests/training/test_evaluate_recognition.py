"""Figures of verification: what a perfect, a blind and a known system get, and LFW's list of pairs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from export.errors import ExportError
from training.evaluate_recognition import main, read_index, read_protocol
from training.recognition_metrics import (
    Pairs,
    accepted,
    accuracies,
    balanced,
    best_threshold,
    every_pair,
    roc,
    threshold_at,
)


def pairs_of(same: list[float], other: list[float]) -> Pairs:
    similarity = np.array([*same, *other])
    return Pairs(similarity, np.arange(len(similarity)) < len(same), np.arange(len(similarity)) % 10)


def drawn(distance: float, count: int = 4000) -> Pairs:
    rng = np.random.default_rng(0)
    return pairs_of(list(rng.normal(distance, 0.1, count)), list(rng.normal(0, 0.1, count)))


def test_a_perfect_system_is_always_right() -> None:
    pairs = drawn(2.0)
    assert accuracies(pairs).tolist() == [1.0] * 10
    assert accepted(pairs, threshold_at(pairs, 1e-3)) == 1.0


def test_a_blind_system_is_right_by_half() -> None:
    assert accuracies(drawn(0.0)).mean() == pytest.approx(0.5, abs=0.03)


def test_two_normal_distributions_give_what_theory_says() -> None:
    """Means 0.3 apart, deviations 0.1: the best threshold is in the middle, right by Phi(1.5) = 0.9332."""
    pairs = drawn(0.3, 40_000)
    assert best_threshold(pairs) == pytest.approx(0.15, abs=0.02)
    assert accuracies(pairs).mean() == pytest.approx(0.9332, abs=0.005)
    # The 99th percentile of the unequal pairs is 0.2326; of the equal ones Phi((0.3 - 0.2326) / 0.1) = 0.75 lie above.
    assert threshold_at(pairs, 1e-2) == pytest.approx(0.2326, abs=0.005)
    assert accepted(pairs, threshold_at(pairs, 1e-2)) == pytest.approx(0.75, abs=0.01)


def test_a_threshold_accepts_no_more_than_its_rate() -> None:
    pairs = pairs_of([0.9], [0.5, 0.5, 0.4, 0.3])
    for rate, allowed in ((0.0, 0), (0.25, 0), (0.5, 2), (0.75, 3)):
        assert int((pairs.similarity[~pairs.same] >= threshold_at(pairs, rate)).sum()) == allowed


def test_the_roc_rises_from_nothing_to_all() -> None:
    false, true = roc(drawn(0.3))
    assert (np.diff(false) >= 0).all()
    assert (np.diff(true) >= 0).all()
    assert (false[-1], true[-1]) == (1.0, 1.0)


def test_every_photograph_is_compared_with_every_other_and_a_missing_face_is_never_accepted() -> None:
    vectors = np.eye(4, dtype=np.float32)[[0, 0, 1, 1]]
    vectors[3] = 0
    pairs, members = every_pair(vectors, ["a", "a", "b", "b"])
    assert len(pairs.same) == 6
    assert members[pairs.same].tolist() == [[0, 1], [2, 3]]
    assert pairs.similarity[pairs.same].tolist() == [1.0, -1.0]
    assert (pairs.similarity[~pairs.same] <= 0).all()
    assert balanced(pairs).same.sum() == 2


def test_lfw_s_list_is_read_in_its_folds(tmp_path: Path) -> None:
    protocol = tmp_path / "pairs.txt"
    protocol.write_text("2\t2\nAda\t1\t2\nBen\t1\t3\nAda\t1\tBen\t2\nAda\t4\tZoe\t1\nZoe\t1\t2\nCy\t1\t2\n")
    rows = list(read_protocol(Path("lfw"), protocol))
    assert rows[0] == (Path("lfw/Ada/Ada_0001.jpg"), Path("lfw/Ada/Ada_0002.jpg"), True, 0)
    assert rows[2] == (Path("lfw/Ada/Ada_0001.jpg"), Path("lfw/Ben/Ben_0002.jpg"), False, 0)
    assert [row[3] for row in rows] == [0, 0, 0, 0, 1, 1]
    protocol.write_text("no list of pairs\nat all\n")
    with pytest.raises(ExportError):
        list(read_protocol(Path("lfw"), protocol))


def test_a_folder_without_an_index_is_an_error_in_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ExportError, match=r"index\.csv"):
        read_index(tmp_path)
    assert main(["--pairs", str(tmp_path), "--out", str(tmp_path), "--version", "999"]) == 2
    assert "make export" in capsys.readouterr().err
