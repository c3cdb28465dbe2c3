"""Measures that are used to judge the weights measure what they say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import trimesh

from tests.export.synthetic import face_model, rotation_matrix
from training.evaluate import (
    Measured,
    Places,
    in_bands,
    named,
    narrow_face,
    nearest_on_surface,
    noted_yaws,
    rendered_at,
    shape_error,
    similarity,
    summary,
    yaw_of,
)
from training.face_model import ORIGIN_CM
from training.render import MARGIN, euler

MODEL = face_model()
MEAN = MODEL.mean.astype(np.float64)


def test_a_similarity_is_found_again() -> None:
    moved = 1.7 * MEAN[::7] @ rotation_matrix(0.2, -0.4, 0.1) + [1.0, 2.0, 3.0]
    scale, rotation, shift = similarity(MEAN[::7], moved)
    assert scale == pytest.approx(1.7)
    np.testing.assert_allclose(scale * MEAN[::7] @ rotation + shift, moved, atol=1e-9)


def test_the_nearest_place_is_the_nearest_of_all_triangles() -> None:
    points = MEAN[::150] + np.random.default_rng(0).normal(0, 0.05, (len(MEAN[::150]), 3))
    places, distances = nearest_on_surface(points, MEAN, MODEL.triangles)
    corners = MEAN[MODEL.triangles]
    for point, place, distance in zip(points, places, distances, strict=True):
        all_places = trimesh.triangles.closest_point(corners, np.repeat(point[None], len(corners), 0))
        assert distance == pytest.approx(np.linalg.norm(all_places - point, axis=1).min(), abs=1e-12)
        assert distance == pytest.approx(np.linalg.norm(place - point))


def test_place_turn_and_size_of_a_head_are_no_error_of_its_shape() -> None:
    moved = 1.3 * MEAN @ rotation_matrix(0.1, 0.3, -0.2) + [0.5, 0.0, -1.0]
    assert shape_error(moved, MODEL, MEAN) == pytest.approx(0, abs=1e-6)


def test_a_dent_is_an_error_in_millimetres() -> None:
    rough = MEAN + np.random.default_rng(0).normal(0, 0.03, MEAN.shape)  # 3 mm
    assert 0.5 < shape_error(MEAN, MODEL, rough) < 3


def test_the_narrow_face_lies_on_the_face_model_wherever_that_goes(tmp_path: Path) -> None:
    kept = np.linalg.norm(MEAN - MEAN[MODEL.landmarks[30]], axis=1) < 0.75
    first = np.flatnonzero(kept)[::20]
    np.savez(tmp_path / "heads.npz", neutral=MEAN[first] * 10 + ORIGIN_CM, n_narrow_face=len(first) - 1)
    narrow = Places.find(MODEL, narrow_face(tmp_path / "heads.npz"))
    moved = 1.3 * MEAN @ rotation_matrix(0.1, 0.3, -0.2) + [0.5, 0.0, -1.0]
    np.testing.assert_allclose(narrow.on(moved), moved[first[:-1]], atol=1e-9)
    assert shape_error(moved, MODEL, MEAN, narrow) == pytest.approx(0, abs=1e-6)
    # Judged there only: a bump elsewhere is none of its business.
    bumpy = MEAN.copy()
    bumpy[first[-1]] += 0.5
    assert shape_error(MEAN, MODEL, bumpy, narrow) == pytest.approx(0, abs=1e-6)


def test_a_summary_of_nothing_says_so() -> None:
    assert summary("yaw 60-90", []).endswith("none")
    assert "median 10.00%" in summary("all", [0.05, 0.1, 0.3])


def test_people_of_the_training_set_are_left_out_by_name() -> None:
    files = np.array(["pd/one.jpg", "pd/two.jpg", "sfhq/one_2.jpg"])
    assert named(files, ["two", "sfhq/"]).tolist() == [False, True, True]
    assert not named(files, []).any()


def test_a_yaw_belongs_to_one_band_whichever_side_it_is_turned_to() -> None:
    bands = {name: members.tolist() for name, members in in_bands([0, -19.9, 20, -60, 75, 90])}
    assert bands == {"yaw 0-20": [0, 1], "yaw 20-40": [2], "yaw 40-60": [3], "yaw 61-90": [4, 5]}


def test_a_pose_that_the_note_tells_goes_before_the_teachers(tmp_path: Path) -> None:
    (tmp_path / "index.csv").write_text('file,note\na.jpg,"pan -75 (persons 01-07)"\nb.jpg,a panda\nc.jpg,pan +0\n')
    assert noted_yaws(tmp_path) == {"a.jpg": -75.0, "c.jpg": 0.0}


def test_what_is_printed_has_both_errors_by_band_and_the_share_missed(capsys: pytest.CaptureFixture[str]) -> None:
    measured = Measured(missed=1, fidelities=[30.0, 40.0, 50.0])
    for inner, dense, yaw in ((0.01, 0.02, 5.0), (0.03, 0.04, -10.0), (0.2, 0.3, 30.0)):
        measured.add(inner, dense, yaw)
    measured.show("set")
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == "set: inner landmarks n 3 median 3.00% mean 8.00% over 10%: 33.33%"
    assert lines[1] == "yaw 0-20 n 2 median 2.00% mean 2.00% over 10%: 0.00%"
    assert lines[5] == "yaw 0-60 n 3 median 3.00% mean 8.00% over 10%: 33.33%"
    assert lines[6] == "set: dense points n 3 median 4.00% mean 12.00% over 10%: 33.33%"
    assert lines[8] == "yaw 20-40 n 1 median 30.00% mean 30.00% over 10%: 100.00%"
    assert lines[-2] == "texture PSNR over visible skin: median 40.0 dB, lowest 30.0 (n 3)"
    assert lines[-1] == "missed: 1 of 4 (25.0%)"


def test_a_head_is_placed_where_the_camera_of_its_render_saw_it() -> None:
    # One decimetre to the right and up, 1 dm before the origin, camera at 5 dm, 100 pixels a decimetre.
    head = np.array([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    placed = rendered_at(head, np.zeros(3), np.array([5.0, 100.0, 112.0, 100.0]))
    np.testing.assert_allclose(placed - MARGIN, [[112, 100], [112 + 125, 100 - 125]])
    sideways = rendered_at(head, np.array([0, np.pi / 2, 0]), np.array([5.0, 100.0, 112.0, 100.0]))
    np.testing.assert_allclose(sideways[1] - MARGIN, [112 + 100 * 5 / 6, 100 - 100 * 5 / 6])


@pytest.mark.parametrize("yaw", [-70, -20, 0, 45])
def test_the_yaw_of_a_face_is_read_from_its_points(yaw: float) -> None:
    posed = MEAN[::40] @ euler(0.2, np.radians(yaw), -0.1).T
    points = 90 * posed * [1, -1, -1] + [300, 200, 5]  # pixels, y down, z away from the camera
    assert yaw_of(points, MEAN[::40]) == pytest.approx(yaw)
