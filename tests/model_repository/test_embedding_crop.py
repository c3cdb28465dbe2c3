"""The upright crop of the embedder: the template is met, whatever the turn, size and place of the face."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.model_repository.version_folder import load

crops = load("align", "embedding_crop")


def turned(degrees: float, scale: float, place: tuple[float, float]) -> NDArray[np.float64]:
    """The template's points turned, enlarged and moved into a picture."""
    angle = math.radians(degrees)
    turn = np.array([(math.cos(angle), -math.sin(angle)), (math.sin(angle), math.cos(angle))])
    points: NDArray[np.float64] = scale * crops.TEMPLATE @ turn.T + place
    return points


def row(points: NDArray[np.float64]) -> NDArray[np.float32]:
    low, high = points.min(axis=0) - 20, points.max(axis=0) + 20
    return np.asarray(np.concatenate([low, high, [0.99], points.ravel()]), np.float32)


@pytest.mark.parametrize("degrees", [-90, -20, 0, 35, 180])
@pytest.mark.parametrize("scale", [0.4, 1.0, 7.0])
def test_the_fit_takes_the_template_to_the_face(degrees: float, scale: float) -> None:
    points = turned(degrees, scale, (300, 200))
    fit = crops.similarity(points)
    assert fit.step == pytest.approx(scale)
    placed = np.column_stack([crops.TEMPLATE, np.ones(5)]) @ fit.matrix.T
    np.testing.assert_allclose(placed, points, atol=1e-6)


def test_the_fit_is_the_least_squares_one_of_scikit_image() -> None:
    transform = pytest.importorskip("skimage.transform")
    points = turned(12, 2, (80, 90)) + np.random.default_rng(0).normal(0, 3, (5, 2))
    # From the face to the template and back are two different least-squares fits; this one is template -> face.
    expected = transform.SimilarityTransform.from_estimate(crops.TEMPLATE, points)
    np.testing.assert_allclose(crops.similarity(points).matrix, expected.params[:2], atol=1e-6)


@pytest.mark.parametrize(("degrees", "scale"), [(0, 1), (25, 2.3), (-40, 6.0)])
def test_the_face_lands_on_the_template(degrees: float, scale: float) -> None:
    """Discs at the points of a face are found at the template's points in the crop, to half a pixel."""
    points = turned(degrees, scale, (500, 420))
    picture = np.zeros((1400, 1600, 3), np.uint8)
    for x, y in points:
        cv2.circle(picture, (round(x * 16), round(y * 16)), round(3 * scale * 16), (255, 255, 255), -1, shift=4)
    crop = crops.cut_upright(picture, crops.similarity(points))
    assert crop.shape == (112, 112, 3)
    for x, y in crops.TEMPLATE:
        columns, rows = np.meshgrid(np.arange(round(x) - 5, round(x) + 6), np.arange(round(y) - 5, round(y) + 6))
        weight = crop[rows, columns, 0].astype(float)
        assert weight.sum() > 0
        assert ((columns * weight).sum() / weight.sum(), (rows * weight).sum() / weight.sum()) == pytest.approx(
            (x, y), abs=0.5
        )


def test_a_reduced_picture_gives_the_same_crop() -> None:
    """`picture` may be smaller than the source: the fit is scaled to it."""
    rng = np.random.default_rng(1)
    source = cv2.GaussianBlur(rng.integers(0, 256, (800, 800, 3)).astype(np.uint8), (0, 0), 12)
    fit = crops.similarity(turned(10, 5, (100, 120)))
    whole = crops.cut_upright(source, fit)
    half = crops.cut_upright(cv2.resize(source, (400, 400), interpolation=cv2.INTER_AREA), fit.scaled(0.5, 0.5))
    assert np.abs(whole.astype(int) - half).mean() < 1.0


def test_quality_falls_with_what_each_number_is_about() -> None:
    rng = np.random.default_rng(2)
    sharp = rng.integers(0, 256, (112, 112, 3)).astype(np.uint8)
    size = (1000.0, 1000.0)

    def judged(points: NDArray[np.float64], crop: NDArray[np.uint8] = sharp, yaw: float = 0) -> list[float]:
        return list(crops.quality(row(points), crops.similarity(points), size, yaw, crop))

    best = judged(turned(0, 2, (300, 300)))
    assert best == pytest.approx([1, 1, 1, 1], abs=1e-3)
    assert judged(turned(0, 0.5, (300, 300)))[0] == pytest.approx(0.5, abs=1e-3)
    smooth = cv2.GaussianBlur(rng.normal(0, 1, (112, 112)), (0, 0), 6)
    levels = np.asarray(cv2.normalize(smooth, smooth.copy(), 0, 255, cv2.NORM_MINMAX), np.uint8)
    blurred = np.repeat(levels[..., None], 3, axis=2)
    assert judged(turned(0, 2, (300, 300)), blurred)[1] < 0.5
    assert judged(turned(0, 2, (300, 300)), yaw=60)[2] == pytest.approx(0.5, abs=1e-3)
    nodding = turned(0, 2, (300, 300))
    nodding[2, 1] += 20
    assert judged(nodding)[2] < 0.97
    assert judged(turned(0, 2, (-112, 300)))[3] == pytest.approx(0.5, abs=0.05)
