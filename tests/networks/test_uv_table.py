"""The table that replaces a rasteriser finds the right triangle under every place of the UV plane."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import Delaunay

from networks.uv_table import adjacency, locate, texels

SQUARE = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
HALVES = np.array([[0, 1, 2], [1, 3, 2]])


def uneven(side: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Make a mesh over the unit square: a lattice whose inner vertices are moved at random."""
    axis = np.linspace(0, 1, side)
    points = np.stack([part.ravel() for part in np.meshgrid(axis, axis)], 1)
    inner = ((points > 0) & (points < 1)).all(1)
    points[inner] += np.random.default_rng(0).uniform(-0.4, 0.4, (inner.sum(), 2)) / side
    return points, Delaunay(points).simplices.astype(np.int64)


def test_a_place_gets_its_triangle_and_the_weights_known_by_hand() -> None:
    index, bary = locate(np.array([[0.25, 0.25], [0.75, 0.75], [0.0, 1.0]]), SQUARE, HALVES)
    assert index[:2].tolist() == [0, 1]
    np.testing.assert_allclose(bary[:2], [[0.5, 0.25, 0.25], [0.25, 0.5, 0.25]])
    assert HALVES[index[2]][bary[2].argmax()] == 2


def test_the_weights_lead_back_to_the_place() -> None:
    uv, triangles = uneven(17)
    places = np.random.default_rng(1).random((2000, 2))
    index, bary = locate(places, uv, triangles)
    np.testing.assert_allclose((uv[triangles[index]] * bary[..., None]).sum(1), places, atol=1e-9)
    assert (bary >= 0).all()
    np.testing.assert_allclose(bary.sum(1), 1)


def test_outside_of_the_map_the_weights_stay_inside_a_triangle_near_by() -> None:
    index, bary = locate(np.array([[-0.5, -0.5], [2.0, 2.0]]), SQUARE, HALVES)
    assert index.tolist() == [0, 1]
    assert (bary >= 0).all()
    np.testing.assert_allclose(bary.sum(1), 1)


def test_row_0_of_a_texture_is_the_upper_end_of_v() -> None:
    vertices, weights = texels(4, SQUARE, HALVES)
    places = (SQUARE[vertices] * weights[..., None]).sum(1).reshape(4, 4, 2)
    np.testing.assert_allclose(places[0, 0], [0.125, 0.875], atol=1e-6)
    np.testing.assert_allclose(places[3, 2], [0.625, 0.125], atol=1e-6)
    assert vertices.shape == weights.shape == (16, 3)


def test_every_vertex_lists_its_triangles_and_the_rest_of_its_row_points_past_the_last() -> None:
    uv, triangles = uneven(8)
    table = adjacency(triangles, len(uv))
    for vertex, row in enumerate(table.tolist()):
        listed = [t for t in row if t != len(triangles)]
        assert sorted(listed) == np.flatnonzero((triangles == vertex).any(1)).tolist()
