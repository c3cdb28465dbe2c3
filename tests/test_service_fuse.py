"""`fuse` on the real server: the source's face in the target's picture, and nothing else changed."""

from __future__ import annotations

import io
from typing import Any, NamedTuple

import numpy as np
import pytest
import tritonclient.grpc as triton
from numpy.typing import NDArray
from PIL import Image
from tritonclient.utils import InferenceServerException

from server.service import Service as RunningService
from tests.service import Refusal, Service, beside, file_of, picture

STATEMENT = "Made for a test; both works are in the public domain."


class Answer(NamedTuple):
    """What `fuse` gives: the picture and the mask decoded, and the warnings."""

    pixels: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    warnings: list[str]
    file: bytes


class Fuser:
    """Asks Triton itself."""

    def __init__(self, address: str) -> None:
        self._client = triton.InferenceServerClient(address)

    def __call__(self, source: bytes, target: bytes, **parameters: Any) -> Answer:
        inputs = [triton.InferInput(name, [1], "BYTES") for name in ("source", "target")]
        for tensor, data in zip(inputs, (source, target), strict=True):
            tensor.set_data_from_numpy(np.array([data], np.object_))
        try:
            given = {"consent": STATEMENT, **parameters}
            result = self._client.infer("fuse", inputs, parameters=given, client_timeout=120)
        except InferenceServerException as error:
            raise Refusal(str(error.status()).removeprefix("StatusCode."), error.message()) from None
        file, mask = (result.as_numpy(name)[0] for name in ("picture", "mask"))
        warnings = [text.decode() for text in result.as_numpy("warnings")]
        with Image.open(io.BytesIO(mask)) as grey:
            assert grey.mode == "L"
            return Answer(np.asarray(picture(file)), np.asarray(grey), warnings, file)


@pytest.fixture(scope="module")
def fuse(running_service: RunningService) -> Fuser:
    return Fuser(running_service.triton.grpc)


@pytest.fixture(scope="module")
def service(running_service: RunningService) -> Service:
    return Service(running_service.triton.grpc)


