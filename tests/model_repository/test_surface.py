"""`postprocess`: the face model's topology, and the guard against another one's vertices."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.model_repository import dome
from tests.model_repository.version_folder import load

surface = load("postprocess", "surface")
options = load("postprocess", "options")


@pytest.fixture
def domed(tmp_path: Path) -> object:
    return surface.Surface.from_file(dome.write_topology(tmp_path / "topology.npz"))


def test_the_topology_is_read_from_the_file_that_export_writes(tmp_path: Path) -> None:
    read = surface.Surface.from_file(dome.write_topology(tmp_path / "topology.npz"))
    np.testing.assert_array_equal(read.triangles, dome.triangles())
    np.testing.assert_array_equal(read.uv, dome.uv())
    assert (read.fingerprint, read.name) == (dome.FINGERPRINT, "dome")


def test_a_topology_with_holes_in_it_is_not_loaded(tmp_path: Path) -> None:
    path = tmp_path / "topology.npz"
    np.savez(path, triangles=[[0, 1, 7]], uv=np.zeros((3, 2)), fingerprint=[1], name="x")
    with pytest.raises(ValueError, match="triangles"):
        surface.Surface.from_file(path)
    np.savez(path, triangles=[[0, 1, 2]], uv=np.full((3, 2), 1.5), fingerprint=[1], name="x")
    with pytest.raises(ValueError, match="texture coordinates"):
        surface.Surface.from_file(path)


def test_normals_are_unit_and_point_out_of_the_face(tmp_path: Path) -> None:
    read = surface.Surface.from_file(dome.write_topology(tmp_path / "topology.npz"))
    normals = read.normals(dome.vertices())
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-6)
    assert (normals[:, 2] > 0).all()
    left, right = dome.SIDE * (dome.SIDE // 2), dome.SIDE * (dome.SIDE // 2) + dome.SIDE - 1
    assert normals[left, 0] < -0.3
    assert normals[right, 0] > 0.3


def test_normals_of_a_plane_are_those_of_the_plane_and_loners_look_forward() -> None:
    flat = surface.Surface(np.array([[0, 1, 2]], np.int32), np.zeros((4, 2), np.float32), 1, "flat")
    normals = flat.normals(np.array([[0, 0, 0], [0, 1, 0], [0, 0, 1], [5, 5, 5]], np.float32))
    np.testing.assert_allclose(normals, [[1, 0, 0]] * 3 + [[0, 0, 1]], atol=1e-6)


def test_a_normal_is_the_sum_of_the_triangles_around_it_weighted_by_area() -> None:
    random = np.random.default_rng(4)
    vertices = random.normal(size=(40, 3)).astype(np.float32)
    triangles = random.permuted(np.tile(np.arange(40, dtype=np.int32), (60, 1)), axis=1)[:, :3].copy()
    sums = np.zeros((40, 3))
    for a, b, c in triangles:
        sums[[a, b, c]] += np.cross(vertices[b] - vertices[a], vertices[c] - vertices[a])
    normals = surface.Surface(triangles, np.zeros((40, 2), np.float32), 1, "heap").normals(vertices)
    np.testing.assert_allclose(normals, sums / np.linalg.norm(sums, axis=1, keepdims=True), atol=1e-5)


@pytest.mark.parametrize(("fingerprint", "vertices"), [(1, dome.SIDE**2), (dome.FINGERPRINT, 7)])
def test_another_face_model_s_vertices_are_refused(tmp_path: Path, fingerprint: int, vertices: int) -> None:
    read = surface.Surface.from_file(dome.write_topology(tmp_path / "topology.npz"))
    read.check(dome.FINGERPRINT, dome.SIDE**2)
    with pytest.raises(options.Refused, match="publish both from the same export") as caught:
        read.check(fingerprint, vertices)
    assert caught.value.tag == "FaceModelMismatch"
