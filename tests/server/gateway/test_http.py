"""The gateway in front of the real ensembles, over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import re
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from face3d_client import Face3DClient

from deploy.exposition import parse
from server.embedded import EmbeddedServer
from server.gateway import limits
from server.gateway.gateway import Gateway
from server.gateway.http_server import HttpServer
from server.gateway.outcome import OUTCOMES
from server.gateway.process import GatewayProcess
from server.gateway.upstream import Upstream
from tests.attack import pictures as hostile
from tests.server.gateway.conftest import LENGTH, ask, request_body

INFER = "/v2/models/face3d/infer"


@pytest.fixture(autouse=True)
def still_serving(gateway: GatewayProcess, server: EmbeddedServer) -> Iterator[None]:
    yield
    assert server.poll() is None
    assert ask(gateway.http, "GET", "/healthz").status == 200


def raw(gateway: GatewayProcess, data: bytes, timeout: float = 10) -> bytes:
    """Send bytes as they are; what comes back first (empty when the connection was closed)."""
    host, port = gateway.http.split(":")
    with socket.create_connection((host, int(port)), timeout=timeout) as sock:
        sock.sendall(data)
        return sock.recv(4096)


def test_the_answer_is_tritons(gateway: GatewayProcess, server: EmbeddedServer, small_picture: bytes) -> None:
    body, headers = request_body(small_picture, outputs=[])
    tree = json.loads(body[: int(headers[LENGTH])]) | {"parameters": {"binary_data_output": True}}
    header = json.dumps(tree).encode()
    answers = [
        ask(address, "POST", INFER, header + body[int(headers[LENGTH]) :], {LENGTH: str(len(header))})
        for address in (server.http, gateway.http)
    ]
    assert answers[0].status == answers[1].status == 200
    assert answers[0].headers[LENGTH] == answers[1].headers[LENGTH]
    assert len(answers[0].body) == len(answers[1].body)


def test_the_client_works_through_it(gateway: GatewayProcess, portrait_jpeg: bytes) -> None:
    with Face3DClient(f"http://{gateway.http}") as client:
        assert client.info().version == "2.51.0"
        assert client.reconstruct(portrait_jpeg, face=0, texture_size=256, sharpen=0.2).mesh.faces.size
        (face,) = client.detect(portrait_jpeg)
        assert client.reconstruct(portrait_jpeg, face=face, outputs=["landmarks"]).landmarks.shape == (68, 2)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("path", ["/healthz", "/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/face3d/ready"])
def test_health_is_answered_to_get_and_head(gateway: GatewayProcess, method: str, path: str) -> None:
    answer = ask(gateway.http, method, path)
    assert answer.status == 200
    assert method == "GET" or not answer.body
    assert answer.headers["Server"] == "face3d"


@pytest.mark.parametrize(
    "path",
    [
        "/", "/v2/models", "/v2/repository/index", "/v2/models/face3d/stats", "/v2/models/stats", "/v2/models/align",
        "/v2/models/align/infer", "/v2/models/face3d/generate", "/v2/models/face3d/generate_stream", "/v2/logging",
        "/v2/models/face3d/trace/setting", "/v2/trace/setting", "/v2/systemsharedmemory/status", "/metrics",
        "/v2/cudasharedmemory/status", "/v2/models/face3d/versions/2/infer", "/v2/models/face3d/versions/x",
        "/v2/repository/models/face3d/unload", "/v2/models/face3d/../align/infer",
        "/v2/models/face3d%2F..%2Falign/infer",
        "/v2/models//infer", "/v2/models/face3d/infer/", "//v2/models/face3d/infer", "/v2/models/face3d%00/infer",
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_what_is_not_served_is_not_there(gateway: GatewayProcess, method: str, path: str, small_picture: bytes) -> None:
    body, headers = request_body(small_picture)
    answer = ask(gateway.http, method, path, body if method == "POST" else None, headers)
    assert answer.status in (400, 404, 405)
    assert answer.error.startswith("[BadRequest] ")


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_other_methods_are_405(gateway: GatewayProcess, method: str) -> None:
    assert ask(gateway.http, method, INFER).status == 405
    assert ask(gateway.http, method, "/healthz").status == 405


@pytest.mark.parametrize("output", ["mesh", "texture", "warnings", "coefficients"])
@pytest.mark.parametrize("binary", [True, False])
def test_classification_never_reaches_triton(
    gateway: GatewayProcess, small_picture: bytes, output: str, binary: bool
) -> None:
    for extra in ({"classification": 1}, {"classification": 0}, {"classification": "1"}):
        outputs = [{"name": output, "parameters": {"binary_data": binary} | extra}]
        answer = ask(gateway.http, "POST", INFER, *request_body(small_picture, outputs=outputs))
        assert answer.status == 400
        assert "[BadOption] the parameter `classification` is not taken" in answer.error


def test_two_lists_of_outputs_cannot_hide_one(gateway: GatewayProcess, small_picture: bytes) -> None:
    body, headers = request_body(small_picture)
    header, tensor = body[: int(headers[LENGTH])], body[int(headers[LENGTH]) :]
    hidden = b'{"outputs": [{"name": "mesh", "parameters": {"classification": 1}}], ' + header[1:]
    answer = ask(gateway.http, "POST", INFER, hidden + tensor, {LENGTH: str(len(hidden))})
    assert answer.status == 400
    assert "stands twice" in answer.error


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"parameters": {"score_treshold": 0.5}}, "did you mean `score_threshold`?"),
        ({"parameters": {"texture_size": 8192}}, "give a whole number from 64 to 4096"),
        ({"parameters": {"priority": 1}}, "`priority` is not taken"),
        ({"parameters": {"shared_memory_region": "x"}}, "shared memory"),
        ({"outputs": [{"name": "mehs"}]}, "did you mean `mesh`?"),
        ({"outputs": [{"name": "mesh"}]}, '"binary_data": true'),
        ({"outputs": []}, "binary_data_output"),
        ({"id": "\n[E] fake"}, "printable"),
    ],
)
def test_a_wrong_request_is_400(
    gateway: GatewayProcess, small_picture: bytes, changes: dict[str, Any], words: str
) -> None:
    answer = ask(gateway.http, "POST", INFER, *request_body(small_picture, **changes))
    assert answer.status == 400
    assert words in answer.error


def test_numbers_with_a_fraction_reach_the_models(gateway: GatewayProcess, small_picture: bytes) -> None:
    parameters = {"score_threshold": 0.25, "sharpen": 0.5, "white_balance": True, "texture_size": 64}
    answer = ask(gateway.http, "POST", INFER, *request_body(small_picture, parameters=parameters))
    assert answer.status == 200
    answer = ask(gateway.http, "POST", INFER, *request_body(small_picture, parameters={"score_threshold": 0.9999999}))
    assert answer.status == 400
    assert "[NoFace]" in answer.error  # the model's own words


def test_the_call_that_errors_show_works(gateway: GatewayProcess, small_picture: bytes) -> None:
    for model in ("detect", "face3d"):
        answer = ask(gateway.http, "POST", f"/v2/models/{model}/infer", small_picture, {LENGTH: "0"})
        assert answer.status == 200
        assert json.loads(answer.body[: int(answer.headers[LENGTH])])["model_name"] == model


def test_a_bare_picture_is_told_the_right_call(gateway: GatewayProcess, small_picture: bytes) -> None:
    answer = ask(gateway.http, "POST", INFER, small_picture)
    assert answer.status == 400
    assert "Inference-Header-Content-Length: 0" in answer.error


def test_text_outputs_come_as_json(gateway: GatewayProcess, small_picture: bytes) -> None:
    outputs = [{"name": "warnings"}, {"name": "coefficients"}, {"name": "face_model"}]
    answer = ask(gateway.http, "POST", INFER, *request_body(small_picture, outputs=outputs))
    assert answer.status == 200
    assert {output["name"] for output in json.loads(answer.body)["outputs"]} == {o["name"] for o in outputs}


# --- bounds ---------------------------------------------------------------------------------------------------------
def test_a_body_beyond_the_bound_is_413(gateway: GatewayProcess) -> None:
    answer = ask(gateway.http, "POST", INFER, bytes(limits.MAX_MESSAGE + 1), {LENGTH: "0"})
    assert answer.status == 413
    assert "[ImageTooLarge]" in answer.error


def test_chunks_beyond_the_bound_are_413(gateway: GatewayProcess) -> None:
    connection = http.client.HTTPConnection(gateway.http, timeout=60)
    try:
        chunks = (bytes(1 << 20) for _ in range(40))
        connection.request("POST", INFER, chunks, {LENGTH: "0"}, encode_chunked=True)
        assert connection.getresponse().status == 413
    except (BrokenPipeError, ConnectionResetError):
        pass  # cut off while it sent, which is right as well
    finally:
        connection.close()


def test_chunks_within_the_bound_are_taken(gateway: GatewayProcess, small_picture: bytes) -> None:
    body, headers = request_body(small_picture)
    connection = http.client.HTTPConnection(gateway.http, timeout=60)
    try:
        connection.request("POST", INFER, iter([body[:100], body[100:]]), headers, encode_chunked=True)
        assert connection.getresponse().status == 200
    finally:
        connection.close()


HEAD = b"POST " + INFER.encode() + b" HTTP/1.1\r\nHost: x\r\n"


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\xfc\x03\x03\r\n\r\n",
        b"hello\r\n\r\n",
        b"GET /healthz HTTP/9.9\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\n" + b"".join(b"h%d: x\r\n" % i for i in range(200)) + b"\r\n",
        b"GET /healthz HTTP/1.1\r\nh: " + b"x" * 20_000 + b"\r\n\r\n",
        b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nh\0: x\r\n\r\n",
        HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
        HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        HEAD + b"Content-Length: -2\r\n\r\nab",
        HEAD + b"Content-Length: 0x2\r\n\r\nab",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        HEAD + b"Content-Length: 2\r\n" + b"Inference-Header-Content-Length: 2\r\n" * 2 + b"\r\n{}",
        HEAD + b"Content-Length: 2\r\nContent-Encoding: identity\r\nContent-Encoding: gzip\r\n\r\n{}",
        HEAD + b"Content-Length: 2\r\nContent-Type: a/b\r\nContent-Type: c/d\r\n\r\n{}",
    ],
    ids=range(16),
)
def test_odd_bytes_and_headers_that_contradict_are_400(gateway: GatewayProcess, data: bytes) -> None:
    answer = raw(gateway, data)
    status = int(answer.split()[1])
    assert 400 <= status < 500
    assert b'{"error": "[BadRequest] ' in answer
    assert b"Python" not in answer


def test_a_client_that_waits_before_its_body_is_told_to_go_on(gateway: GatewayProcess) -> None:
    assert raw(gateway, HEAD + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n").startswith(b"HTTP/1.1 100 ")


def test_a_request_that_is_not_begun_in_time_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The endpoint by itself, with a tenth of its limit: it needs no Triton for this."""
    monkeypatch.setattr(limits, "HEADER_TIME", limits.HEADER_TIME / 10)

    async def drip() -> None:
        upstream = Upstream("127.0.0.1:1", "127.0.0.1:1", (), lambda _: None)
        server = HttpServer(Gateway(upstream))
        reader, writer = await asyncio.open_connection("127.0.0.1", await server.start("127.0.0.1", 0))
        try:
            writer.write(b"GET /healthz HTTP/1.1\r\n")
            async with asyncio.timeout(60):
                while not reader.at_eof():  # a line now and then keeps nothing open
                    writer.write(b"h: x\r\n")
                    with contextlib.suppress(TimeoutError, ConnectionError):
                        await asyncio.wait_for(reader.read(1), limits.HEADER_TIME / 10)
        finally:
            writer.close()
            await server.stop()
            await upstream.close()

    asyncio.run(drip())


