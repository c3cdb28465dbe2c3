"""Identity from regressor and embedder: the ridge finds a linear relation, and its file belongs to one regressor."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from networks.certainty import digest
from networks.joint_identity import FILE, JointIdentity
from training.joint_identity import PARTS, joined, ridge


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
    codes = np.broadcast_to(np.array([1.0, 2.0, 4.0])[None, :, None], (5, 3, 80)).astype(np.float32)
    pairs = joined(codes, 10 * codes[..., :16])
    assert len(pairs) == len(PARTS[1]) == 7
    for identity, vector in pairs:
        np.testing.assert_allclose(vector[:, 0], 10 * identity[:, 0], rtol=1e-5)
    assert [pair[0][0, 0] for pair in pairs[:3]] == [1, 2, 4]
    assert pairs[-1][0][0, 0] == pytest.approx(0.24 + 2 * 0.38 + 4 * 0.38)


def test_the_file_is_taken_beside_its_regressor_alone(tmp_path: Path) -> None:
    regressor = tmp_path / "regressor.safetensors"
    regressor.write_bytes(b"some weights")
    assert JointIdentity.beside(regressor) is None
    arrays = {
        name: np.ones(shape, np.float16) for name, shape in (("middle", 84), ("matrix", (84, 80)), ("offset", 80))
    }
    about = {"regressor": digest(regressor), "embedder": "5", "face_model": "6"}
    save_file(arrays, tmp_path / FILE, about)
    joint = JointIdentity.beside(regressor)
    assert joint is not None
    assert (joint.embedder, joint.face_model) == (5, 6)
    np.testing.assert_allclose(joint(np.ones((2, 80)), np.full((2, 4), 2.0)), 5, atol=1e-3)  # 4 * (2 - 1) + 1
    regressor.write_bytes(b"other weights")
    assert JointIdentity.beside(regressor) is None
