"""What is learned for the identity's correction: the ridge finds a linear relation, the file says what it is for."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from networks.embedder.dlib_resnet import FEATURES, DlibResNet
from networks.head_model import load_face_model
from networks.identity_correction import IDENTITY, IdentityCorrection
from training.identity_correction import PARTS, Drawn, joined, ridge, write_correction

WEIGHTS = Path(__file__).resolve().parents[2] / "weights"


def test_a_linear_relation_is_found_in_spite_of_a_bias_and_noise() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(2, [1, 5, 0.1], (4000, 3))
    relation = np.array([[0.5, 0], [0, -0.2], [3, 1]])
    wanted = values @ relation + [1, 2] + rng.normal(0, 0.1, (4000, 2))
    middle, matrix, offset = ridge(values, wanted, 1e-3)
    np.testing.assert_allclose(matrix, relation, atol=0.06)
    np.testing.assert_allclose((values - middle) @ matrix + offset, wanted, atol=0.6)
    shrunk = ridge(values, wanted, 1e3)[1]
    assert np.abs(shrunk).max() < 0.01


def test_views_are_joined_one_by_one_in_pairs_and_all_together() -> None:
    views = np.broadcast_to(np.array([1.0, 2.0, 4.0])[None, :, None], (5, 3, 80)).astype(np.float32)
    means = joined(views)
    assert len(means) == len(PARTS[1]) == 7
    assert [mean[0, 0] for mean in means[:3]] == [1, 2, 4]
    assert means[-1][0, 0] == pytest.approx(0.24 + 2 * 0.38 + 4 * 0.38)


def test_what_is_fitted_is_read_by_the_regressor_and_brings_the_identity_nearer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(2)
    shutil.copy(WEIGHTS / "face_model.npz", tmp_path)
    regressor, embedder = tmp_path / "regressor.safetensors", tmp_path / "network.dat"
    regressor.write_bytes(b"some weights")
    embedder.write_bytes(b"an embedder")
    for module in ("networks", "training"):
        monkeypatch.setattr(f"{module}.identity_correction.default_weights", lambda: embedder)
    monkeypatch.setattr(DlibResNet, "load", lambda path: DlibResNet())
    identity = rng.normal(0, 1, (300, IDENTITY)).astype(np.float32)
    features = rng.normal(0, 1, (300, 3, FEATURES)).astype(np.float32)
    features[..., :IDENTITY] += identity[:, None]  # the embedder sees the person, the regressor half of that
    codes = 0.5 * identity[:, None] + rng.normal(0, 0.1, (300, 3, IDENTITY)).astype(np.float32) + 0.2
    files = np.array([f"{k // 2}.jpg" for k in range(300)])
    seen = np.zeros((300, 3, 3, 1, 1), np.uint8)
    embeddings = np.zeros((300, 3, 1), np.float32)
    drawn = Drawn(identity, seen, features, embeddings, files)
    np.savez(tmp_path / "drawn.npz", **drawn._asdict())
    write_correction(regressor, Drawn.read([tmp_path / "drawn.npz"]), codes)
    assert capsys.readouterr().out.startswith("ridge 0.05: ")
    found = IdentityCorrection.beside(regressor, load_face_model(tmp_path / "face_model.npz").fingerprint)
    assert found is not None
    values = np.concatenate([codes[:, 0], features[:, 0]], 1)
    corrected = codes[:, 0] + values @ found.matrix.numpy() + found.offset.numpy()
    assert np.abs(corrected - identity).mean() < 0.5 * np.abs(codes[:, 0] - identity).mean()
