"""What people send to the gateway by mistake, what it says, and how it counts that."""

from __future__ import annotations

import base64
import io
import json
import urllib.parse
from typing import Any

import grpc
import numpy as np
import pytest

from deploy.exposition import parse
from server.gateway import outcome as outcomes
from server.gateway.process import GatewayProcess
from tests.model_repository.version_folder import load
from tests.server.gateway.conftest import LENGTH, ask, element, message, request_body

INFER = "/v2/models/face3d/infer"


def array_file() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros((4, 4, 3), np.uint8))
    return buffer.getvalue()


def mistakes(picture: bytes) -> dict[str, tuple[bytes, str, str]]:
    """Name -> body, media type, a word of the sentence."""
    text = base64.b64encode(picture).decode()
    tensor: dict[str, Any] = {"name": "image", "datatype": "BYTES", "shape": [1, 1]}
    form = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n\r\n' + picture + b"\r\n--b--\r\n"

    def as_json(tree: Any) -> bytes:
        return json.dumps(tree).encode()

    return {
        "instances": (as_json({"instances": [{"b64": text}]}), "application/json", "KServe v2"),
        "b64": (as_json({"b64": text}), "application/json", "KServe v2"),
        "b64 as data": (as_json({"inputs": [tensor | {"data": [{"b64": text}]}]}), "application/json", "an object"),
        "base64 as data": (as_json({"inputs": [tensor | {"data": [text]}]}), "application/json", "text in JSON"),
        "numbers": (as_json({"inputs": [tensor | {"data": list(picture[:99])}]}), "application/json", "numbers"),
        "pixels": (
            as_json({"inputs": [{"name": "image", "datatype": "UINT8", "shape": [1, 1, 3], "data": [[[1, 2, 3]]]}]}),
            "application/json",
            "numbers",
        ),
        "bare jpeg": (picture, "image/jpeg", "a JPEG file without the header"),
        "bare heic": (b"\0\0\0\x18ftypheic" + bytes(99), "image/heic", "a HEIC"),
        "multipart": (form, "multipart/form-data; boundary=b", "multipart"),
        "form": (b"image=" + urllib.parse.quote(text).encode(), "application/x-www-form-urlencoded", "a form"),
        "base64": (text.encode(), "text/plain", "base64"),
        "data url": (b"data:image/jpeg;base64," + text.encode(), "text/plain", "base64"),
        "address": (b"https://example.org/a.jpg", "text/plain", "an address"),
        "html": (b"<!DOCTYPE html><html></html>", "text/html", "HTML"),
        "numpy": (array_file(), "application/octet-stream", "NumPy"),
        "nothing": (b"", "application/json", "empty"),
        "null": (b"null", "application/json", "no JSON of the protocol"),
        "list": (b"[1, 2]", "application/json", "no JSON of the protocol"),
        "files as json": (
            as_json({"inputs": [{"name": "image", "shape": [1, 1], "datatype": "BYTES", "data": [""]}]}),
            "application/json",
            "cannot hold a file",
        ),
    }


def test_every_mistake_is_a_4xx_that_shows_the_right_call(gateway: GatewayProcess, small_picture: bytes) -> None:
    for name, (body, media, word) in mistakes(small_picture).items():
        answer = ask(gateway.http, "POST", INFER, body, {"Content-Type": media})
        assert 400 <= answer.status < 500, name
        assert word in answer.error, (name, answer.error)
        assert "curl -H 'Inference-Header-Content-Length: 0' --data-binary @photo.jpg" in answer.error, name


def test_a_mesh_asked_for_as_json_is_told_how_to_get_its_bytes(gateway: GatewayProcess, small_picture: bytes) -> None:
    answer = ask(gateway.http, "POST", INFER, *request_body(small_picture, outputs=[{"name": "mesh"}]))
    assert answer.status == 400
    assert "binary_data" in answer.error
    answer = ask(gateway.http, "POST", INFER, *request_body(small_picture, outputs=[{"name": "face"}]))
    assert len(json.loads(answer.body)["outputs"][0]["data"]) == 15, "numbers come as JSON"


@pytest.mark.parametrize("path", ["/healthz", "/v2/health/ready", "/v2/health/live", "/v2/models/face3d/ready"])
def test_health_is_answered_to_head_without_a_body(gateway: GatewayProcess, path: str) -> None:
    assert ask(gateway.http, "HEAD", path)[:2] == (200, b"")


# --- rows of a batch ------------------------------------------------------------------------------------------------


