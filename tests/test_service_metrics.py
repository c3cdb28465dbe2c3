"""What the Python models tell Prometheus, on the server's own metrics page."""

from __future__ import annotations

import contextlib
import re
import time
import urllib.request
from typing import Any

import pytest

from server.embedded import EmbeddedServer
from tests.service import Refusal, Service, file_of, picture


@pytest.fixture(scope="module")
def service(server: EmbeddedServer) -> Service:
    return Service(server.grpc)


def scraped(server: EmbeddedServer) -> dict[str, float]:
    """Every sample of the project's own metrics; a name with its labels to its value."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://{server.metrics}/metrics", timeout=10) as page:
        text = page.read().decode()
    return {name: float(value) for name, value in re.findall(r"^(face3d_\S+) (\S+)$", text, re.MULTILINE)}


def settled(server: EmbeddedServer) -> dict[str, float]:
    """The samples once nothing changes any more: Triton counts a request a moment after it was answered."""
    seen = scraped(server)
    for _ in range(50):
        time.sleep(0.3)
        before, seen = seen, scraped(server)
        if seen == before:
            break
    return seen


def grown(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    return {name: value - before.get(name, 0) for name, value in after.items() if value != before.get(name, 0)}


def test_a_served_face_is_counted_with_its_size_turn_and_files(
    server: EmbeddedServer, service: Service, portrait_jpeg: bytes
) -> None:
    service.ask(portrait_jpeg)
    before = scraped(server)
    answer = service.ask(portrait_jpeg)
    growth = grown(before, settled(server))
    for name in ("decode_seconds", "picture_megapixels", "faces_per_picture", "face_pixels", "face_yaw_degrees"):
        assert growth[f"face3d_{name}_count"] == 1
    assert growth["face3d_faces_per_picture_sum"] == 1
    assert growth["face3d_picture_megapixels_sum"] == pytest.approx(512 * 600 / 1e6, rel=1e-3)
    x1, y1, x2, y2 = answer["face"][:4]
    assert growth["face3d_face_pixels_sum"] == pytest.approx(min(x2 - x1, y2 - y1), rel=1e-3)
    assert 0 < growth["face3d_decode_seconds_sum"] < 5
    for file in ("mesh", "texture_image", "preview"):
        assert growth[f'face3d_file_seconds_count{{file="{file}"}}'] == 1
    assert {name for name in growth if "refused" in name or "warnings" in name} == {
        'face3d_warnings_total{kind="glasses"}'  # Grace Hopper wears them
    }


def test_refusals_are_counted_by_step_and_reason(
    server: EmbeddedServer, service: Service, portrait_jpeg: bytes
) -> None:
    cases: list[tuple[bytes, dict[str, Any]]] = [
        (b"", {}),
        (portrait_jpeg, {"face": "9"}),
        (portrait_jpeg, {"pose": "x"}),
    ]
    before = scraped(server)
    for data, options in cases:
        with pytest.raises(Refusal):
            service.ask(data, **options)
    growth = grown(before, settled(server))
    refused = {name: value for name, value in growth.items() if name.startswith("face3d_refused_total")}
    assert refused == {
        'face3d_refused_total{reason="BadImage",step="preprocess"}': 1,
        'face3d_refused_total{reason="NoSuchFace",step="align"}': 1,
        'face3d_refused_total{reason="BadOption",step="postprocess"}': 1,
    }


def test_warnings_are_counted_by_kind(server: EmbeddedServer, service: Service, portrait_jpeg: bytes) -> None:
    small = file_of(picture(portrait_jpeg).resize((200, 234)))
    before = scraped(server)
    with contextlib.suppress(Refusal):
        service.ask(small, outputs=("warnings",))
    assert grown(before, settled(server))['face3d_warnings_total{kind="small"}'] == 1
