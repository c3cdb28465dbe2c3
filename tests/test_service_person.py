"""`person` on the real server: several photographs of one person become one head."""

from __future__ import annotations

import asyncio
import io
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
import tritonclient.grpc as triton
from face3d_client import AsyncFace3DClient, BadOption, DifferentPeople, Face3DClient, NoFace
from face3d_client.cli import main
from numpy.typing import NDArray
from PIL import Image, ImageEnhance
from tritonclient.utils import InferenceServerException

from server.service import Service as RunningService
from tests.service import Outputs, Refusal, Service, file_of, picture

NUMBERS = ("face", "camera", "coefficients", "vertices", "vertices_neutral", "landmarks", "weights", "reference")


@pytest.fixture(scope="module")
def service(running_service: RunningService) -> Service:
    return Service(running_service.grpc, running_service.triton.grpc)


@pytest.fixture(scope="module")
def photographs(portrait_bytes: bytes) -> list[bytes]:
    """Three photographs of one person: of other sizes, one mirrored, one in less light."""
    portrait = picture(portrait_bytes)
    mirrored = portrait.transpose(Image.Transpose.FLIP_LEFT_RIGHT).resize((700, 700), Image.Resampling.BICUBIC)
    dark = ImageEnhance.Brightness(portrait.crop((60, 0, 420, 330))).enhance(0.7)
    return [portrait_bytes, file_of(mirrored, "JPEG", quality=92), file_of(dark)]


def ask(address: str, photos: list[bytes], outputs: tuple[str, ...], **parameters: Any) -> Outputs:
    client = triton.InferenceServerClient(address)
    images = triton.InferInput("images", [len(photos), 1], "BYTES")
    images.set_data_from_numpy(np.array([[photo] for photo in photos], np.object_))
    asked = [triton.InferRequestedOutput(name) for name in outputs]
    try:
        answer = client.infer("person", [images], outputs=asked, parameters=parameters or None, client_timeout=120)
    except InferenceServerException as error:
        raise Refusal(str(error.status()).removeprefix("StatusCode."), error.message()) from None
    finally:
        client.close()
    return {name: answer.as_numpy(name) for name in outputs}


def without_face() -> bytes:
    return file_of(Image.new("RGB", (300, 300), (40, 90, 160)))


def test_three_photographs_become_one_identity_with_three_poses(
    running_service: RunningService, service: Service, photographs: list[bytes]
) -> None:
    answer = ask(running_service.grpc, photographs, NUMBERS)
    coefficients = answer["coefficients"]
    assert coefficients.shape == (3, 257)
    np.testing.assert_array_equal(coefficients[:, :80], np.repeat(coefficients[:1, :80], 3, 0))
    alone = [service.ask(photo, outputs=("face", "camera", "coefficients", "landmarks")) for photo in photographs]
    for k, one in enumerate(alone):
        np.testing.assert_allclose(answer["face"][k], one["face"], atol=0.05)
        np.testing.assert_allclose(answer["camera"][k], one["camera"], atol=0.05)
        np.testing.assert_allclose(coefficients[k, 80:144], one["coefficients"][80:144], atol=0.05)
        np.testing.assert_allclose(coefficients[k, 224:227], one["coefficients"][224:227], atol=0.02)
        unit = np.linalg.norm(one["landmarks"][36] - one["landmarks"][45])
        assert np.abs(answer["landmarks"][k] - one["landmarks"]).mean() < 0.03 * unit
    weights = answer["weights"]
    assert weights.sum() == pytest.approx(1, abs=1e-5)
    mean = np.sum([weight * one["coefficients"][:80] for weight, one in zip(weights, alone, strict=True)], axis=0)
    np.testing.assert_allclose(coefficients[0, :80], mean, atol=0.06)
    assert 0 <= answer["reference"][0] < 3
    assert answer["vertices_neutral"].shape == (1, *answer["vertices"].shape[1:])