def test_connections_beyond_the_bound_are_turned_away(gateway: GatewayProcess) -> None:
    host, port = gateway.http.split(":")
    with contextlib.ExitStack() as stack:
        for _ in range(limits.MAX_CONNECTIONS + 5):
            last = stack.enter_context(socket.create_connection((host, int(port)), timeout=10))
        answer = last.recv(4096)
        assert b" 503 " in answer
        assert b"[Overloaded]" in answer
        assert b"Retry-After" in answer
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            if ask(gateway.http, "GET", "/healthz").status == 200:
                return
        except (OSError, http.client.HTTPException):
            pass
        time.sleep(0.1)
    raise AssertionError("no room again after the connections were closed")


def test_more_requests_than_there_is_room_for_are_refused_at_once(
    gateway: GatewayProcess, small_picture: bytes
) -> None:
    body, headers = request_body(small_picture)
    count = limits.MAX_IN_FLIGHT + 60
    with ThreadPoolExecutor(count) as pool:
        answers = list(pool.map(lambda _: ask(gateway.http, "POST", INFER, body, headers), range(count)))
    refused = [answer for answer in answers if answer.status != 200]
    assert all(answer.status == 503 for answer in refused)
    assert any("[Overloaded] the server is full" in answer.error for answer in refused)
    assert len(answers) - len(refused) > 0


