"""What is learned from photographs from the front and from the sides, and the file that says what it is for."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from networks import identity_correction
from networks.identity_correction import IDENTITY
from networks.person_correction import PersonCorrection
from training.identity_correction import Drawn
from training.person_correction import TOGETHER, inputs, write_correction

WEIGHTS = Path(__file__).resolve().parents[2] / "weights"


def test_inputs_are_frontal_and_turned_means_and_the_joined_identity() -> None:
    views = np.broadcast_to(np.array([1.0, 2.0, 4.0])[None, :, None], (5, 3, IDENTITY))
    embeddings = np.broadcast_to(np.array([10.0, 20.0, 40.0], np.float32)[None, :, None], (5, 3, 2))
    values, joined = inputs(views, embeddings)
    assert values.shape == (5 * len(TOGETHER), 2 * (IDENTITY + 2))
    rows = values[::5, [0, IDENTITY, 2 * IDENTITY, 2 * IDENTITY + 2]]
    np.testing.assert_allclose(rows, [[1, 2, 10, 20], [1, 4, 10, 40], [1, 3, 10, 30]])
    np.testing.assert_allclose(joined[::5, 0], [(0.24 + 0.76) / 0.62, (0.24 + 1.52) / 0.62, 0.24 + 0.76 + 1.52])


def test_what_turned_photographs_alone_tell_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(2)
    regressor = tmp_path / "regressor.safetensors"
    shutil.copy(WEIGHTS / "face_model.npz", tmp_path)
    regressor.write_bytes(b"some weights")
    (tmp_path / identity_correction.FILE).write_bytes(b"a correction")
    count, depth = 900, 7
    identity = rng.normal(0, 1, (count, IDENTITY)).astype(np.float32)
    noise = rng.normal(0, 0.05, (count, 3, IDENTITY))
    codes = np.asarray(identity[:, None] + noise, np.float32)
    codes[:, 0, depth] = rng.normal(0, 1, count)  # the frontal picture does not show it
    embeddings = rng.normal(0, 1, (count, 3, 4)).astype(np.float32)
    files = np.array([f"{k // 2}.jpg" for k in range(count)])
    drawn = Drawn(
        identity, np.zeros((count, 3, 3, 1, 1), np.uint8), np.zeros((count, 3, 2), np.float32), embeddings, files
    )
    write_correction(regressor, drawn, codes, 77)
    found = PersonCorrection.beside(regressor)
    assert found is not None
    assert found.embedder == 77
    values, joined = inputs(codes.astype(np.float64), embeddings)
    wanted = np.tile(identity, (len(TOGETHER), 1))
    before = np.abs(wanted - joined)[:, depth].mean()
    after = np.abs(wanted - joined - values @ found.matrix - found.offset)[:, depth].mean()
    assert after < 0.5 * before
    assert "views (0, 1, 2)" in capsys.readouterr().out
