"""Every row of the table of errors that a user can meet and that needs no fault to be injected."""

from __future__ import annotations

import io
import re
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from PIL import Image

from server.service import Service as RunningService
from tests.service import Refusal, Service, file_of, picture


@pytest.fixture(scope="module")
def service(running_service: RunningService) -> Service:
    return Service(running_service.grpc, running_service.triton.grpc)


def refusal(service: Service, *images: bytes, **how: Any) -> Refusal:
    with pytest.raises(Refusal) as caught:
        service.ask(*images, **how)
    assert caught.value.sentence.endswith(".")
    return caught.value


def huge_header() -> bytes:
    """A PNG of a few bytes that claims 20,000 x 20,000 pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def landscape() -> bytes:
    rows, cols = np.mgrid[0:300, 0:400]
    sky = np.stack([90 + rows // 4, 140 + rows // 4, 220 - cols // 8], axis=-1).astype(np.uint8)
    return file_of(Image.fromarray(sky))


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"", "empty"),
        (b"certainly not a picture", "not a picture"),
        (b"GIF89a" + bytes(100), "GIF"),
        (bytes(5000), "not a picture"),
    ],
)
@pytest.mark.parametrize("model", ["face3d", "reconstruct", "detect"])
def test_what_is_not_a_picture_is_bad_image(service: Service, model: str, data: bytes, word: str) -> None:
    how: dict[str, Any] = {"model": model}
    if model == "reconstruct":
        how["choice"] = np.zeros(15, np.float32)
    if model == "detect":
        how["outputs"] = ("faces",)
    error = refusal(service, data, **how)
    assert (error.code, error.tag) == ("INVALID_ARGUMENT", "BadImage")
    assert word in error.sentence


@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
def test_a_truncated_picture_is_bad_image(service: Service, portrait_jpeg: bytes, share: float) -> None:
    error = refusal(service, portrait_jpeg[: int(len(portrait_jpeg) * share)])
    assert (error.code, error.tag) == ("INVALID_ARGUMENT", "BadImage")


def test_a_header_that_claims_too_many_pixels_is_image_too_large(service: Service) -> None:
    error = refusal(service, huge_header())
    assert (error.code, error.tag) == ("INVALID_ARGUMENT", "ImageTooLarge")
    assert "400 megapixels" in error.sentence


def test_too_many_bytes_are_image_too_large(service: Service) -> None:
    error = refusal(service, b"\xff\xd8\xff" + bytes(33 << 20))
    assert (error.code, error.tag) == ("INVALID_ARGUMENT", "ImageTooLarge")
    assert "33.0 MiB" in error.sentence


def test_a_picture_without_a_face_is_no_face(service: Service) -> None:
    for size in ((1, 1), (400, 300)):
        error = refusal(service, file_of(Image.new("RGB", size, (120, 160, 90))))
        assert (error.code, error.tag) == ("INVALID_ARGUMENT", "NoFace")
    assert refusal(service, landscape()).tag == "NoFace"


def test_no_face_says_the_score_and_the_threshold(service: Service, portrait_jpeg: bytes) -> None:
    score = float(service.detect(portrait_jpeg)[0][4])
    error = refusal(service, portrait_jpeg, score_threshold=str((1 + score) / 2))
    assert error.tag == "NoFace"
    assert f"{score:.2f}" in error.sentence
    assert "threshold" in error.sentence


def test_a_face_that_is_not_there_is_no_such_face(service: Service, portrait_jpeg: bytes) -> None:
    error = refusal(service, portrait_jpeg, face=3)
    assert (error.code, error.tag) == ("INVALID_ARGUMENT", "NoSuchFace")
    assert "1 face was found" in error.sentence
    assert refusal(service, portrait_jpeg, box="0,0,20,20").tag == "NoSuchFace"
    empty = refusal(service, portrait_jpeg, model="reconstruct", choice=np.zeros(15, np.float32))
    assert empty.tag == "NoSuchFace"


def test_points_that_cannot_be_a_face_are_bad_face(service: Service, portrait_jpeg: bytes) -> None:
    face = service.detect(portrait_jpeg)[0]
    swapped = face[[0, 1, 2, 3, 4, 11, 12, 13, 14, 9, 10, 5, 6, 7, 8]]  # the mouth where the eyes are
    far = face.copy()
    far[5:] += 10_000
    nowhere = np.full(15, np.nan, np.float32)
    for row in (swapped, far, nowhere, np.full(15, 7.0, np.float32)):
        error = refusal(service, portrait_jpeg, model="reconstruct", choice=row)
        assert (error.code, error.tag) == ("INVALID_ARGUMENT", "BadFace")


@pytest.mark.parametrize(
    ("turns", "way"), [(Image.Transpose.ROTATE_270, "clockwise"), (Image.Transpose.ROTATE_90, "counter-clockwise")]
)
def test_a_picture_that_lies_on_its_side_is_told_by_how_much(
    service: Service, portrait_jpeg: bytes, turns: Image.Transpose, way: str
) -> None:
    lying = file_of(Image.open(io.BytesIO(portrait_jpeg)).convert("RGB").transpose(turns))
    error = refusal(service, lying)
    assert (error.code, error.tag) == ("INVALID_ARGUMENT", "BadFace")
    assert re.search(rf"by about (8|9)\d degrees {way}: turn the picture upright", error.sentence)


@pytest.mark.parametrize(
    "option",
    [
        {"pose": "sideways"},
        {"texture_size": 5},
        {"texture_format": "gif"},
        {"sharpen": "2"},
        {"white_balance": "perhaps"},
        {"face": -1},
        {"box": "here"},
        {"score_threshold": "high"},
        {"face": 0, "box": "0,0,1,1"},
    ],
)
def test_a_wrong_option_is_bad_option_and_names_what_may_be(
    service: Service, portrait_jpeg: bytes, option: dict[str, Any]
) -> None:
    error = refusal(service, portrait_jpeg, **option)
    assert (error.code, error.tag) == ("INVALID_ARGUMENT", "BadOption")
    assert f"`{next(iter(option))}`" in error.sentence


def test_a_bad_request_never_hurts_its_neighbours(
    service: Service, portrait_jpeg: bytes, portrait_bytes: bytes
) -> None:
    """One bad among seven good, at the same time, for each way of being bad."""
    good = (portrait_jpeg, portrait_bytes)
    expected = [service.ask(data, outputs=("face", "coefficients")) for data in good]
    for bad, tag in (
        (b"", "BadImage"),
        (portrait_jpeg[:9000], "BadImage"),
        (landscape(), "NoFace"),
        (huge_header(), "ImageTooLarge"),
    ):
        files = [good[i % 2] for i in range(7)]
        files.insert(3, bad)

        def send(data: bytes) -> Any:
            try:
                return service.ask(data, outputs=("face", "coefficients"))
            except Refusal as error:
                return error

        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(send, files))
        assert isinstance(answers[3], Refusal)
        assert answers[3].tag == tag
        for data, answer in zip(files, answers, strict=True):
            if data in good:
                right = expected[good.index(data)]
                np.testing.assert_allclose(answer["face"], right["face"], atol=0.05)
                np.testing.assert_allclose(answer["coefficients"], right["coefficients"], atol=0.05)


def test_a_wrong_request_is_refused_by_triton_and_the_server_stays_up(service: Service, portrait_jpeg: bytes) -> None:
    with pytest.raises(Refusal) as caught:
        service.ask(*[portrait_jpeg] * 9, outputs=("face",))
    assert caught.value.code == "INVALID_ARGUMENT"
    with pytest.raises(Refusal) as caught:
        service.ask(portrait_jpeg, outputs=("no_such_output",))
    assert caught.value.code == "INVALID_ARGUMENT"
    assert service.ask(portrait_jpeg, outputs=("face",))["face"][4] > 0.9
    assert picture(portrait_jpeg).size == (512, 600)
