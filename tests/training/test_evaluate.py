"""Measures that are used to judge the weights measure what they say."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh

from tests.export.synthetic import face_model, turn
from training.evaluate import named, nearest_on_surface, shape_error, similarity, summary

MODEL = face_model()
MEAN = MODEL.mean.astype(np.float64)


def test_a_similarity_is_found_again() -> None:
    moved = 1.7 * MEAN[::7] @ turn(0.2, -0.4, 0.1) + [1.0, 2.0, 3.0]
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
    moved = 1.3 * MEAN @ turn(0.1, 0.3, -0.2) + [0.5, 0.0, -1.0]
    assert shape_error(moved, MODEL, MEAN) == pytest.approx(0, abs=1e-6)


def test_a_dent_is_an_error_in_millimetres() -> None:
    rough = MEAN + np.random.default_rng(0).normal(0, 0.03, MEAN.shape)  # 3 mm
    assert 0.5 < shape_error(MEAN, MODEL, rough) < 3


def test_a_summary_of_nothing_says_so() -> None:
    assert summary("yaw 60-90", []).endswith("none")
    assert "median 10.00%" in summary("all", [0.05, 0.1, 0.3])


def test_people_of_the_training_set_are_left_out_by_name() -> None:
    files = np.array(["pd/one.jpg", "pd/two.jpg", "sfhq/one_2.jpg"])
    assert named(files, ["two", "sfhq/"]).tolist() == [False, True, True]
    assert not named(files, []).any()
