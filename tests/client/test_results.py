"""Typed results: fields, coefficients, camera, warnings, overlay."""

from __future__ import annotations

import io
import math
import re

import numpy as np
import pytest
from face3d_client import (
    BadImage,
    Camera,
    Coefficients,
    DetectedFace,
    ExpectedErrors,
    FaceModelMismatch,
    NotRequested,
    Reconstruction,
)
from face3d_client._mesh.overlay import mesh_edges
from face3d_client._mesh.surface import Surface
from face3d_client._protocol.codec import parse_detect, parse_reconstruct
from PIL import Image

from tests.client import synthetic


def test_the_mesh_is_in_millimetres_with_triangles_and_uv_in_the_order_of_the_file(result: Reconstruction) -> None:
    vertices, faces, uv = synthetic.grid()
    assert result.mesh.vertices == pytest.approx(vertices, abs=1e-3)
    assert np.array_equal(result.faces, faces)
    assert result.faces.dtype == np.int32
    assert result.uv == pytest.approx(uv, abs=1e-6)


def test_normals_point_outward(result: Reconstruction) -> None:
    assert (result.mesh.vertex_normals[:, 2] > 0).all()
    assert np.linalg.norm(result.mesh.vertex_normals, axis=1) == pytest.approx(1, abs=1e-5)


def test_posed_and_neutral_meshes_take_the_vertices_of_their_outputs(result: Reconstruction) -> None:
    assert result.posed_mesh.vertices == pytest.approx(result.vertices)
    assert result.neutral_mesh.vertices == pytest.approx(result.vertices_neutral)
    assert np.array_equal(result.neutral_mesh.faces, result.faces)


def test_vertices_of_another_face_model_are_refused() -> None:
    reply = synthetic.reply()
    reply["vertices_neutral"] = reply["vertices_neutral"][:, :-1]
    with pytest.raises(FaceModelMismatch, match="Export the face model and the regressor together"):
        _ = parse_reconstruct(reply).neutral_mesh


def test_the_texture_comes_from_inside_the_mesh_where_it_was_not_asked_for() -> None:
    reply = synthetic.reply()
    del reply["texture"]
    result = parse_reconstruct(reply)
    assert np.array_equal(np.asarray(result.texture), np.asarray(synthetic.texture()))
    assert result.texture_bytes.startswith(b"\x89PNG")


def test_expected_errors_are_one_over_the_certainty_and_infinite_where_it_is_not_known(result: Reconstruction) -> None:
    assert result.expected_errors == ExpectedErrors(2.0, 1.0, 4.0, math.inf)


@pytest.mark.parametrize(
    ("certainty", "said"),
    [
        ((0.5, 0.5, 0.3, 0.3), None),
        ((0, 0, 0, 0), None),
        ((0.5, 0.5, 0.1, 0.3), r"not sure of this face: its rotation may be off by 10 degrees\."),
        ((0.5, 0.5, 0.1, 0.1), r"10 degrees and its landmarks by 15% of the distance"),
    ],
)
def test_a_network_that_is_not_sure_is_a_warning(certainty: tuple[float, ...], said: str | None) -> None:
    reply = synthetic.reply(warnings=(b"dark",))
    reply["certainty"] = np.array([certainty], np.float32)
    first, *more = parse_reconstruct(reply).warnings
    assert first == "dark"
    assert len(more) == (said is not None)
    assert said is None or re.search(said, more[0])


def test_a_field_that_was_not_asked_for_says_how_to_ask() -> None:
    result = parse_reconstruct({"coefficients": synthetic.reply()["coefficients"]})
    assert result.has("coefficients")
    assert not result.has("mesh")
    with pytest.raises(NotRequested, match="'vertices' was not asked for: add it to outputs"):
        _ = result.vertices
    with pytest.raises(NotRequested, match="'mesh'"):
        _ = result.faces
    assert repr(result) == "Reconstruction(coefficients)"


def test_coefficients_are_sliced_as_in_deep3dfacerecon(result: Reconstruction) -> None:
    parts = result.coefficients
    names = ("identity", "expression", "texture", "angles", "light", "translation")
    slices = [getattr(parts, name) for name in names]
    assert [len(part) for part in slices] == [80, 64, 80, 3, 27, 3]
    assert np.array_equal(np.concatenate(slices), np.arange(257))
    assert np.array_equal(np.asarray(parts), parts.values)
    with pytest.raises(ValueError, match="257 coefficients"):
        Coefficients(np.zeros(256, np.float32))


def test_the_camera_projects_by_the_formulas_of_the_contract(result: Reconstruction) -> None:
    points = np.array([[0.0, 0, 0], [50, 60, 70], [-30, 20, -90]])
    decimetres = points / 100
    z = 10 - decimetres[:, 2]
    column = 1015 * decimetres[:, 0] / z + 112
    row = 223 - (1015 * decimetres[:, 1] / z + 112)
    sx, sy, ox, oy = synthetic.CAMERA[:4]
    assert result.camera.project(points) == pytest.approx(np.stack([column * sx + ox, row * sy + oy], -1))
    assert result.camera.project(points[0]).shape == (2,)


