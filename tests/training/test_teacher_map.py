"""Where the teacher's points lie on the face model is found from renders of known geometry."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.export.synthetic import face_model, rotation_matrix
from training.render import MARGIN
from training.teacher_map import build

MODEL = face_model()
POINTS = 478


@pytest.mark.filterwarnings("ignore:All-NaN slice encountered:RuntimeWarning")
def test_points_find_their_vertex_and_points_off_the_face_are_never_steady(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    forward = np.flatnonzero(np.abs(MODEL.mean[:, 0]) > 0.3)  # away from the steep nose
    forward = forward[np.abs(MODEL.mean[forward]).max(1) < 0.7]
    true = rng.choice(forward, POINTS)
    angles = np.radians([[0, 0, 0], [5, 10, 3], [-6, -12, 0], [0, 70, 0], [3, 8, -4]])
    labels = np.zeros((len(angles), POINTS, 3), np.float32)
    for k, angle in enumerate(angles):
        posed = MODEL.mean @ rotation_matrix(*angle).T
        seen = posed[:, :2] / (10 - posed[:, 2:]) * 10 * 101.5 * [1, -1] + [112, 111] + MARGIN
        labels[k, :, :2] = seen[true]
    labels[3, :, :2] = 144  # turned too far: whatever the teacher says there does not count
    labels[:, 0, :2] = 3  # a point in the background
    camera = np.tile(np.array([10, 101.5, 112, 111], np.float32), (len(angles), 1))
    zeros = {"identity": np.zeros((len(angles), 80)), "expression": np.zeros((len(angles), 64))}
    np.savez(tmp_path / "renders.labels.npz", angle=angles, camera=camera, **zeros)
    np.savez(tmp_path / "labels.npz", points=labels)
    build(MODEL, tmp_path / "renders", tmp_path / "labels.npz", tmp_path / "map.npz")
    found = np.load(tmp_path / "map.npz")
    assert np.isinf(found["scatter_mm"][0])
    assert (found["scatter_mm"][1:] < 1.5).all()
    off = np.linalg.norm(MODEL.mean[found["vertex"]] - MODEL.mean[true], axis=1)[1:]
    assert off.max() < 0.06  # neighbours are 0.04 dm apart
    assert (off == 0).mean() > 0.9
