"""GLB, OBJ, PLY, STL, NPZ: read back by trimesh; axis, units and the direction of v."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from face3d_client import Reconstruction
from face3d_client._mesh.formats import write_whole
from face3d_client._protocol.codec import parse_reconstruct
from PIL import Image

from tests.client import synthetic


def load(path: Path) -> Any:
    return trimesh.load(path, process=False, force="mesh")


def colour_at(mesh: Any, vertex: int) -> tuple[int, int]:
    """Red (grows to the right) and green (grows downward) of the texture at a vertex, through the file's own uv."""
    image = np.asarray(
        mesh.visual.material.image if hasattr(mesh.visual.material, "image") else mesh.visual.material.baseColorTexture
    )
    u, v = mesh.visual.uv[vertex]
    size = synthetic.TEXTURE_SIZE
    column, row = (min(size - 1, int(value * size)) for value in (u, 1 - v))
    return int(image[row, column, 0]), int(image[row, column, 1])


def check_orientation(mesh: Any) -> None:
    """The top left vertex of the patch shows the top left of the texture, the bottom right one the bottom right."""
    top_left = int(np.argmax(mesh.vertices @ [-1, 1, 0]))
    bottom_right = int(np.argmax(mesh.vertices @ [1, -1, 0]))
    assert colour_at(mesh, top_left) == (0, 0)
    assert colour_at(mesh, bottom_right) == (252, 252)
    # Toward the viewer is +z, and outside is where the triangles turn counter-clockwise.
    assert mesh.face_normals[:, 2].mean() > 0.5


def test_glb_is_written_as_the_server_made_it(result: Reconstruction, tmp_path: Path) -> None:
    assert result.save(tmp_path / "face.glb") == [tmp_path / "face.glb"]
    assert (tmp_path / "face.glb").read_bytes() == result.glb
    mesh = load(tmp_path / "face.glb")
    assert mesh.extents == pytest.approx([0.16, 0.2, 0.06], abs=1e-4)
    check_orientation(mesh)


def test_glb_of_another_pose_keeps_texture_and_order(result: Reconstruction, tmp_path: Path) -> None:
    result.save(tmp_path / "neutral.glb", pose="neutral")
    mesh = load(tmp_path / "neutral.glb")
    assert mesh.vertices * 1000 == pytest.approx(result.vertices_neutral, abs=1e-3)
    assert np.array_equal(mesh.faces, result.faces)
    check_orientation(mesh)


def test_obj_opens_with_its_texture_in_metres(result: Reconstruction, tmp_path: Path) -> None:
    written = result.save(tmp_path / "the face \u00e9.obj")
    texture, material, obj = (path.name for path in written)
    assert obj == "the face \u00e9.obj"
    safe = material.removesuffix(".mtl")
    assert texture == f"{safe}_texture.png"
    assert safe.startswith("the_face_\u00e9-")
    assert not any(
        " " in line.split(" ", 1)[1] for line in written[-1].read_text().splitlines() if line[:2] in "o g us mt"
    )
    mesh = load(written[-1])
    assert mesh.extents == pytest.approx([0.16, 0.2, 0.06], abs=1e-4)
    assert len(mesh.faces) == len(result.faces)
    check_orientation(mesh)


def test_obj_says_its_axes_and_unit(result: Reconstruction, tmp_path: Path) -> None:
    result.save(tmp_path / "face.obj", units="mm")
    text = (tmp_path / "face.obj").read_text()
    assert text.startswith("# face3d: y up, facing +z, unit mm\nmtllib face.mtl\no face\n")
    assert load(tmp_path / "face.obj").extents == pytest.approx([160, 200, 60], abs=0.1)
    assert "map_Kd face_texture.png" in (tmp_path / "face.mtl").read_text()
    assert text.count("\nv ") == text.count("\nvt ") == text.count("\nvn ") == len(result.uv)


