"""The client against the real service: the real models on the real server, portraits in the public domain."""

from __future__ import annotations

import asyncio
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import trimesh
from face3d_client import (
    AsyncFace3DClient,
    BadImage,
    BadOption,
    Face3DClient,
    ImageTooLarge,
    NoFace,
    NoSuchFace,
    Output,
    Reconstruction,
)
from face3d_client._mesh.expressions import Expressions
from face3d_client._ui.studio import Studio
from PIL import Image
from scipy.spatial import cKDTree

from server.service import Service

WEIGHTS = Path(__file__).resolve().parents[2] / "weights"
COMMAND = [sys.executable, "-m", "face3d_client"]


@pytest.fixture(scope="module")
def service(server: Service) -> Iterator[Face3DClient]:
    with Face3DClient(server.grpc) as client:
        yield client


@pytest.fixture(scope="module")
def portrait(service: Face3DClient, portrait_bytes: bytes) -> Reconstruction:
    return service.reconstruct(portrait_bytes, outputs=get_args(Output))


@pytest.fixture(scope="module")
def pair(portrait_bytes: bytes, portrait_jpeg: bytes) -> bytes:
    """Both portraits side by side."""
    left, right = (Image.open(io.BytesIO(data)).convert("RGB") for data in (portrait_bytes, portrait_jpeg))
    both = Image.new("RGB", (left.width + right.width, max(left.height, right.height)), (120, 120, 120))
    both.paste(left, (0, 0))
    both.paste(right, (left.width, 0))
    buffer = io.BytesIO()
    both.save(buffer, "PNG")
    return buffer.getvalue()


def grey(width: int = 300, height: int = 200) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (128, 128, 128)).save(buffer, "PNG")
    return buffer.getvalue()


def apart(places: Any, vertices: Any) -> float:
    """How far vertices lie from a mesh's places, mm: the sixtieth percentile, as eyes, teeth and lips are placed."""
    return float(np.percentile(cKDTree(places).query(vertices)[0], 60))


def test_every_field_of_a_portrait_has_its_shape_and_unit(portrait: Reconstruction) -> None:
    assert portrait.vertices.shape == portrait.vertices_neutral.shape == (24_359, 3)
    places = len(portrait.mesh.vertices)
    assert places > len(portrait.vertices), "vertices on seams have several places"
    assert portrait.uv.shape == (places, 2)
    assert portrait.faces.max() == places - 1
    assert portrait.landmarks.shape == (68, 2)
    assert portrait.landmarks_3d.shape == (68, 3)
    assert portrait.coefficients.values.shape == (257,)
    assert portrait.visibility.shape == (1024, 1024)
    assert portrait.texture.size == (512, 512)  # the face has 150 pixels
    # A head with its shoulders is about 30 cm wide: millimetres, not decimetres or metres.
    assert 200 < float(np.ptp(portrait.vertices_neutral[:, 0])) < 400
    assert 200 < portrait.mesh.extents[0] < 400
    assert portrait.score > 0.9
    assert portrait.preview.width > 200


def test_landmarks_are_where_the_camera_projects_them(portrait: Reconstruction) -> None:
    assert portrait.camera.project(portrait.landmarks_3d) == pytest.approx(portrait.landmarks, abs=0.1)


def test_the_mesh_lies_on_the_face_in_the_photograph(portrait: Reconstruction, portrait_bytes: bytes) -> None:
    middle = portrait.camera.project(portrait.vertices).mean(0)
    x1, y1, x2, y2 = portrait.box
    assert x1 < middle[0] < x2
    assert y1 < middle[1] < y2
    eyes = portrait.landmarks[36:48].mean(0)
    assert np.linalg.norm(eyes - portrait.points[:2].mean(0)) < 0.15 * portrait.detection.size
    drawn = portrait.overlay(portrait_bytes, box=True)
    with Image.open(io.BytesIO(portrait_bytes)) as photograph:
        assert drawn.size == photograph.size


def test_triangles_face_outward_and_the_face_looks_along_z(
    service: Face3DClient, portrait: Reconstruction, portrait_bytes: bytes
) -> None:
    assert portrait.mesh.volume > 1e6  # mm3; negative where triangles face inward
    nose, ears = portrait.landmarks_3d[30], portrait.landmarks_3d[[0, 16]]
    assert nose[2] > ears[:, 2].max()
    eyes, chin = portrait.landmarks_3d[36:48], portrait.landmarks_3d[8]
    assert eyes[:, 1].min() > chin[1]
    neutral = service.reconstruct(portrait_bytes, expression="neutral", outputs=["mesh"])
    assert apart(neutral.neutral_mesh.vertices, portrait.vertices_neutral) < 0.01


