"""`postprocess`: the face model's topology, and the guard against another one's vertices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.model_repository import dome
from tests.model_repository.heads import MODEL, surface_of_head
from tests.model_repository.version_folder import load
from training.topology import boundary_loops

surface = load("postprocess", "surface")
options = load("postprocess", "options")


@pytest.fixture
def domed(tmp_path: Path) -> object:
    return surface.Surface.from_file(dome.write_topology(tmp_path / "topology.npz"))


def of_triangles(triangles: NDArray[np.int32], vertices: int) -> Any:
    """A surface of one material without texture coordinates."""
    arrays = {
        "faces": np.column_stack([triangles, np.full(len(triangles), -1)]),
        "vertex": np.arange(vertices),
        "material": np.zeros(len(triangles)),
        "in_face": np.ones(len(triangles)),
        "uv": np.zeros((vertices, 2)),
    }
    return surface.Surface.from_arrays({**dome.arrays(), **arrays})


def test_the_topology_is_read_from_the_file_that_export_writes(tmp_path: Path) -> None:
    read = surface.Surface.from_file(dome.write_topology(tmp_path / "topology.npz"))
    (primitive,) = read.primitives("head")
    np.testing.assert_array_equal(primitive.triangles, dome.triangles())
    np.testing.assert_array_equal(primitive.uv, dome.uv())
    assert primitive.material == "skin"
    assert (read.fingerprint, read.name) == (dome.FINGERPRINT, "dome")


def test_a_topology_with_holes_in_it_is_not_loaded(tmp_path: Path) -> None:
    path = tmp_path / "topology.npz"
    arrays = dome.arrays()
    np.savez(path, **{**arrays, "faces": arrays["faces"] + dome.SIDE**2})
    with pytest.raises(ValueError, match="places that are not there"):
        surface.Surface.from_file(path)
    np.savez(path, **{**arrays, "uv": arrays["uv"] + 1.5})
    with pytest.raises(ValueError, match="texture coordinates"):
        surface.Surface.from_file(path)


def test_the_topology_of_an_older_export_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "topology.npz"
    np.savez(path, triangles=dome.triangles(), uv=dome.uv(), fingerprint=[1], name="x")
    with pytest.raises(ValueError, match="older export"):
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
    flat = of_triangles(np.array([[0, 1, 2]], np.int32), 4)
    normals = flat.normals(np.array([[0, 0, 0], [0, 1, 0], [0, 0, 1], [5, 5, 5]], np.float32))
    np.testing.assert_allclose(normals, [[1, 0, 0]] * 3 + [[0, 0, 1]], atol=1e-6)


def test_a_normal_is_the_sum_of_the_triangles_around_it_weighted_by_area() -> None:
    random = np.random.default_rng(4)
    vertices = random.normal(size=(40, 3)).astype(np.float32)
    triangles = random.permuted(np.tile(np.arange(40, dtype=np.int32), (60, 1)), axis=1)[:, :3].copy()
    sums = np.zeros((40, 3))
    for a, b, c in triangles:
        sums[[a, b, c]] += np.cross(vertices[b] - vertices[a], vertices[c] - vertices[a])
    normals = of_triangles(triangles, 40).normals(vertices)
    np.testing.assert_allclose(normals, sums / np.linalg.norm(sums, axis=1, keepdims=True), atol=1e-5)


@pytest.mark.parametrize(("fingerprint", "vertices"), [(1, dome.SIDE**2), (dome.FINGERPRINT, 7)])
def test_another_face_model_s_vertices_are_refused(tmp_path: Path, fingerprint: int, vertices: int) -> None:
    read = surface.Surface.from_file(dome.write_topology(tmp_path / "topology.npz"))
    read.check(dome.FINGERPRINT, dome.SIDE**2)
    with pytest.raises(options.Refused, match="publish both from the same export") as caught:
        read.check(fingerprint, vertices)
    assert caught.value.tag == "FaceModelMismatch"


def test_a_quad_counts_around_each_of_its_corners_as_its_two_triangles_do() -> None:
    corners = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0.4], [0, 1, 0], [9, 9, 9]], np.float32)
    arrays = {
        "faces": np.array([[0, 1, 2, 3]]),
        "vertex": np.arange(5),
        "material": np.zeros(1),
        "in_face": np.ones(1),
        "uv": np.zeros((5, 2)),
    }
    normals = surface.Surface.from_arrays({**dome.arrays(), **arrays}).normals(corners)
    triangles = np.cross(corners[1] - corners[0], corners[2] - corners[0])
    triangles = triangles + np.cross(corners[2] - corners[0], corners[3] - corners[0])
    np.testing.assert_allclose(normals[:4], [triangles / np.linalg.norm(triangles)] * 4, atol=1e-6)
    np.testing.assert_allclose(normals[4], [0, 0, 1])


def test_a_head_has_its_materials_in_order_and_shares_no_place_between_them() -> None:
    head = surface_of_head()
    names = [primitive.material for primitive in head.primitives("head")]
    assert names == ["skin", "eye_left", "eye_right", "teeth", "mouth", "lashes"]
    assert sum(len(p.quads) + len(p.singles) for p in head.primitives("head")) == len(MODEL.faces)
    for primitive in head.primitives("head"):
        used = np.unique(primitive.triangles)
        np.testing.assert_array_equal(used, np.arange(len(primitive.vertex)))


def test_the_face_alone_is_a_smaller_skin_in_one_piece_without_loose_corners() -> None:
    head, face = (surface_of_head().primitives(mesh)[0] for mesh in ("head", "face"))
    assert len(face.quads) < 0.8 * len(head.quads)
    assert set(MODEL.landmarks) <= set(face.vertex)
    welded = face.vertex[face.triangles]
    assert len(boundary_loops(welded.astype(np.int64))) == 1