def outcomes(gateway: GatewayProcess) -> dict[str, float]:
    """The HTTP requests so far by outcome."""
    assert gateway.status
    page = ask(gateway.status, "GET", "/metrics").body.decode()
    return {
        sample.labels["outcome"]: sample.value
        for sample in parse(page)
        if sample.name == "face3d_gateway_requests_total" and sample.labels["protocol"] == "http"
    }


def test_the_status_page_counts_by_outcome(gateway: GatewayProcess, small_picture: bytes) -> None:
    before = outcomes(gateway)
    assert set(before) == set(OUTCOMES), "every outcome is there from the start"
    ask(gateway.http, "POST", INFER, *request_body(small_picture))
    ask(gateway.http, "POST", INFER, *request_body(small_picture, parameters={"x": 1}))
    assert ask(gateway.http, "POST", INFER, *request_body(b"no picture")).status == 400
    changed = {
        outcome: count - before[outcome] for outcome, count in outcomes(gateway).items() if count != before[outcome]
    }
    assert changed == {"ok": 1, "BadOption": 1, "BadImage": 1}


def whole(picture: bytes) -> bytes:
    """The bytes of an inference request by HTTP/1.1."""
    body, headers = request_body(picture)
    head = "".join(f"{name}: {value}\r\n" for name, value in (headers | {"Content-Length": str(len(body))}).items())
    return f"POST {INFER} HTTP/1.1\r\nHost: x\r\n{head}\r\n".encode() + body


