"""Training aligns faces as the family does, and as the service does."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from networks.alignment import RESCALE, TEMPLATE, crop_transform, similarity
from tests.model_repository.version_folder import load

# Deep3DFaceRecon's example faces: height of the picture, t (from the bottom), scale of the 224 px crop.
GOLDEN = [
    (594, (196.6142, 355.0627), 0.729374),
    (255, (171.4116, 135.8974), 1.178787),
    (341, (154.6408, 188.4666), 1.000263),
]


def points_for(t: tuple[float, float], scale: float, height: int) -> NDArray[np.float64]:
    """Return (5, 2) source pixels, y down, of a frontal face of that scale and position."""
    seen = TEMPLATE[:, :2] * (RESCALE / scale) + t
    return np.column_stack([seen[:, 0], height - 1 - seen[:, 1]])


@pytest.mark.parametrize(("height", "t", "scale"), GOLDEN)
def test_the_family_s_examples_get_the_family_s_scale_and_place(
    height: int, t: tuple[float, float], scale: float
) -> None:
    assert similarity(points_for(t, scale, height), height) == pytest.approx((scale, *t), abs=1e-6)


@pytest.mark.parametrize(("height", "t", "scale"), GOLDEN)
def test_a_frontal_face_lands_on_the_family_s_five_points(height: int, t: tuple[float, float], scale: float) -> None:
    points = points_for(t, scale, height)
    s, dx, dy = crop_transform(points, height)
    known = [(80.23, 81.38), (143.60, 81.45), (112.33, 115.71), (86.28, 149.90), (137.34, 149.89)]
    np.testing.assert_allclose(points * s + (dx, dy), known, atol=0.01)


def test_the_copy_in_the_service_fits_the_same_camera() -> None:
    service = load("align", "alignment")
    np.testing.assert_array_equal(service.TEMPLATE, TEMPLATE)
    rng = np.random.default_rng(0)
    for _ in range(20):
        height = int(rng.integers(200, 3000))
        points = points_for((rng.uniform(50, 900), rng.uniform(50, 900)), rng.uniform(0.1, 3), height)
        points += rng.normal(0, 6, (5, 2))
        fitted = service.fit(points, height)
        ours = similarity(points, height)
        assert ours == pytest.approx((service.RESCALE_224 / fitted.scale, *fitted.t), rel=1e-9, abs=1e-9)


def test_the_service_s_crop_differs_from_training_s_by_its_whole_pixels_only() -> None:
    service = load("align", "alignment")
    rng = np.random.default_rng(1)
    for _ in range(20):
        width, height = (int(n) for n in rng.integers(300, 2000, 2))
        points = points_for((rng.uniform(100, 900), rng.uniform(100, 900)), rng.uniform(0.3, 2), height)
        points += rng.normal(0, 4, (5, 2))
        s, dx, dy = crop_transform(points, height)
        sx, sy, ox, oy = service.window(service.fit(points, height), (width, height), 224).camera((width, height))
        # The picture is resized to whole pixels and cut at whole pixels.
        np.testing.assert_allclose(points * s + (dx, dy), (points - (ox, oy)) / (sx, sy), atol=2.5)