def test_obj_of_a_jpeg_texture_still_has_a_png_beside_it(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    synthetic.texture().save(buffer, "JPEG", quality=95)
    vertices, faces, uv = synthetic.grid()
    from face3d_client._mesh.formats import obj_files
    from face3d_client._mesh.surface import Surface

    files = obj_files(Surface.single(vertices, faces, uv, buffer.getvalue()), "face", "face.obj")
    with Image.open(io.BytesIO(files["face_texture.png"])) as image:
        assert image.format == "PNG"


def test_ply_has_normals_uv_and_colours_in_millimetres(result: Reconstruction, tmp_path: Path) -> None:
    result.save(tmp_path / "face.ply")
    mesh = load(tmp_path / "face.ply")
    assert mesh.vertices == pytest.approx(result.mesh.vertices, abs=1e-3)
    assert np.array_equal(mesh.faces, result.faces)
    assert b"unit mm" in (tmp_path / "face.ply").read_bytes()[:200]
    top_left = int(np.argmax(mesh.vertices @ [-1, 1, 0]))
    bottom_right = int(np.argmax(mesh.vertices @ [1, -1, 0]))
    raw = mesh.metadata["_ply_raw"]["vertex"]["data"]
    colours = np.stack([raw[name] for name in ("red", "green", "blue")], -1).reshape(-1, 3)
    assert colours[top_left].tolist() == [0, 0, 0]
    assert colours[bottom_right].tolist() == [252, 252, 0]
    assert raw["t"].max() == pytest.approx(1)
    assert (raw["nz"] > 0).all()


def test_stl_is_millimetres_with_outward_normals(result: Reconstruction, tmp_path: Path) -> None:
    result.save(tmp_path / "face.stl", pose="camera")
    mesh = load(tmp_path / "face.stl")
    assert mesh.extents == pytest.approx([160, 200, 60], abs=0.01)
    assert len(mesh.faces) == len(result.faces)
    assert (mesh.face_normals[:, 2] > 0).all()
    assert mesh.bounds == pytest.approx(np.array([result.vertices.min(0), result.vertices.max(0)]), abs=1e-3)


def test_npz_holds_every_number_and_nothing_pickled(result: Reconstruction, tmp_path: Path) -> None:
    result.save(tmp_path / "face.npz")
    with np.load(tmp_path / "face.npz", allow_pickle=False) as arrays:
        assert set(arrays) == {
            "vertices", "vertices_neutral", "landmarks", "landmarks_3d", "coefficients", "visibility", "camera",
            "certainty", "face_model", "box", "score", "points", "camera_matrix", "faces", "uv", "texture", "warnings",
        }  # fmt: skip
        assert arrays["coefficients"].tolist() == list(range(257))
        assert arrays["texture"].shape == (64, 64, 3)
        assert arrays["faces"].shape == result.faces.shape
        assert int(arrays["face_model"][0]) == -42


def test_npz_of_coefficients_alone_holds_just_those(tmp_path: Path) -> None:
    parse_reconstruct({"coefficients": synthetic.reply()["coefficients"]}).save(tmp_path / "few.npz")
    with np.load(tmp_path / "few.npz", allow_pickle=False) as arrays:
        assert list(arrays) == ["coefficients"]


def test_another_suffix_is_refused_by_name(result: Reconstruction, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"one of \.glb, \.obj, \.ply, \.stl, \.usdz, \.npz"):
        result.save(tmp_path / "face.fbx")
    assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_finished_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "face.glb").mkdir()
    with pytest.raises(OSError, match=r"face\.glb"):
        write_whole(tmp_path / "face.glb", b"content")
    assert [path.name for path in tmp_path.iterdir()] == ["face.glb"]


def test_files_get_the_rights_that_any_new_file_has(tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"")
    assert write_whole(tmp_path / "face.bin", b"x").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_folders_are_made_and_files_replaced(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b" / "face.bin"
    write_whole(target, b"old")
    assert write_whole(target, b"new").read_bytes() == b"new"
    assert [path.name for path in target.parent.iterdir()] == ["face.bin"]
