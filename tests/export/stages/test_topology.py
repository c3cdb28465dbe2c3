"""What `merge` reads of the face model, with what photographs say together where that belongs to the weights."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from export.stages import topology
from networks import identity_correction
from networks.head_model import HeadModel, load_face_model
from networks.person_correction import FILE, PersonCorrection

WEIGHTS = Path(__file__).resolve().parents[3] / "weights"


@pytest.fixture(scope="module")
def model() -> HeadModel:
    loaded = load_face_model(WEIGHTS / "face_model.npz")
    assert isinstance(loaded, HeadModel)
    return loaded


def test_the_chart_holds_the_map_and_the_modes_that_it_moves(model: HeadModel) -> None:
    arrays = topology.chart_of(model)
    found = PersonCorrection.beside(WEIGHTS / "regressor.safetensors")
    assert found is not None
    np.testing.assert_array_equal(arrays["person_matrix"], found.matrix)
    assert arrays["person_embedder"].tolist() == [found.embedder]
    np.testing.assert_allclose(arrays["modes"] * arrays["modes_step"], model.identity, atol=1.01e-5)


def test_weights_to_which_the_map_does_not_belong_get_none_and_another_map_is_another_chart(
    model: HeadModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(topology, "REGRESSOR", tmp_path / "regressor.safetensors")
    (tmp_path / "regressor.safetensors").write_bytes(b"other weights")
    assert topology._beside("chart") == ""
    for name in (FILE, identity_correction.FILE):
        shutil.copy(WEIGHTS / name, tmp_path)
    assert "person_matrix" not in topology.chart_of(model)
    first = topology._beside("chart")
    (tmp_path / FILE).write_bytes(b"another map")
    assert len({first, topology._beside("chart"), topology._beside("topology"), ""}) == 3