@pytest.mark.parametrize("suffix", [".glb", ".obj", ".ply", ".stl"])
def test_every_format_opens_with_its_triangles(portrait: Reconstruction, tmp_path: Path, suffix: str) -> None:
    written = portrait.save(tmp_path / f"face{suffix}")
    mesh: Any = trimesh.load(written[-1], process=False, force="mesh")
    if suffix in (".glb", ".obj"):
        assert len(mesh.faces) == len(portrait.faces)
    else:  # without lashes, or the skin alone, closed
        assert 20_000 < len(mesh.faces) < len(portrait.faces)
    scale = 1000 if suffix in (".glb", ".obj") else 1
    assert mesh.extents * scale == pytest.approx(portrait.mesh.extents, rel=1e-3)
    if suffix in (".glb", ".obj"):
        assert mesh.visual.uv.shape == (len(mesh.vertices), 2)


def test_an_obj_shows_the_photograph_where_it_was_taken_from(
    service: Face3DClient, portrait_jpeg: bytes, tmp_path: Path
) -> None:
    result = service.reconstruct(portrait_jpeg, sharpen=0.0)
    scene: Any = trimesh.load(result.save(tmp_path / "face.obj", pose="camera")[-1], process=False)
    (mesh,) = (part for name, part in scene.geometry.items() if "skin" in name)
    seen_at = result.camera.project(mesh.vertices * 1000)
    low, high = result.landmarks[17:].min(0), result.landmarks[17:].max(0)  # from the brows to the lips: bare skin
    # +z is toward the camera, metres are metres, or this hits nothing.
    front = (mesh.vertex_normals[:, 2] > 0.7) & ((seen_at > low) & (seen_at < high)).all(1)
    places = np.rint(seen_at[front]).astype(int)
    photograph = np.asarray(Image.open(io.BytesIO(portrait_jpeg)).convert("RGB"), float)
    texture = np.asarray(mesh.visual.material.image.convert("RGB"), float)
    u, v = mesh.visual.uv[front].T * 0.999

    def difference(rows: Any) -> float:
        """Mean distance of the colours on the mesh from those of the photograph, 0..255."""
        seen = texture[(rows * len(texture)).astype(int), (u * texture.shape[1]).astype(int)]
        return float(np.abs(seen - photograph[places[:, 1], places[:, 0]]).mean())

    assert difference(1 - v - 1e-6) < 30
    assert difference(1 - v - 1e-6) < 0.5 * difference(v)


def test_the_sliders_start_where_the_photograph_left_the_face(service: Face3DClient, portrait_bytes: bytes) -> None:
    portrait = service.reconstruct(portrait_bytes, rig="arkit")
    studio = Studio(service, Expressions.load(WEIGHTS / "face_model.npz"))
    as_photographed = studio.moved(portrait, 1.0, {})
    moved = np.abs(as_photographed.vertices - portrait.mesh.vertices)
    assert moved.mean() < 0.1  # mm; the server's sums are rounded otherwise
    assert moved.max() < 1
    # What no shape of the rig can say of the photographed expression stays in its base.
    assert apart(studio.moved(portrait, 0.0, {}).vertices, portrait.vertices_neutral) < 1
    opened = studio.moved(portrait, 1.0, {"Open mouth": 1.0}).vertices - as_photographed.vertices
    assert opened[:, 1].min() < -5  # mm: the chin goes down
    studio.close()


@pytest.mark.parametrize("output", get_args(Output))
def test_each_output_can_be_asked_for_alone(service: Face3DClient, portrait_bytes: bytes, output: Output) -> None:
    assert list(service.reconstruct(portrait_bytes, outputs=[output]).raw) == [output]


def test_four_transports_give_the_same_face(server: Service, portrait: Reconstruction, portrait_bytes: bytes) -> None:
    async def ask(url: str) -> Reconstruction:
        async with AsyncFace3DClient(url) as client:
            return await client.reconstruct(portrait_bytes)

    with Face3DClient(f"http://{server.http}") as client:
        results = [client.reconstruct(portrait_bytes)]
    results += [asyncio.run(ask(url)) for url in (server.grpc, f"http://{server.http}")]
    for result in results:
        assert result.vertices == pytest.approx(portrait.vertices, abs=1e-2)
        assert np.array_equal(result.faces, portrait.faces)


def test_an_array_is_the_same_picture_as_its_file(
    service: Face3DClient, portrait: Reconstruction, portrait_bytes: bytes
) -> None:
    with Image.open(io.BytesIO(portrait_bytes)) as image:
        pixels = np.asarray(image.convert("RGB"))
    assert service.reconstruct(pixels, outputs=["landmarks"]).landmarks == pytest.approx(portrait.landmarks, abs=0.05)


