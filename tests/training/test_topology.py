"""The project's topology: one disk with one rim, on which every source shape arrives exactly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from training.topology import Topology, boundary_loops, build, close_holes

Case = tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]


def grid(
    holes: list[tuple[float, float, float, float]], low: float = -8.0
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """A dome in centimetres, alike on both sides, with rectangular holes (centre x, y, half width, half height)."""
    xs, ys = np.linspace(-8, 8, 41), np.arange(low, 9.01, 0.4)
    x, y = (part.ravel() for part in np.meshgrid(xs, ys))
    points = np.stack([x, y, 10 - 0.09 * x**2 - 0.03 * y**2], 1)
    k = np.arange(len(points)).reshape(len(ys), len(xs))
    triangles = []
    for row in range(len(ys) - 1):
        for column in range(len(xs) - 1):
            a, b, c, d = k[row, column], k[row, column + 1], k[row + 1, column], k[row + 1, column + 1]
            middle = points[[a, b, c, d]].mean(0)
            if any(abs(middle[0] - hx) < hw and abs(middle[1] - hy) < hh for hx, hy, hw, hh in holes):
                continue
            # the diagonal is mirrored too
            triangles += [(a, b, c), (b, d, c)] if middle[0] > 0 else [(a, b, d), (a, d, c)]
    return points, np.array(triangles)


FACE_HOLES = [(-3.2, 3.0, 1.0, 0.5), (3.2, 3.0, 1.0, 0.5), (0.0, -4.0, 2.0, 0.5)]


@pytest.fixture(scope="module", params=["made of formulas", "exact heads"])
def case(request: pytest.FixtureRequest) -> Case:
    if request.param == "made of formulas":
        points, triangles = grid(FACE_HOLES)
        inner = np.flatnonzero(
            (np.abs(points[:, 0]) < 5) & (points[:, 1] > -6) & np.isin(np.arange(len(points)), triangles)
        )
        landmarks = np.random.default_rng(0).choice(inner, 68, replace=False)
        landmarks[33] = np.linalg.norm(points - [0, 0, 10], axis=1).argmin()
        return points, triangles, landmarks
    heads: Path = request.getfixturevalue("data_dir") / "ict_facekit.npz"
    if not heads.is_file():
        pytest.skip("no exact heads here: ict_facekit.npz is not in the folder of evaluation pictures")
    with np.load(heads) as data:
        triangles = data["faces_tri"].astype(np.int64)
        face = triangles[(triangles < int(data["n_face"])).all(1)]
        return data["neutral"].astype(np.float64), face, data["landmarks68"].astype(np.int64)


@pytest.fixture(scope="module")
def mesh(case: Case) -> Topology:
    return build(*case, spacing=0.025)


def test_eyes_and_mouth_are_closed_so_that_one_rim_is_left(mesh: Topology) -> None:
    assert len(boundary_loops(mesh.triangles)) == 1
    edges = np.sort(np.concatenate([mesh.triangles[:, [k, (k + 1) % 3]] for k in range(3)]), 1)
    unique, uses = np.unique(edges, axis=0, return_counts=True)
    assert uses.max() == 2
    assert len(np.unique(mesh.triangles)) - len(unique) + len(mesh.triangles) == 1  # Euler: a disk


def test_no_triangle_is_folded_in_the_uv_plane(mesh: Topology) -> None:
    a, b, c = (mesh.uv[mesh.triangles[:, k]] for k in range(3))
    area = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])
    assert (area > 0).all()
    assert mesh.uv.min() >= 0
    assert mesh.uv.max() <= 1


def test_landmarks_lie_exactly_where_the_source_has_them(mesh: Topology, case: Case) -> None:
    neutral, _, landmarks = case
    placed = mesh.weights @ neutral + mesh.offset
    np.testing.assert_allclose(placed[mesh.landmarks], neutral[landmarks], atol=1e-3)  # centimetres


def test_the_mirror_of_a_vertex_lies_on_the_other_side(mesh: Topology) -> None:
    np.testing.assert_allclose(mesh.uv[mesh.mirror], mesh.uv * [-1, 1] + [1, 0], atol=0.01)
    assert (mesh.mirror[mesh.mirror] == np.arange(len(mesh.uv))).mean() > 0.97


def test_every_vertex_is_a_mean_of_source_vertices(mesh: Topology) -> None:
    np.testing.assert_allclose(np.asarray(mesh.weights.sum(1)).ravel(), 1)
    assert mesh.weights.min() >= 0


def test_boundary_loops_come_shortest_first() -> None:
    _, triangles = grid(FACE_HOLES[:1])
    loops = boundary_loops(triangles)
    assert len(loops) == 2
    assert len(loops[0]) < len(loops[1])


def test_an_eye_bulges_out_and_a_mouth_sinks_in() -> None:
    points, triangles = grid(FACE_HOLES)
    holes = boundary_loops(triangles)[:3]
    closed, weights, offset = close_holes(points, triangles, holes)
    assert len(boundary_loops(closed)) == 1
    placed = weights @ points
    assert (offset[placed[:, 1] > 0][:, 2] >= 0).all()
    assert offset[:, 2].max() == pytest.approx(0.28)
    assert (offset[placed[:, 1] < 0][:, 2] <= 0).all()
    assert offset[:, 2].min() == pytest.approx(-0.55)


def test_a_source_without_the_three_holes_is_refused() -> None:
    points, triangles = grid(FACE_HOLES[:2])
    with pytest.raises(ValueError, match="found 3 boundary loops"):
        build(points, triangles, np.arange(68))
