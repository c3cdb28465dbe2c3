"""The rasteriser of training renders, against triangles computed by hand."""

from __future__ import annotations

import numpy as np

from training.raster import interpolate, rasterise

CORNERS = np.array([[1.0, 1.0], [5.0, 1.0], [1.0, 5.0]])
ONE = np.array([[0, 1, 2]])


def test_a_triangle_covers_the_pixels_whose_centres_lie_in_it() -> None:
    index, bary, depth = rasterise(CORNERS, np.array([1.0, 5.0, 9.0]), ONE, 7, 8)
    rows, columns = np.mgrid[0:7, 0:8]
    inside = (columns >= 1) & (rows >= 1) & (columns + rows <= 6)
    np.testing.assert_array_equal(index, np.where(inside, 0, -1))
    np.testing.assert_allclose(bary[2, 3], [0.25, 0.5, 0.25], atol=1e-6)
    assert depth[2, 3] == 0.25 * 1 + 0.5 * 5 + 0.25 * 9
    assert (depth[~inside] == -np.inf).all()


def test_the_nearer_triangle_is_seen_whatever_the_order_and_the_winding() -> None:
    points, depth = np.concatenate([CORNERS, CORNERS]), np.array([1.0, 1, 1, 2, 2, 2])
    for triangles, nearer in (([[0, 1, 2], [3, 5, 4]], 1), ([[3, 4, 5], [0, 2, 1]], 0)):
        index, _, _ = rasterise(points, depth, np.array(triangles), 7, 8)
        assert set(np.unique(index)) == {-1, nearer}


def test_what_lies_outside_of_the_picture_is_cut_off() -> None:
    big = np.array([[-50.0, -50.0], [100.0, -50.0], [-50.0, 100.0]])
    index, _, _ = rasterise(big, np.zeros(3), ONE, 4, 5)
    assert (index == 0).all()


def test_a_triangle_without_area_covers_nothing() -> None:
    index, _, _ = rasterise(np.array([[0.0, 0.0], [2.0, 2.0], [4.0, 4.0]]), np.zeros(3), ONE, 5, 5)
    assert (index == -1).all()


def test_values_are_interpolated_inside_and_zero_outside() -> None:
    index, bary, _ = rasterise(CORNERS, np.zeros(3), ONE, 7, 8)
    drawn = interpolate(index, bary, ONE, CORNERS)
    rows, columns = np.nonzero(index == 0)
    np.testing.assert_allclose(drawn[rows, columns], np.stack([columns, rows], 1), atol=1e-5)
    assert not drawn[index < 0].any()