def test_one_photograph_is_a_face_as_face3d_makes_it(
    running_service: RunningService, service: Service, portrait_bytes: bytes
) -> None:
    names = ("coefficients", "vertices_neutral", "landmarks", "landmarks_3d", "visibility", "texture")
    one = service.ask(portrait_bytes, outputs=names)
    person = ask(running_service.grpc, [portrait_bytes], names)
    np.testing.assert_allclose(person["coefficients"][0], one["coefficients"], atol=0.05)
    np.testing.assert_allclose(person["vertices_neutral"][0], one["vertices_neutral"], atol=0.3)
    eyes = np.linalg.norm(one["landmarks"][36] - one["landmarks"][45])
    assert np.abs(person["landmarks"][0] - one["landmarks"]).mean() < 0.03 * eyes
    np.testing.assert_array_equal(person["visibility"][0], one["visibility"])
    textures = [np.asarray(picture(data)).astype(int) for data in (person["texture"][0, 0], one["texture"][0])]
    # One photograph is known to have nothing to sharpen outside of the face; of several nobody knows.
    assert np.abs(textures[0] - textures[1]).max() <= 5


def test_the_files_are_those_of_one_head(running_service: RunningService, photographs: list[bytes]) -> None:
    answer = ask(running_service.grpc, photographs, ("mesh", "texture", "preview", "visibility"), rig="arkit")
    assert {name: array.shape[0] for name, array in answer.items()} == dict.fromkeys(answer, 1)
    scene: Any = trimesh.load(io.BytesIO(answer["mesh"][0, 0]), file_type="glb")
    assert sum(len(part.vertices) for part in scene.geometry.values()) > 20_000
    assert picture(answer["texture"][0, 0]).size == (512, 512)  # no photograph has pixels for more
    singles = [ask(running_service.grpc, [photo], ("visibility",))["visibility"] for photo in photographs]
    assert (answer["visibility"] >= np.max(singles, axis=0)).all()  # what is seen under a flat angle comes in addition


def test_the_reference_can_be_chosen_and_must_be_there(
    running_service: RunningService, photographs: list[bytes]
) -> None:
    assert ask(running_service.grpc, photographs, ("reference",), reference=2)["reference"].tolist() == [2]
    with pytest.raises(Refusal) as refusal:
        ask(running_service.grpc, photographs, ("reference",), reference=3)
    assert refusal.value.tag == "BadOption"


def test_different_people_are_refused_before_anything_is_computed(
    running_service: RunningService, service: Service, photographs: list[bytes], portrait_jpeg: bytes
) -> None:
    before = service.counts()["regressor"]
    with pytest.raises(Refusal, match="row 1 of the 4 in this request") as refusal:
        ask(running_service.grpc, [photographs[0], portrait_jpeg, *photographs[1:]], ("mesh",))
    assert refusal.value.tag == "DifferentPeople"
    with pytest.raises(Refusal) as refusal:
        ask(running_service.grpc, [photographs[0], portrait_jpeg], ("mesh",))
    assert refusal.value.tag == "DifferentPeople"
    assert service.counts()["regressor"] == before
    taken = ask(running_service.grpc, [photographs[0], portrait_jpeg], ("similarity",), same_person="-1")
    assert taken["similarity"].max() < 0.3


def test_a_picture_without_a_face_is_named_by_its_row(
    running_service: RunningService, photographs: list[bytes]
) -> None:
    with pytest.raises(Refusal, match="row 2 of the 3 in this request: ") as refusal:
        ask(running_service.grpc, [*photographs[:2], without_face()], ("weights",))
    assert refusal.value.tag == "NoFace"
    with pytest.raises(Refusal, match="row 0 of the 2 in this request: ") as refusal:
        ask(running_service.grpc, [b"nothing", photographs[0]], ("weights",))
    assert refusal.value.tag == "BadImage"


def test_eight_photographs_are_taken_and_nine_are_not(
    running_service: RunningService, photographs: list[bytes]
) -> None:
    eight = (photographs * 3)[:8]
    assert ask(running_service.grpc, eight, ("weights",))["weights"].shape == (8,)
    with pytest.raises(Refusal, match="holds 9 photographs: send 1 to 8") as refusal:
        ask(running_service.grpc, [*eight, eight[0]], ("weights",))
    assert refusal.value.tag == "BadRequest"
    with pytest.raises(Refusal):  # Triton itself says so as well
        ask(running_service.triton.grpc, [*eight, eight[0]], ("weights",))