def test_both_crops_map_to_the_same_source(result: Reconstruction) -> None:
    camera = result.camera
    assert camera.crop_to_source(np.array([10.0, 20.0])) == pytest.approx([50, 90])
    assert camera.crop_to_source(np.array([10.0, 20.0]), 512) == pytest.approx([38.75, 61.8])
    with pytest.raises(ValueError, match="8 numbers"):
        Camera(np.zeros(4, np.float32))


def test_box_score_and_points_are_those_of_the_chosen_face(result: Reconstruction) -> None:
    assert result.box.tolist() == [100, 120, 300, 380]
    assert result.score == pytest.approx(0.98)
    assert result.points.shape == (5, 2)
    assert result.points[2].tolist() == [200, 260]
    assert result.detection.size == 260


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        ((), ()),
        ((b"",), ()),
        ((b"The face is small.", b"It is dark."), ("The face is small.", "It is dark.")),
        (("Tourn\u00e9e de 40 degr\u00e9s.".encode(),), ("Tourn\u00e9e de 40 degr\u00e9s.",)),
        ((b"[]",), ("[]",)),
    ],
)
def test_warnings_are_the_sentences_that_were_sent(sent: tuple[bytes, ...], read: tuple[str, ...]) -> None:
    assert parse_reconstruct(synthetic.reply(sent)).warnings == read


def test_detect_leaves_out_empty_slots_and_low_scores() -> None:
    rows = np.zeros((1, 64, 15), np.float32)
    rows[0, 0], rows[0, 1], rows[0, 2] = synthetic.FACE, synthetic.FACE, synthetic.FACE
    rows[0, 1, 4], rows[0, 2, 4] = 0.71, 0.4
    assert [face.score for face in parse_detect({"faces": rows})] == pytest.approx([0.98, 0.71])
    found = parse_detect({"faces": rows}, 0.0)
    assert [face.index for face in found] == [0, 1, 2]
    assert found[0].row.tolist() == synthetic.FACE.tolist()


def test_a_detected_face_cannot_be_changed() -> None:
    face = DetectedFace(synthetic.FACE)
    with pytest.raises(ValueError, match="read-only"):
        face.box[0] = 1
    with pytest.raises(ValueError, match="15 numbers"):
        DetectedFace(np.zeros(14, np.float32))


def _photograph(width: int = 600, height: int = 700) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (90, 90, 90)).save(buffer, "PNG")
    return buffer.getvalue()


def test_the_overlay_draws_the_mesh_where_the_camera_puts_it(result: Reconstruction) -> None:
    drawn = np.asarray(result.overlay(_photograph(), landmarks=False)).astype(int)
    assert drawn.shape == (700, 600, 3)
    changed = np.argwhere((drawn != 90).any(-1))
    pixels = result.camera.project(result.vertices)
    assert changed[:, 1].min() == pytest.approx(pixels[:, 0].min(), abs=2)
    assert changed[:, 1].max() == pytest.approx(pixels[:, 0].max(), abs=2)
    assert changed[:, 0].min() == pytest.approx(pixels[:, 1].min(), abs=2)
    assert changed[:, 0].max() == pytest.approx(pixels[:, 1].max(), abs=2)


def test_the_overlay_marks_landmarks_and_box(result: Reconstruction) -> None:
    drawn = np.asarray(result.overlay(_photograph(), wireframe=False, box=True)).astype(int)
    x, y = np.rint(result.landmarks[10]).astype(int)
    assert drawn[y, x, 0] > 200
    assert drawn[120, 200].tolist() == [255, 200, 0]


def test_the_overlay_turns_the_photograph_by_its_exif_tag(result: Reconstruction) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.new("RGB", (700, 600), (90, 90, 90)).save(buffer, "JPEG", exif=exif)
    assert result.overlay(buffer.getvalue()).size == (600, 700)


def test_the_overlay_of_something_that_is_no_picture_is_refused(result: Reconstruction) -> None:
    with pytest.raises(BadImage, match="cannot be decoded"):
        result.overlay(b"no picture")


def test_only_edges_of_triangles_that_face_the_camera_are_drawn() -> None:
    vertices, faces, uv = synthetic.grid()
    surface, depth = Surface.single(vertices, faces, uv, synthetic.png()), 1000 - vertices[:, 2]
    down = vertices[:, :2] * [1, -1]
    edges = mesh_edges(surface, down, depth)
    assert (
        len(edges)
        == (synthetic.COLUMNS - 1) * synthetic.ROWS + (synthetic.ROWS - 1) * synthetic.COLUMNS + len(faces) // 2
    )
    assert len(mesh_edges(surface, down * [-1, 1], depth)) == 0
