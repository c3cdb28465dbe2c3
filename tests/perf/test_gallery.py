"""The measurement of a large gallery, with a small one on each engine: it finds what is nearest, and keeps figures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from perf import gallery, store


@pytest.mark.parametrize("kind", ["random", "clustered"])
def test_people_are_as_alike_as_said(kind: str) -> None:
    rng = np.random.default_rng(0)
    vectors = gallery.people(kind, 4000, rng)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    others = np.sort((vectors[:200] @ vectors.T), axis=1)[:, -2]  # the nearest of the others
    assert (others.mean() > 0.3) if kind == "random" else (0.4 < others.mean() < 0.7)
    again = gallery.photographs(vectors, 50, rng)
    place = gallery.nearest(vectors, again)
    np.testing.assert_allclose((again * vectors[place]).sum(1), gallery.SAME, atol=0.2)


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
def test_a_small_gallery_is_filled_and_searched(
    engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if engine == "postgresql":
        pytest.importorskip("pgserver", reason="there is no PostgreSQL to test with")
    monkeypatch.setattr(store, "FOLDER", tmp_path)
    gallery.main([engine, "--people", "500", "--searches", "40"])
    told = store.read(f"gallery-{engine}-clustered")
    assert told is not None
    assert told["people"] == 500
    assert told["recall"] == 1.0
    assert told["disk_mb"] > 0
    assert "p99_ms" in capsys.readouterr().out