def test_requests_that_fail_leave_those_beside_them_alone(
    running_service: RunningService, photographs: list[bytes], portrait_jpeg: bytes
) -> None:
    requests = [photographs, [photographs[0], portrait_jpeg], [without_face(), photographs[1]], photographs[:2]] * 2

    def send(photos: list[bytes]) -> str:
        try:
            ask(running_service.grpc, photos, ("mesh",))
        except Refusal as error:
            return error.tag
        return "served"

    with ThreadPoolExecutor(8) as pool:
        ends = list(pool.map(send, requests))
    assert ends == ["served", "DifferentPeople", "NoFace", "served"] * 2


# --- the client ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, photographs: list[bytes], portrait_jpeg: bytes) -> list[Path]:
    """Front, left and right of one person, somebody else, and a picture without a face."""
    folder = tmp_path_factory.mktemp("photographs")
    contents = {
        "front.png": photographs[0],
        "left.jpg": photographs[1],
        "right.png": photographs[2],
        "other.jpg": portrait_jpeg,
        "sky.png": without_face(),
    }
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    return [folder / name for name in contents]


@pytest.fixture(params=["grpc", "http"])
def address(request: pytest.FixtureRequest, running_service: RunningService) -> str:
    return f"{request.param}://{getattr(running_service, request.param)}"


def test_a_client_gets_the_head_and_each_photograph(address: str, files: list[Path], tmp_path: Path) -> None:
    with Face3DClient(address) as client:
        person = client.reconstruct_person(files[:3], rig="arkit")
        assert len(person.photographs) == 3
        assert [photograph.source for photograph in person.photographs] == files[:3]
        identities = {photograph.coefficients.identity.tobytes() for photograph in person.photographs}
        assert len(identities) == 1
        assert person.head.coefficients.identity.tobytes() in identities
        assert (person.similarity > 0.5).all()
        assert person.head.rigged
        (saved,) = person.save(tmp_path / "head.glb")
        assert saved.read_bytes()[:4] == b"glTF"
        with pytest.raises(ValueError, match="written over the photograph"):
            person.save(files[1].with_suffix(".jpg"))


def test_a_client_s_errors_name_the_photograph_s_file(address: str, files: list[Path]) -> None:
    front, left, right, other, sky = files
    with Face3DClient(address) as client:
        with pytest.raises(DifferentPeople, match=r"other\.jpg shows somebody else"):
            client.reconstruct_person([front, left, other, right])
        with pytest.raises(NoFace, match=r"sky\.png: no face was found"):
            client.reconstruct_person([front, sky])
        with pytest.raises(BadOption, match="9 photographs were given"):
            client.reconstruct_person([front] * 9)
        with pytest.raises(TypeError, match="come as a list"):
            client.reconstruct_person(str(front))
        with pytest.raises(TypeError, match="did you mean reference"):
            client.reconstruct_person([front], refernce=1)  # type: ignore[call-arg]


def test_the_asyncio_client_gets_the_same(running_service: RunningService, files: list[Path]) -> None:
    async def one() -> NDArray[np.float32]:
        async with AsyncFace3DClient(running_service.grpc) as client:
            person = await client.reconstruct_person(files[:2], outputs=["vertices_neutral"])
            with pytest.raises(DifferentPeople, match="the two photographs show different people"):
                await client.reconstruct_person([files[0], files[3]])
            return person.head.vertices_neutral

    with Face3DClient(running_service.grpc) as client:
        blocking = client.reconstruct_person(files[:2], outputs=["vertices_neutral"])
    np.testing.assert_allclose(asyncio.run(one()), blocking.head.vertices_neutral, atol=0.05)


def test_the_command_writes_a_head_and_says_what_each_photograph_gave(
    running_service: RunningService, files: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names, out = [str(path) for path in files], tmp_path / "head.obj"
    server = ["--url", running_service.grpc]
    assert main(["person", *names[:3], "-o", str(out), "--json", *server]) == 0
    said = json.loads(capsys.readouterr().out)
    assert out.is_file()
    assert str(out) in said["files"]
    assert [row["source"] for row in said["photographs"]] == names[:3]
    assert sum(row["weight"] for row in said["photographs"]) == pytest.approx(1, abs=1e-3)
    assert main(["person", names[0], names[3], "-o", str(out), *server]) == 2
    assert "DifferentPeople: the two photographs" in capsys.readouterr().err
    assert main(["person", *names[:2], "-o", str(tmp_path / "head.txt"), *server]) == 2
    assert "-o wants a file that ends in" in capsys.readouterr().err