def test_a_face_that_was_detected_is_the_face_that_is_reconstructed(
    service: Face3DClient, portrait: Reconstruction, portrait_bytes: bytes
) -> None:
    found = service.detect(portrait_bytes)
    result = service.reconstruct(portrait_bytes, face=found[0], outputs=["vertices", "face"])
    assert result.box == pytest.approx(found[0].box)
    assert result.vertices == pytest.approx(portrait.vertices, abs=0.05)


def test_every_face_of_a_group_is_made_and_can_be_chosen(service: Face3DClient, pair: bytes) -> None:
    everyone = service.reconstruct_all(pair, min_size=60, outputs=["face", "landmarks"])
    assert len(everyone) == 2
    assert {result.box[0] < 512 for result in everyone} == {True, False}
    for index, expected in enumerate(everyone):
        assert service.reconstruct(pair, face=index, outputs=["face"]).box == pytest.approx(expected.box)
        assert service.reconstruct(pair, box=expected.box, outputs=["face"]).box == pytest.approx(expected.box)
    with pytest.raises(NoSuchFace):
        service.reconstruct(pair, face=7)
    with pytest.raises(NoSuchFace):
        service.reconstruct(pair, box=[0, 0, 8, 8])


def test_what_cannot_be_done_is_said_by_class(service: Face3DClient, portrait_bytes: bytes) -> None:
    with pytest.raises(NoFace) as caught:
        service.reconstruct(grey())
    assert "[" not in caught.value.message
    assert service.detect(grey()) == []
    assert service.reconstruct_all(grey()) == []
    for broken in (b"this is no picture", portrait_bytes[:5000]):
        with pytest.raises(BadImage):
            service.reconstruct(broken)
    with pytest.raises(BadOption):
        service.reconstruct(portrait_bytes, sharpen=7.0)
    with pytest.raises(BadOption):
        service.reconstruct(portrait_bytes, texture_size=5)
    header = bytearray(grey())
    header[16:24] = (100_000).to_bytes(4, "big") * 2  # a PNG that claims 100,000 x 100,000 pixels
    with pytest.raises((ImageTooLarge, BadImage)):
        service.reconstruct(bytes(header))


def test_options_change_what_they_say(service: Face3DClient, portrait: Reconstruction, portrait_bytes: bytes) -> None:
    small = service.reconstruct(portrait_bytes, texture_size=128, pose="neutral", outputs=["mesh", "vertices_neutral"])
    assert small.texture.size == (128, 128)
    # Neutral is neutral whether it comes as GLB or as numbers.
    assert apart(small.mesh.vertices, small.vertices_neutral) < 0.01
    posed = service.reconstruct(portrait_bytes, pose="camera", outputs=["mesh", "vertices"])
    assert apart(posed.mesh.vertices, posed.vertices) < 0.5  # lips that are hardly open are closed


def test_sixteen_threads_get_sixteen_right_answers(
    service: Face3DClient, portrait_bytes: bytes, portrait_jpeg: bytes, portrait: Reconstruction
) -> None:
    other = service.reconstruct(portrait_jpeg, outputs=["landmarks"]).landmarks
    pictures = [portrait_bytes, portrait_jpeg] * 8
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda data: service.reconstruct(data, outputs=["landmarks"]).landmarks, pictures))
    for index, landmarks in enumerate(found):
        assert landmarks == pytest.approx(other if index % 2 else portrait.landmarks, abs=0.05)


def test_the_command_leaves_face_texture_and_preview(server: Service, portrait_jpeg: bytes, tmp_path: Path) -> None:
    photo = tmp_path / "grace.jpg"
    photo.write_bytes(portrait_jpeg)
    done = subprocess.run(
        [*COMMAND, "reconstruct", photo, "-o", tmp_path / "out", "--url", server.grpc, "--overlay", "--json"],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "face.glb", "face_texture.png", "preview.png", "overlay.png",
    }  # fmt: skip
    with Image.open(tmp_path / "out" / "face_texture.png") as texture:
        assert (texture.format, texture.size) == ("PNG", (512, 512))
    assert json.loads(done.stdout)["faces"][0]["score"] > 0.9


def test_a_picture_without_a_face_has_status_2_and_one_sentence(server: Service, tmp_path: Path) -> None:
    (tmp_path / "grey.png").write_bytes(grey())
    for command in (["reconstruct", tmp_path / "grey.png", "-o", tmp_path / "out"], ["detect", tmp_path / "grey.png"]):
        done = subprocess.run(
            [*COMMAND, *map(str, command), "--url", server.grpc],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 2
        assert done.stderr.startswith("face3d: NoFace: ")
        assert done.stderr.count("\n") == 1
