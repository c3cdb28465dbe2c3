"""The camera and the angles are those of HRN / Deep3DFaceRecon."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from networks.camera import CENTRE, CROP, DISTANCE, FOCAL, project, rotation
from tests.export.synthetic import pixels, rotation_matrix

NOSE = torch.tensor([[[0.0, 0.0, 1.0]]])


def posed(pitch: float = 0.0, yaw: float = 0.0, roll: float = 0.0) -> list[float]:
    turned: list[float] = (NOSE @ rotation(torch.tensor([[pitch, yaw, roll]])))[0, 0].tolist()
    return turned


def test_a_rotation_is_the_transpose_of_rz_ry_rx() -> None:
    angles = np.random.default_rng(0).uniform(-1.5, 1.5, (20, 3))
    matrices = rotation(torch.from_numpy(angles)).numpy()
    for angle, matrix in zip(angles, matrices, strict=True):
        np.testing.assert_allclose(matrix, rotation_matrix(*angle).T, atol=1e-12)


def test_rotations_keep_lengths_and_do_not_mirror() -> None:
    matrices = rotation(torch.from_numpy(np.random.default_rng(1).uniform(-3, 3, (20, 3))))
    np.testing.assert_allclose(
        (matrices @ matrices.transpose(1, 2)).numpy(), np.tile(np.eye(3), (20, 1, 1)), atol=1e-12
    )
    np.testing.assert_allclose(torch.linalg.det(matrices).numpy(), 1.0)


def test_positive_yaw_turns_the_nose_to_the_right_of_the_picture() -> None:
    x, y, _ = posed(yaw=0.5)
    assert x == pytest.approx(math.sin(0.5))
    assert y == pytest.approx(0)


def test_positive_pitch_turns_the_nose_down() -> None:
    x, y, _ = posed(pitch=0.5)
    assert x == pytest.approx(0)
    assert y == pytest.approx(-math.sin(0.5))


def test_positive_roll_turns_counter_clockwise_in_the_picture() -> None:
    up = torch.tensor([[[0.0, 1.0, 0.0]]]) @ rotation(torch.tensor([[0.0, 0.0, 0.5]]))
    assert up[0, 0, 0] < 0


def test_the_origin_lies_at_column_112_and_row_111() -> None:
    assert project(torch.zeros(1, 1, 3))[0, 0].tolist() == [112.0, 111.0]


def test_a_decimetre_is_a_tenth_of_the_focal_length_and_grows_toward_the_camera() -> None:
    places = project(torch.tensor([[[1.0, 0, 0], [0, 1, 0], [1, 0, 5]]], dtype=torch.float64))[0].numpy()
    np.testing.assert_allclose(places, [[213.5, 111.0], [112.0, 9.5], [315.0, 111.0]])


def test_the_field_of_view_is_the_family_s() -> None:
    assert (FOCAL, CENTRE, DISTANCE, CROP) == (1015.0, 112.0, 10.0, 224)
    assert math.degrees(2 * math.atan(CENTRE / FOCAL)) == pytest.approx(12.5936, abs=1e-4)


def test_projecting_agrees_with_the_formula_for_any_points() -> None:
    points = np.random.default_rng(2).normal(0, 0.7, (50, 3))
    np.testing.assert_allclose(project(torch.from_numpy(points)[None])[0].numpy(), pixels(points), atol=1e-9)