def batch(*pictures: bytes) -> tuple[bytes, dict[str, str]]:
    tensor = b"".join(map(element, pictures))
    tree = {
        "inputs": [
            {
                "name": "image",
                "datatype": "BYTES",
                "shape": [len(pictures), 1],
                "parameters": {"binary_data_size": len(tensor)},
            }
        ],
        "outputs": [{"name": "coefficients", "parameters": {"binary_data": True}}],
    }
    header = json.dumps(tree).encode()
    return header + tensor, {LENGTH: str(len(header))}


def test_the_row_of_a_bad_picture_in_a_batch_is_named(gateway: GatewayProcess, small_picture: bytes) -> None:
    assert ask(gateway.http, "POST", INFER, *batch(small_picture, small_picture)).status == 200
    for bad in (b"GIF89a" + bytes(40), small_picture[:3000]):  # refused by a decoder, and by its structure
        answer = ask(gateway.http, "POST", INFER, *batch(small_picture, bad))
        assert answer.status == 400
        assert "[BadImage] row 1 of the 2 in this request: " in answer.error
        alone = ask(gateway.http, "POST", INFER, *request_body(bad))
        assert "row" not in alone.error


# --- formats, through all of the service ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["HEIF", "AVIF"])
def test_a_heic_and_an_avif_pass_the_cage(gateway: GatewayProcess, kind: str) -> None:
    picture = load("preprocess", "pictures").sample(kind)
    answer = ask(gateway.http, "POST", INFER, *request_body(picture))
    assert "[NoFace]" in answer.error, "it was decoded, and holds four colours"


# --- counters -------------------------------------------------------------------------------------------------------


def counts(gateway: GatewayProcess) -> dict[tuple[str, ...], float]:
    """The counters by their names and the values of their labels, in the order of the labels; times are left out."""
    assert gateway.status
    page = ask(gateway.status, "GET", "/metrics").body.decode()
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for sample in parse(page)
        if sample.name in ("face3d_gateway_requests_total", "face3d_gateway_causes_total")
    }


def test_bad_pictures_are_counted_apart_from_faults(gateway: GatewayProcess, stub: Any, small_picture: bytes) -> None:
    before = counts(gateway)
    ask(gateway.http, "POST", INFER, *request_body(small_picture))
    ask(gateway.http, "POST", INFER, *request_body(b"GIF89a" + bytes(40)))
    ask(gateway.http, "POST", INFER, b"null")
    with pytest.raises(grpc.RpcError):
        stub.ModelInfer(message(b"no picture"), timeout=60)
    after = counts(gateway)
    grown = {name: after[name] - before.get(name, 0) for name in after if after[name] != before.get(name, 0)}
    assert grown == {
        ("face3d_gateway_requests_total", "ok", "http"): 1,
        ("face3d_gateway_requests_total", "BadImage", "http"): 1,
        ("face3d_gateway_requests_total", "BadRequest", "http"): 1,
        ("face3d_gateway_requests_total", "BadImage", "grpc"): 1,
        ("face3d_gateway_causes_total", "none"): 1,
        ("face3d_gateway_causes_total", "client"): 3,
    }


@pytest.mark.parametrize(
    ("status", "body", "outcome", "cause"),
    [
        (400, b'{"error":"in ensemble \'face3d\', [NoFace] no face"}', "NoFace", "client"),
        (400, b'{"error":"unexpected shape"}', "BadRequest", "client"),
        (500, b'{"error":"in ensemble \'face3d\', ValueError: x"}', "fault", "server"),
        (503, b'{"error":"[Overloaded] full"}', "Overloaded", "load"),
        (503, b'{"error":"request for unknown model"}', "Overloaded", "load"),
        (500, b"\xff\xfe", "fault", "server"),
    ],
)
def test_an_answer_of_triton_s_has_an_outcome_and_a_cause(status: int, body: bytes, outcome: str, cause: str) -> None:
    assert outcomes.of_http(status, body) == outcome
    assert outcomes.cause(outcome) == cause


def test_what_is_no_answer_of_triton_s_is_a_fault() -> None:
    assert outcomes.of_grpc(grpc.StatusCode.INTERNAL, "ValueError: x") == "fault"
    assert {outcomes.cause(name) for name in ("fault", "ServerUnavailable")} == {"server"}
    assert {outcomes.cause(name) for name in ("BadImage", "ImageTooLarge", "NoFace", "BadOption")} == {"client"}