def test_a_request_is_answered_after_its_client_has_closed_its_half(
    gateway: GatewayProcess, small_picture: bytes
) -> None:
    host, port = gateway.http.split(":")
    for data in (whole(small_picture), b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", b"GET /healthz HTTP/1.0\r\n\r\n"):
        with socket.create_connection((host, int(port)), timeout=60) as sock:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            answer = b"".join(iter(lambda: sock.recv(1 << 16), b""))
        *interim, last = re.findall(rb"(?m)^HTTP/1\.[01] (\d+) ", answer)
        assert set(interim) <= {b"100"}
        assert last == b"200"


def test_half_a_request_is_not_waited_for_once_its_client_has_closed_its_half(
    gateway: GatewayProcess, small_picture: bytes
) -> None:
    host, port = gateway.http.split(":")
    with socket.create_connection((host, int(port)), timeout=10) as sock:
        sock.sendall(whole(small_picture)[:-10])
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(1 << 16) == b""


def test_the_request_of_a_client_that_has_gone_is_given_up(gateway: GatewayProcess) -> None:
    before = outcomes(gateway)
    host, port = gateway.http.split(":")
    with socket.create_connection((host, int(port)), timeout=10) as sock:
        sock.sendall(whole(hostile.progressive(7900, 7900, 190)))  # a second of decoding and more
        time.sleep(0.05)
    deadline = time.monotonic() + 60
    while (after := outcomes(gateway)) == before:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert after["cancelled"] == before["cancelled"] + 1
