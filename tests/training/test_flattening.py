"""Cutting, flattening and relaxing a surface: no triangle folded, both sides alike, less distortion than before."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.training.test_topology import grid
from training.crossings import crossing
from training.flattening import Superellipse, relax
from training.head_source import mirrored
from training.head_uv import cut_open, flatten
from training.topology import boundary_loops

Int = NDArray[np.int64]


def signed_area(uv: NDArray[np.float64], triangles: Int) -> NDArray[np.float64]:
    corners = uv[triangles]
    area: NDArray[np.float64] = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]) / 2
    return area


def vertex_at(points: NDArray[np.float64], x: float, y: float) -> int:
    return int(np.linalg.norm(points[:, :2] - [x, y], axis=1).argmin())


def ring_without(points: NDArray[np.float64], triangles: Int) -> Int:
    """The dome's boundary, counter-clockwise from outside, from the middle of its lower edge."""
    loop = np.array(boundary_loops(triangles)[-1])[::-1]
    return np.roll(loop, -list(loop).index(vertex_at(points, 0, -8)))


def test_a_cut_makes_two_vertices_of_each_on_its_way_but_the_last() -> None:
    points, triangles = grid([])
    path = [vertex_at(points, 0, y) for y in (9, 8.6, 8.2, 7.8)]
    opened, vertex = cut_open(triangles, path)
    assert vertex[len(points) :].tolist() == path[:-1]
    np.testing.assert_array_equal(vertex[opened], triangles)
    (before,), (after,) = boundary_loops(triangles), boundary_loops(opened)
    assert len(after) == len(before) + 2 * (len(path) - 1)
    left, right = (set(np.flatnonzero((opened == v).any(1))) for v in (len(points) + 1, path[1]))
    assert not left & right
    sides = [np.sign(points[triangles[list(side)]].mean(1)[:, 0]) for side in (left, right)]
    assert {tuple(np.unique(side)) for side in sides} == {(-1.0,), (1.0,)}


def test_a_dome_is_flattened_without_a_fold_alike_on_both_sides() -> None:
    points, triangles = grid([])
    mirror = mirrored(points, np.column_stack([triangles, np.full(len(triangles), -1)]))
    path = [vertex_at(points, 0, y) for y in (9, 8.6, 8.2, 7.8)]
    opened, vertex = cut_open(triangles, path)
    other = np.concatenate([mirror, path[:-1]])
    other[path[:-1]] = len(points) + np.arange(len(path) - 1)
    uv = flatten(points[vertex], opened, ring_without(points, opened), other, np.ones(len(vertex)))
    assert signed_area(uv, opened).min() > 0
    assert signed_area(uv, opened).sum() == pytest.approx(0.97, abs=0.02)
    np.testing.assert_allclose(uv[other] * [-1, 1] + [1, 0], uv, atol=1e-9)


def test_relaxing_gives_more_room_where_more_is_wanted() -> None:
    points, triangles = grid([])
    uv = points[:, :2] / 20 + [0.5, 0.475]
    nobody = np.zeros(len(points), bool)
    rim = np.isin(np.arange(len(points)), boundary_loops(triangles)[0])
    curve = Superellipse(rim, 0.45, 8.0)
    start = curve.onto(uv)
    assert signed_area(start, triangles).min() > 0
    middle = np.linalg.norm(points[:, :2], axis=1) < 3
    relaxed = relax(points, triangles, start, np.where(middle, 2.0, 1.0), nobody, curve)
    areas = [signed_area(places, triangles) for places in (start, relaxed)]
    assert areas[1].min() > 0
    inside = middle[triangles].all(1)
    assert areas[1][inside].sum() > 1.5 * areas[0][inside].sum()
    on_curve = np.linalg.norm(relaxed[rim] - 0.5, ord=8.0, axis=1)
    np.testing.assert_allclose(on_curve, 0.45, atol=1e-9)


def test_mirrors_of_vertices_that_lie_on_one_another_are_told_apart() -> None:
    square = np.array([[1, 0, 0], [2, 0, 0], [2, 1, 0], [1, 1, 0]], float)
    folded = square - np.array([0, 1, 0])  # its upper edge lies on the square's lower edge
    one_side = np.concatenate([square, folded])
    points = np.concatenate([one_side, one_side * [-1, 1, 1]])
    faces = np.arange(16).reshape(4, 4)
    assert mirrored(points, faces).tolist() == [*range(8, 16), *range(8)]


def test_a_mesh_without_a_mirror_image_is_refused() -> None:
    points = np.array([[1, 0, 0], [2, 0, 0], [2, 1, 0], [1.2, 1, 0]], float)
    with pytest.raises(ValueError, match="not alike on both sides"):
        mirrored(points, np.array([[0, 1, 2, 3]]))


def test_triangles_that_cross_are_found_and_neighbours_are_not() -> None:
    points, triangles = grid([])
    assert not crossing(points, triangles).any()
    pierced = np.concatenate([points, [[0.05, 0.05, 5], [0.15, 0.05, 15], [0.05, 0.15, 15]]])
    spike = np.concatenate([triangles, [[len(points), len(points) + 1, len(points) + 2]]])
    found = np.flatnonzero(crossing(pierced, spike))
    assert found[-1] == len(triangles)
    assert len(found) == 2
