"""The whole path on the real server: a photograph becomes a textured 3D face."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from scipy.spatial import cKDTree

from server.repository import DEFAULT_REPOSITORY
from server.service import Service as RunningService
from tests.service import LEAVES, OUTPUTS, Outputs, Service, beside, file_of, overlap, picture

NARROW_FACE = slice(0, 6706)  # the first vertices of the built-in head


@pytest.fixture(scope="module")
def service(running_service: RunningService) -> Service:
    return Service(running_service.grpc, running_service.triton.grpc)


@pytest.fixture(scope="module")
def answer(service: Service, portrait_bytes: bytes) -> Outputs:
    return service.ask(portrait_bytes)


def parts_of(data: bytes) -> dict[str, Any]:
    """Material -> mesh."""
    meshes = trimesh.load_scene(io.BytesIO(data), file_type="glb", process=False).geometry.values()
    return {mesh.visual.material.name: mesh for mesh in meshes}


def skin_of(data: bytes) -> Any:
    return parts_of(data)["skin"]


# --- the two portraits ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fixture", ["portrait_bytes", "portrait_jpeg"])
def test_a_portrait_becomes_a_textured_face(service: Service, fixture: str, request: pytest.FixtureRequest) -> None:
    photo: bytes = request.getfixturevalue(fixture)
    answer = service.ask(photo)
    width, height = picture(photo).size
    x1, y1, x2, y2, score = answer["face"][:5]
    assert 0 <= x1 < x2 <= width
    assert 0 <= y1 < y2 <= height
    assert score > 0.9
    # The landmarks lie on the face: within its box and a margin of a third.
    margin = (x2 - x1) / 3
    assert (answer["landmarks"] > (x1 - margin, y1 - margin)).all()
    assert (answer["landmarks"] < (x2 + margin, y2 + margin)).all()
    face = answer["vertices_neutral"][NARROW_FACE]
    assert 90 < np.ptp(face[:, 0]) < 220  # a face is some 15 cm wide
    assert np.isfinite(answer["coefficients"]).all()
    assert np.abs(answer["coefficients"]).max() > 0.1, "untrained heads answer zeros"
    assert list(parts_of(answer["mesh"][0])) == ["skin", "eye_left", "eye_right", "teeth", "mouth", "lashes"]
    texture = Image.open(io.BytesIO(answer["texture"][0]))
    assert (texture.format, texture.size, texture.mode) == ("PNG", (512, 512), "RGB")  # the face has 150 pixels
    preview = Image.open(io.BytesIO(answer["preview"][0]))
    assert preview.format == "PNG"
    assert preview.width > preview.height > 600


def test_the_detected_points_and_the_landmarks_agree(answer: Outputs) -> None:
    eyes_and_mouth = answer["face"][5:].reshape(5, 2)[[0, 1, 3, 4]]
    landmarks = answer["landmarks"]
    fitted = np.stack([landmarks[36:42].mean(axis=0), landmarks[42:48].mean(axis=0), landmarks[48], landmarks[54]])
    distances = np.linalg.norm(fitted - eyes_and_mouth, axis=1)
    assert distances.max() < 0.2 * np.linalg.norm(eyes_and_mouth[1] - eyes_and_mouth[0])


def test_the_posed_vertices_project_onto_the_landmarks(answer: Outputs) -> None:
    """Millimetres through the family's camera and the crop's way back are source pixels."""
    points = answer["landmarks_3d"] / 100
    sx, sy, ox, oy = answer["camera"][:4]
    depth = 10 - points[:, 2]
    col = 1015 * points[:, 0] / depth + 112
    row = 223 - (1015 * points[:, 1] / depth + 112)
    np.testing.assert_allclose(np.column_stack([col * sx + ox, row * sy + oy]), answer["landmarks"], atol=0.05)


def test_the_answer_names_the_face_model_of_postprocess(answer: Outputs) -> None:
    (topology,) = DEFAULT_REPOSITORY.glob("postprocess/*/topology.npz")
    with np.load(topology) as file:
        assert int(answer["face_model"][0]) == int(file["fingerprint"].reshape(-1)[0])
        assert len(answer["vertices"]) == file["vertex"].max() + 1


def test_the_same_picture_gives_the_same_answer(service: Service, answer: Outputs, portrait_bytes: bytes) -> None:
    again = service.ask(portrait_bytes)
    for name in OUTPUTS:
        np.testing.assert_array_equal(again[name], answer[name], err_msg=name)


# --- options -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "output"),
    [
        ({"pose": "camera"}, "vertices"),
        ({"expression": "neutral"}, "vertices_neutral"),
        ({"pose": "neutral"}, "vertices_neutral"),
    ],
)
def test_the_skin_is_the_vertices_in_metres(
    service: Service, portrait_bytes: bytes, options: dict[str, Any], output: str
) -> None:
    answer = service.ask(portrait_bytes, outputs=("mesh", output), **options)
    written, vertices = skin_of(answer["mesh"][0]).vertices * 1000, answer[output]
    far = cKDTree(written).query(vertices[NARROW_FACE])[0]
    closed = 12.0 if output == "vertices" else 0.01  # lips that are hardly open are closed
    assert far.max() < closed
    assert np.percentile(far, 60) < 0.01 + 0.5 * (output == "vertices")


def test_the_canonical_pose_is_upright_and_keeps_the_expression(service: Service, portrait_bytes: bytes) -> None:
    choices: tuple[dict[str, Any], ...] = ({}, {"pose": "camera"}, {"expression": "neutral"}, {"pose": "head"})
    meshes = [
        skin_of(service.ask(portrait_bytes, outputs=("mesh",), **choice)["mesh"][0]).vertices for choice in choices
    ]
    head, camera, neutral, old = (vertices - vertices.mean(axis=0) for vertices in meshes)
    u, _, vt = np.linalg.svd(head.T @ camera)
    np.testing.assert_allclose(head @ (u @ vt), camera, atol=1e-4)  # the same shape, turned
    assert np.abs(head - neutral).max() > 1e-4
    np.testing.assert_array_equal(head, old)


def test_a_rig_comes_with_apples_shapes_and_the_face_alone_is_smaller(service: Service, portrait_bytes: bytes) -> None:
    rigged = service.ask(portrait_bytes, outputs=("mesh",), rig="arkit", mesh="face")["mesh"][0]
    size = int.from_bytes(rigged[12:16], "little")
    (mesh,) = json.loads(rigged[20 : 20 + size])["meshes"]
    assert mesh["name"] == mesh["extras"]["mesh"] == "face"
    assert len(mesh["weights"]) == len(mesh["extras"]["targetNames"]) == 52
    assert {len(primitive["targets"]) for primitive in mesh["primitives"]} == {52}
    whole = service.ask(portrait_bytes, outputs=("mesh",), rig="arkit")["mesh"][0]
    assert len(rigged) < len(whole) < 4_000_000


@pytest.mark.parametrize(("format_", "magic"), [("png", b"\x89PNG"), ("jpeg", b"\xff\xd8\xff")])
def test_the_texture_comes_in_the_format_and_size_that_were_asked_for(
    service: Service, portrait_bytes: bytes, format_: str, magic: bytes
) -> None:
    answer = service.ask(portrait_bytes, outputs=("texture", "mesh"), texture_format=format_, texture_size=256)
    assert answer["texture"][0].startswith(magic)
    assert Image.open(io.BytesIO(answer["texture"][0])).size == (256, 256)
    material = skin_of(answer["mesh"][0]).visual.material
    assert material.baseColorTexture.size == (256, 256)
    assert material.baseColorTexture.format == format_.upper()


def test_sharpening_and_white_balance_change_the_texture_only(service: Service, portrait_bytes: bytes) -> None:
    pixels = np.asarray(picture(portrait_bytes)) * np.array([0.8, 0.95, 1.0])
    blue = file_of(Image.fromarray(pixels.astype(np.uint8)))  # as in the shade
    plain, sharp, balanced = (
        service.ask(blue, outputs=("texture", "vertices"), **options)
        for options in ({"sharpen": 0}, {"sharpen": "1.0"}, {"sharpen": 0, "white_balance": True})
    )
    for other in (sharp, balanced):
        np.testing.assert_array_equal(other["vertices"], plain["vertices"])
        assert other["texture"][0] != plain["texture"][0]


# --- only what is asked for ----------------------------------------------------------------------------------------

STEPS = {
    **dict.fromkeys(("face", "camera", "warnings"), 3),
    **dict.fromkeys(("coefficients", "vertices", "vertices_neutral"), 4),
    **dict.fromkeys(("landmarks", "landmarks_3d", "face_model", "certainty"), 4),
    **dict.fromkeys(("mesh", "visibility", "texture", "preview", "texture_warnings"), 7),
}
FILES_WRITTEN = {"mesh": 1, "texture_warnings": 1, "visibility": 2, "texture": 3, "preview": 4}


@pytest.mark.parametrize("output", OUTPUTS)
def test_an_output_asked_for_alone_runs_only_the_steps_it_needs(
    service: Service, portrait_bytes: bytes, output: str
) -> None:
    before = service.counts()
    service.ask(portrait_bytes, outputs=(output,))
    after = service.counts()
    runs = [after[leaf][0] - before[leaf][0] for leaf in LEAVES]
    assert runs[:6] == [1 if index < STEPS[output] else 0 for index in range(6)]
    assert runs[6] == FILES_WRITTEN.get(output, 0)


def test_detect_runs_two_steps_and_reconstruct_leaves_out_the_detector(service: Service, portrait_bytes: bytes) -> None:
    before = service.counts()
    (face,) = service.detect(portrait_bytes)
    middle = service.counts()
    service.ask(portrait_bytes, outputs=("coefficients",), model="reconstruct", choice=face)
    after = service.counts()
    assert [middle[leaf][0] - before[leaf][0] for leaf in LEAVES] == [1, 1, 0, 0, 0, 0, 0]
    assert [after[leaf][0] - middle[leaf][0] for leaf in LEAVES] == [1, 0, 1, 1, 0, 0, 0]


# --- two faces -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def couple(portrait_bytes: bytes, portrait_jpeg: bytes) -> bytes:
    return file_of(beside(picture(portrait_bytes), picture(portrait_jpeg)))


def test_each_of_two_faces_can_be_reconstructed(
    service: Service, answer: Outputs, couple: bytes, portrait_jpeg: bytes
) -> None:
    faces = service.detect(couple)
    faces = faces[faces[:, 4] > 0.7]
    assert len(faces) == 2
    left, right = sorted(faces, key=lambda face: float(face[0]))
    one = service.ask(couple, outputs=("landmarks", "face"), model="reconstruct", choice=left)
    two = service.ask(couple, outputs=("landmarks", "face"), model="reconstruct", choice=right)
    np.testing.assert_array_equal(one["face"], left)
    assert one["landmarks"][:, 0].max() < 512 < two["landmarks"][:, 0].min()
    alone = service.ask(portrait_jpeg, outputs=("landmarks",))
    size = right[2] - right[0]
    assert np.abs(two["landmarks"] - (512, 0) - alone["landmarks"]).mean() < 0.03 * size


def test_a_face_can_be_chosen_by_index_and_by_box(service: Service, couple: bytes) -> None:
    faces = service.detect(couple)
    second = service.ask(couple, outputs=("face",), face=1)["face"]
    np.testing.assert_array_equal(second, faces[1])
    box = ",".join(str(float(value)) for value in faces[1][:4])
    np.testing.assert_array_equal(service.ask(couple, outputs=("face",), box=box)["face"], faces[1])


# --- all kinds of files --------------------------------------------------------------------------------------------


def kinds(photo: Image.Image) -> dict[str, bytes]:
    grey = np.asarray(photo.convert("L"))
    alpha = photo.copy()
    alpha.putalpha(Image.new("L", photo.size, 255))
    return {
        "jpeg": file_of(photo, "JPEG", quality=92),
        "webp": file_of(photo, "WEBP", quality=92),
        "bmp": file_of(photo, "BMP"),
        "tiff": file_of(photo, "TIFF"),
        "grey": file_of(photo.convert("L")),
        "cmyk": file_of(photo.convert("CMYK"), "JPEG", quality=92),
        "16-bit": file_of(Image.fromarray(grey.astype(np.uint16) * 257)),
        "alpha": file_of(alpha),
        "palette": file_of(photo.convert("P", palette=Image.Palette.ADAPTIVE)),
    }


@pytest.mark.parametrize("kind", ["jpeg", "webp", "bmp", "tiff", "grey", "cmyk", "16-bit", "alpha", "palette"])
def test_any_kind_of_picture_shows_the_same_face(
    service: Service, answer: Outputs, portrait_bytes: bytes, kind: str
) -> None:
    other = service.ask(kinds(picture(portrait_bytes))[kind], outputs=("face", "landmarks"))
    assert overlap(other["face"], answer["face"]) > 0.85
    size = answer["face"][2] - answer["face"][0]
    assert np.abs(other["landmarks"] - answer["landmarks"]).mean() < 0.05 * size


def test_a_telephone_s_12_megapixel_picture_that_lies_on_its_side_is_put_upright(
    service: Service, portrait_jpeg: bytes
) -> None:
    """The coordinates are those of the upright picture at full size."""
    photo = picture(portrait_jpeg)
    scale = 4032 / photo.height
    upright = photo.resize((round(photo.width * scale / 8) * 8, 4032), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x0112] = 6
    lying = file_of(upright.transpose(Image.Transpose.ROTATE_90), "JPEG", quality=90, exif=exif)
    large, small = service.ask(lying), service.ask(portrait_jpeg)
    size = large["face"][2] - large["face"][0]
    assert overlap(large["face"] / scale, small["face"] / 1.0) > 0.85
    assert np.abs(large["landmarks"] - small["landmarks"] * scale).mean() < 0.05 * size


# --- warnings ------------------------------------------------------------------------------------------------------


def warned(service: Service, photo: Image.Image, **parameters: Any) -> str:
    sentences = service.ask(file_of(photo), outputs=("warnings",), **parameters)["warnings"]
    return " ".join(sentence.decode() for sentence in sentences)


def test_a_good_portrait_comes_without_warnings(service: Service, portrait_jpeg: bytes) -> None:
    assert warned(service, picture(portrait_jpeg)) == ""


def test_doubtful_pictures_come_with_a_sentence(service: Service, portrait_jpeg: bytes) -> None:
    photo = picture(portrait_jpeg)
    assert "pixels wide" in warned(service, photo.resize((200, 234)))
    assert "dark" in warned(service, photo.point(lambda value: value * 0.12))
    blurred = photo.resize((48, 56), Image.Resampling.BOX).resize(photo.size, Image.Resampling.BICUBIC)
    assert "blurred" in warned(service, blurred, score_threshold="0.5")


def test_a_face_at_the_border_is_said_to_be_cut(service: Service, portrait_jpeg: bytes) -> None:
    photo = picture(portrait_jpeg)
    face: NDArray[np.float32] = service.detect(portrait_jpeg)[0]
    cut = photo.crop((0, 0, round(float(face[2]) - 6), photo.height))  # the ear on the right is gone
    assert "cut by the border" in warned(service, cut, score_threshold="0.5")


# --- several pictures in one request -------------------------------------------------------------------------------


def test_pictures_of_different_sizes_may_share_a_request(
    service: Service, answer: Outputs, portrait_bytes: bytes, portrait_jpeg: bytes
) -> None:
    outputs = ("face", "coefficients", "mesh", "warnings")
    both = service.ask(portrait_bytes, portrait_jpeg, outputs=outputs)
    alone = service.ask(portrait_jpeg, outputs=outputs)
    for row, single in enumerate((answer, alone)):
        np.testing.assert_allclose(both["face"][row], single["face"], atol=0.05)
        np.testing.assert_allclose(both["coefficients"][row], single["coefficients"], atol=0.05)
        said = [sentence for sentence in both["warnings"][row] if sentence]
        assert said == list(single["warnings"])


def test_http_and_grpc_give_the_same_answer(
    running_service: RunningService, answer: Outputs, portrait_bytes: bytes
) -> None:
    http = pytest.importorskip("tritonclient.http")
    client = http.InferenceServerClient(running_service.http)
    image = http.InferInput("image", [1, 1], "BYTES")
    image.set_data_from_numpy(np.array([[portrait_bytes]], np.object_))
    result = client.infer("face3d", [image], outputs=[http.InferRequestedOutput(name) for name in OUTPUTS])
    client.close()
    for name in OUTPUTS:
        np.testing.assert_array_equal(result.as_numpy(name)[0], answer[name], err_msg=name)


def test_portraits_of_all_kinds_of_people_are_found_and_served(service: Service, data_dir: Path) -> None:
    zipped = data_dir / "portraits.zip"
    if not zipped.is_file():
        pytest.skip("no portraits.zip in the folder of evaluation pictures")
    import zipfile

    with zipfile.ZipFile(zipped) as archive:
        photos = [archive.read(name) for name in archive.namelist() if name.lower().endswith((".jpg", ".png"))]
    assert len(photos) >= 10
    for photo in photos[::3]:
        answer = service.ask(photo, outputs=("face", "landmarks", "mesh"))
        assert answer["face"][4] > 0.9
        assert len(skin_of(answer["mesh"][0]).faces) > 1000


def test_a_blurred_picture_is_less_sure(service: Service, portrait_bytes: bytes) -> None:
    picture = Image.open(io.BytesIO(portrait_bytes)).convert("RGB")
    buffer = io.BytesIO()
    picture.filter(ImageFilter.GaussianBlur(4)).save(buffer, "JPEG", quality=60)
    sharp, blurred = (
        service.ask(data, outputs=("certainty",))["certainty"] for data in (portrait_bytes, buffer.getvalue())
    )
    assert (sharp > 0).all()
    assert sharp[3] > blurred[3]


def test_likeness_changes_the_files_and_no_measurement(service: Service, portrait_bytes: bytes) -> None:
    plain, more = (
        service.ask(portrait_bytes, outputs=("mesh", "vertices"), likeness=likeness) for likeness in ("1.0", "1.6")
    )
    assert plain["mesh"][0] != more["mesh"][0]
    np.testing.assert_array_equal(plain["vertices"], more["vertices"])
