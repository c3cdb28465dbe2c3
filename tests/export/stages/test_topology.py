"""What `merge` reads of the face model: with what the embedder adds, where that belongs to the weights."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from export.stages import topology
from networks.head_model import HeadModel, load_face_model
from networks.joint_identity import FILE, JointIdentity

WEIGHTS = Path(__file__).resolve().parents[3] / "weights"


@pytest.fixture(scope="module")
def model() -> HeadModel:
    loaded = load_face_model(WEIGHTS / "face_model.npz")
    assert isinstance(loaded, HeadModel)
    return loaded


def test_the_chart_holds_the_map_and_the_modes_that_it_moves(model: HeadModel) -> None:
    arrays = topology.chart_of(model)
    joint = JointIdentity.beside(WEIGHTS / "regressor.safetensors")
    assert joint is not None
    assert joint.face_model == model.fingerprint
    np.testing.assert_array_equal(arrays["joint_matrix"], joint.matrix)
    assert arrays["joint_embedder"].tolist() == [joint.embedder]
    np.testing.assert_allclose(arrays["modes"] * arrays["modes_step"], model.identity, atol=1.01e-5)


def test_weights_to_which_the_map_does_not_belong_get_none_and_another_map_is_another_chart(
    model: HeadModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(topology, "REGRESSOR", tmp_path / "regressor.safetensors")
    (tmp_path / "regressor.safetensors").write_bytes(b"other weights")
    assert topology._beside("chart") == ""
    shutil.copy(WEIGHTS / FILE, tmp_path / FILE)
    assert "joint_matrix" not in topology.chart_of(model)
    first = topology._beside("chart")
    (tmp_path / FILE).write_bytes(b"another map")
    assert len({first, topology._beside("chart"), topology._beside("topology"), ""}) == 3
