"""`group` on the real server: faces of a twelve-megapixel picture that are too small on a canvas of the whole."""

from __future__ import annotations

import numpy as np
import pytest
from face3d_client import Face3DClient
from PIL import Image

from server.service import Service as RunningService
from tests.service import Refusal, Service, file_of, picture

SIZE = (4032, 3024)
# Where portraits are pasted: left, top and side in pixels. A face has a fifth of the side, 28 to 60 pixels, where the
# whole picture shows those from 112 on.
PLACES = (
    *((60, 40, 140), (1010, 880, 160), (1990, 1480, 180), (3700, 100, 200), (880, 2200, 240)),
    *((2750, 2500, 280), (3000, 900, 300)),
)


@pytest.fixture(scope="module")
def service(running_service: RunningService) -> Service:
    return Service(running_service.grpc)


@pytest.fixture(scope="module")
def crowd(portrait_bytes: bytes) -> bytes:
    """Seven portraits on grey."""
    head = picture(portrait_bytes)
    canvas = Image.new("RGB", SIZE, (120, 130, 125))
    for x, y, side in PLACES:
        small = head.resize((side, side * head.height // head.width), Image.Resampling.LANCZOS)
        canvas.paste(small, (x, y))
    return file_of(canvas, "JPEG", quality=93)


def is_found(faces: np.ndarray[tuple[int, ...], np.dtype[np.float32]], place: tuple[int, int, int]) -> bool:
    x, y, side = place
    centres = (faces[:, :2] + faces[:, 2:4]) / 2
    return bool(((centres > (x, y)) & (centres < (x + side, y + side))).all(1).any())


def test_small_faces_are_found_where_the_whole_picture_shows_none(service: Service, crowd: bytes) -> None:
    assert not len(service.detect(crowd))
    faces = service.ask(crowd, outputs=("faces",), model="group", min_face=24)["faces"]
    assert faces.shape == (64, 15)
    good = faces[faces[:, 4] >= 0.7]
    assert [is_found(good, place) for place in PLACES] == [True] * len(PLACES)
    assert len(good) == len(PLACES)


def test_without_a_size_it_is_what_detect_gives(service: Service, portrait_bytes: bytes) -> None:
    faces = service.ask(portrait_bytes, outputs=("faces",), model="group")["faces"]
    np.testing.assert_array_equal(faces[faces[:, 4] > 0], service.detect(portrait_bytes))


def test_so_small_a_size_that_it_takes_too_many_tiles_is_refused(service: Service, crowd: bytes) -> None:
    with pytest.raises(Refusal, match=r"give 22 or more") as caught:
        service.ask(crowd, outputs=("faces",), model="group", min_face=12)
    assert caught.value.tag == "BadOption"
    with pytest.raises(Refusal, match="give a number from 12 to 4096") as caught:
        service.ask(crowd, outputs=("faces",), model="group", min_face=5)
    assert caught.value.tag == "BadOption"


def test_the_client_makes_heads_of_the_small_faces(running_service: RunningService, crowd: bytes) -> None:
    with Face3DClient(running_service.grpc, timeout=120) as client:
        assert client.reconstruct_all(crowd, outputs=["face"]) == []
        found = client.reconstruct_all(
            crowd, min_face=24, min_size=40, outputs=["face", "landmarks", "warnings"], return_exceptions=False
        )
    assert len(found) == 4  # of at least 40 pixels, by the longer side
    for head in found:
        assert any("pixels wide" in warning for warning in head.warnings)
        low, high = head.landmarks.min(0), head.landmarks.max(0)
        assert (low >= head.box[:2] - 20).all()
        assert (high <= head.box[2:] + 20).all()
