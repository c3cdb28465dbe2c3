"""`embed` on the real server: a photograph becomes a vector that says who it is."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from server.service import Service as RunningService
from tests.service import Outputs, Refusal, Service, file_of, picture

OUTPUTS = ("embedding", "quality", "face", "warnings", "embedder")


@pytest.fixture(scope="module")
def service(running_service: RunningService) -> Service:
    return Service(running_service.grpc, running_service.triton.grpc)


def embed(service: Service, photo: bytes, **parameters: Any) -> Outputs:
    return service.ask(photo, outputs=OUTPUTS, model="embed", **parameters)


def variant(photo: bytes, mirror: bool = False, turn: float = 0, side: int | None = None) -> bytes:
    image = picture(photo)
    if mirror:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if side is not None:
        image.thumbnail((side, side))
    file = io.BytesIO()
    image.rotate(turn, Image.Resampling.BICUBIC).save(file, "PNG")
    return file.getvalue()


def test_an_embedding_has_length_one_and_says_which_embedder(service: Service, portrait_bytes: bytes) -> None:
    answer = embed(service, portrait_bytes)
    assert np.linalg.norm(answer["embedding"]) == pytest.approx(1, abs=1e-3)
    assert answer["embedder"][0] > 0
    assert answer["quality"].shape == (4,)
    assert ((answer["quality"] >= 0) & (answer["quality"] <= 1)).all()
    np.testing.assert_array_equal(answer["face"], service.ask(portrait_bytes, outputs=("face",))["face"])


def test_the_same_person_is_near_and_another_one_is_not(
    service: Service, portrait_bytes: bytes, portrait_jpeg: bytes
) -> None:
    first, other = embed(service, portrait_bytes), embed(service, portrait_jpeg)
    changes: tuple[dict[str, Any], ...] = ({"mirror": True}, {"turn": 15}, {"side": 300})
    for change in changes:
        again = embed(service, variant(portrait_bytes, **change))
        assert first["embedding"] @ again["embedding"] > 0.7, change
        assert other["embedding"] @ again["embedding"] < 0.3, change


def test_a_picture_without_a_face_gets_the_typed_error(service: Service) -> None:
    with pytest.raises(Refusal) as refusal:
        embed(service, file_of(Image.new("RGB", (300, 300), (40, 90, 160))))
    assert refusal.value.tag == "NoFace"


@pytest.mark.parametrize(("name", "value"), [("face", "7"), ("score_threshold", "2"), ("texture_size", "512")])
def test_parameters_are_those_of_the_choice_of_a_face(
    service: Service, portrait_bytes: bytes, name: str, value: str
) -> None:
    with pytest.raises(Refusal) as refusal:
        embed(service, portrait_bytes, **{name: value})
    assert refusal.value.tag == ("NoSuchFace" if name == "face" else "BadOption")