def embedding(service: Service, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    return service.ask(file_of(Image.fromarray(pixels)), outputs=("embedding",), model="embed")["embedding"]


def face_of(service: Service, pixels: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
    return service.ask(file_of(Image.fromarray(pixels)), outputs=("coefficients", "landmarks"))


@pytest.fixture(scope="module")
def made(fuse: Fuser, portrait_bytes: bytes, portrait_jpeg: bytes) -> Answer:
    return fuse(portrait_bytes, portrait_jpeg, shape="1")


def test_what_the_mask_leaves_out_is_the_target_s_to_the_bit(made: Answer, portrait_jpeg: bytes) -> None:
    target = np.asarray(picture(portrait_jpeg))
    assert made.pixels.shape == target.shape
    assert made.mask.shape == target.shape[:2]
    outside = made.mask == 0
    assert 0.5 < outside.mean() < 0.95
    np.testing.assert_array_equal(made.pixels[outside], target[outside])
    inside = made.mask == 255
    assert (made.pixels[inside] != target[inside]).any(axis=1).mean() > 0.8


def test_a_source_of_few_pixels_is_enhanced_on_request(
    fuse: Fuser, portrait_bytes: bytes, portrait_jpeg: bytes
) -> None:
    small = picture(portrait_bytes).resize((200, 200))
    large = file_of(picture(portrait_jpeg).resize((900, 900)))
    plain, made = (fuse(file_of(small), large, enhance=enhance, quality_mode="short") for enhance in (False, True))
    np.testing.assert_array_equal(made.pixels[made.mask == 0], plain.pixels[made.mask == 0])
    inside = (made.mask == 255) & (plain.mask == 255)
    apart = np.abs(made.pixels[inside].astype(int) - plain.pixels[inside])
    assert 0.2 < apart.mean() < 6


def test_the_person_is_the_source_s_and_pose_and_expression_are_the_target_s(
    service: Service, made: Answer, portrait_bytes: bytes, portrait_jpeg: bytes
) -> None:
    source, target = (np.asarray(picture(data)) for data in (portrait_bytes, portrait_jpeg))
    result = embedding(service, made.pixels)
    assert result @ embedding(service, source) > 0.3
    assert result @ embedding(service, source) > embedding(service, target) @ embedding(service, source) + 0.15
    drawn, wanted = face_of(service, made.pixels), face_of(service, target)
    turned = np.degrees(drawn["coefficients"] - wanted["coefficients"])[224:227]
    assert np.abs(turned).max() < 3
    size = np.ptp(wanted["landmarks"], axis=0).max()
    assert np.linalg.norm(drawn["landmarks"] - wanted["landmarks"], axis=1).mean() < 0.03 * size


def test_eyes_are_the_target_s_unless_the_source_s_or_another_shape_are_asked_for(
    fuse: Fuser, service: Service, made: Answer, portrait_bytes: bytes, portrait_jpeg: bytes
) -> None:
    """With the target's shape its eyes do not move, so that they can be compared pixel by pixel."""
    target = np.asarray(picture(portrait_jpeg))
    x, y = face_of(service, target)["landmarks"][36:42].mean(axis=0).astype(int)
    eye = np.s_[y - 2 : y + 3, x - 3 : x + 4]

    def changed(answer: Answer) -> float:
        return float(np.abs(answer.pixels[eye].astype(int) - target[eye]).mean())

    kept, exchanged = (fuse(portrait_bytes, portrait_jpeg, shape=0, eyes=whose) for whose in ("target", "source"))
    assert changed(kept) < 4
    assert changed(exchanged) > 4
    assert changed(made) > changed(kept)


def test_a_whole_picture_of_a_telephone_keeps_its_size_and_the_jpeg_its_format(
    fuse: Fuser, portrait_bytes: bytes, portrait_jpeg: bytes
) -> None:
    large = picture(portrait_jpeg).resize((2600, 3046), Image.Resampling.BICUBIC)
    turned = Image.Exif()
    turned[0x0112] = 6  # stored on its side
    file = file_of(large.transpose(Image.Transpose.ROTATE_90), "JPEG", quality=90, exif=turned)
    answer = fuse(portrait_bytes, file, picture_format="jpeg", quality_mode="short")
    assert answer.pixels.shape == (3046, 2600, 3)
    assert answer.file.startswith(b"\xff\xd8\xff")
    assert 0.03 < (answer.mask > 0).mean() < 0.5


def test_which_face_is_meant_can_be_said_for_either_picture(
    fuse: Fuser, portrait_bytes: bytes, portrait_jpeg: bytes
) -> None:
    two = file_of(beside(picture(portrait_jpeg), picture(portrait_bytes)))
    sides = []
    for face in (0, 1):
        mask = fuse(portrait_bytes, two, target_face=face, quality_mode="short").mask
        sides.append(int(np.flatnonzero(mask.any(axis=0)).mean() > 512))
    assert sorted(sides) == [0, 1]
    with pytest.raises(Refusal) as refusal:
        fuse(portrait_bytes, portrait_jpeg, source_face=1)
    assert refusal.value.tag == "NoSuchFace"
    assert refusal.value.sentence.startswith("row 0 of the 2")


def test_a_refusal_says_which_of_the_two_pictures_it_means(
    fuse: Fuser, portrait_bytes: bytes, portrait_jpeg: bytes
) -> None:
    empty = file_of(Image.new("RGB", (200, 200), (20, 90, 160)))
    for row, (source, target, tag) in enumerate([(empty, portrait_jpeg, "NoFace"), (portrait_bytes, b"?", "BadImage")]):
        with pytest.raises(Refusal) as refusal:
            fuse(source, target)
        assert refusal.value.tag == tag
        assert refusal.value.sentence.startswith(f"row {row} of the 2")


def test_a_target_that_is_larger_than_is_drawn_on_is_refused_by_its_header(fuse: Fuser, portrait_bytes: bytes) -> None:
    with pytest.raises(Refusal) as refusal:
        fuse(portrait_bytes, file_of(Image.new("RGB", (5000, 4000)), "JPEG"))
    assert refusal.value.tag == "ImageTooLarge"
    assert "16" in refusal.value.sentence


@pytest.mark.parametrize(
    ("name", "value"), [("shape", "2"), ("eyes", "mine"), ("picture_format", "gif"), ("quality_mode", "best")]
)
def test_an_option_out_of_its_range_is_refused(
    fuse: Fuser, portrait_bytes: bytes, portrait_jpeg: bytes, name: str, value: str
) -> None:
    with pytest.raises(Refusal) as refusal:
        fuse(portrait_bytes, portrait_jpeg, **{name: value})
    assert refusal.value.tag == "BadOption"
    assert name in refusal.value.sentence
