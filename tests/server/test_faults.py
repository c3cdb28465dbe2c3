"""What clients can do to a server by accident or on purpose, on a real one with tiny models."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import math
import os
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tritonclient.utils import InferenceServerException

from server.control import Control
from server.embedded import EmbeddedServer, ServerOptions, on_free_ports
from tests.server.calls import at_once, counter, every_process_stays, infer, rows
from tests.server.repositories import arithmetic, ensemble, python_model
from tests.servers import serving

# A quarter of a second for a batch of two: eight requests a second, and two more may wait.
BUSY = """\
def execute(self, requests):
    time.sleep(0.25)
    return [answer(r, pb_utils.get_input_tensor_by_name(r, 'x').as_numpy()) for r in requests]
"""
NARROW = "dynamic_batching { default_queue_policy { max_queue_size: 2 timeout_action: REJECT } }\n"

METHODS = st.sampled_from(["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"])
PATHS = st.one_of(
    st.sampled_from(
        [
            "/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/chain", "/v2/models/chain/config",
            "/v2/models/chain/infer", "/v2/models/chain/versions/99/infer", "/v2/models/%00/infer", "/v2/models//infer",
            "/v2/models/chain/stats", "/v2/repository/index", "/v2/repository/models/chain/load", "/v2/logging",
            "/v2/repository/models/arithmetic/unload", "/v2/systemsharedmemory/status", "/v2/trace/setting", "/metrics",
            "/v2/systemsharedmemory/region/x/register", "/v2/models/chain/generate", "/v2/models/../../etc/passwd",
        ]
    ),
    st.text(alphabet=st.characters(min_codepoint=33, max_codepoint=126), max_size=60).map(lambda text: "/" + text),
)  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
# Triton's own port, which only the gateway reaches, ends the server at values in JSON whose dimensions overflow when
# multiplied. The gateway compares shapes with the configuration (`tests/server/gateway/test_checks.py`).
SHAPES = st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(0, 9), max_size=5).filter(
    lambda dims: math.prod(max(1, abs(size)) for size in dims) < 2**63
)
ALMOST = st.fixed_dictionaries(
    {
        "inputs": st.lists(
            st.fixed_dictionaries(
                {
                    "name": st.sampled_from(["x", "y", ""]),
                    "datatype": st.sampled_from(["FP32", "INT64", "BYTES", "FP99"]),
                    "shape": SHAPES | st.just([1, 4]),
                },
                optional={
                    "data": JSON,
                    "parameters": st.fixed_dictionaries({"binary_data_size": st.integers(-9, 2**40)}),
                },
            ),
            max_size=3,
        )
    },
    optional={"outputs": JSON, "id": JSON, "parameters": JSON},
)
BODIES = st.one_of(
    st.binary(max_size=200),
    JSON.map(lambda value: json.dumps(value).encode()),
    ALMOST.map(lambda v: json.dumps(v).encode()),
)
LENGTHS = (
    st.none() | st.integers(-(2**40), 2**40).map(str) | st.sampled_from(["", "x", "1e3", "99999999999999999999999"])
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    repository = tmp_path_factory.mktemp("repository")
    arithmetic(repository)
    ensemble(repository, "chain", ["arithmetic"])
    python_model(repository, "busy", BUSY, NARROW)
    path = repository / "busy" / "config.pbtxt"
    path.write_text(path.read_text().replace("max_batch_size: 8", "max_batch_size: 2"))
    options = ServerOptions(repository=repository, model_control_mode="explicit", admin_key="sesame", exit_timeout=10)
    with serving(on_free_ports(options)) as running:
        yield running


@pytest.fixture(autouse=True)
def _healthy_afterwards(server: EmbeddedServer) -> Iterator[None]:
    with every_process_stays(server):
        yield
    assert infer(server, "chain", x=rows(2))["y"].tolist() == rows(4).tolist()


def wait_until_idle(server: EmbeddedServer, model: str) -> None:
    deadline = time.monotonic() + 20
    while counter(server, "nv_inference_pending_request_count", model):
        assert time.monotonic() < deadline, "requests stayed behind"
        time.sleep(0.1)


def test_a_flood_is_turned_away_at_once_and_leaves_nothing_behind(server: EmbeddedServer) -> None:
    results = at_once(40, lambda i: infer(server, "busy", x=rows(i)))
    kinds = Counter(
        result.status() if isinstance(result, InferenceServerException) else type(result).__name__ for result in results
    )
    assert set(kinds) == {"dict", "StatusCode.UNAVAILABLE"}
    assert kinds["dict"] >= 2
    for index, result in enumerate(results):
        if isinstance(result, dict):
            assert result["y"].tolist() == rows(index).tolist()
    wait_until_idle(server, "busy")


def test_requests_whose_client_gave_up_leave_nothing_behind(server: EmbeddedServer) -> None:
    results = at_once(30, lambda i: infer(server, "busy", x=rows(i), timeout=0.05))
    kinds = {result.status() for result in results if isinstance(result, InferenceServerException)}
    assert kinds <= {"StatusCode.DEADLINE_EXCEEDED", "StatusCode.UNAVAILABLE"}
    wait_until_idle(server, "busy")


def test_requests_whose_client_was_killed_leave_nothing_behind(server: EmbeddedServer) -> None:
    code = f"""
import numpy as np, tritonclient.grpc as g
t = g.InferInput("x", [1, 4], "FP32"); t.set_data_from_numpy(np.zeros((1, 4), np.float32))
c = g.InferenceServerClient("{server.grpc}")
for _ in range(20): c.async_infer("busy", [t], lambda result, error: None)
print("sent", flush=True)
import time; time.sleep(60)
"""
    for _ in range(2):
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == b"sent\n"
        process.kill()
        process.wait()
        process.stdout.close()
    wait_until_idle(server, "busy")


@pytest.mark.parametrize(
    ("model", "inputs", "code"),
    [
        ("chain", {"x": np.zeros((1, 4), np.float64)}, "INVALID_ARGUMENT"),
        ("chain", {"z": np.zeros((1, 4), np.float32)}, "INVALID_ARGUMENT"),
        ("chain", {"x": np.zeros((1, 1, 4), np.float32)}, "INVALID_ARGUMENT"),
        ("chain", {"x": np.zeros((9, 4), np.float32)}, "INVALID_ARGUMENT"),
        ("chain", {"x": np.zeros((0, 4), np.float32)}, "INVALID_ARGUMENT"),
        ("chain", {}, "INVALID_ARGUMENT"),
        ("nobody", {"x": np.zeros((1, 4), np.float32)}, "NOT_FOUND|UNAVAILABLE"),
    ],
)
def test_wrong_tensors_are_refused_with_a_typed_error(
    server: EmbeddedServer, model: str, inputs: dict[str, Any], code: str
) -> None:
    with pytest.raises(InferenceServerException) as caught:
        infer(server, model, **inputs)
    assert str(caught.value.status()).removeprefix("StatusCode.") in code.split("|")


def send(server: EmbeddedServer, method: str, path: str, body: bytes, headers: dict[str, str]) -> int:
    host, port = server.http.split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=10)
    try:
        connection.request(method, path, body, headers)
        return connection.getresponse().status
    finally:
        connection.close()


def fuzz(server: EmbeddedServer, method: str, path: str, body: bytes, length: str | None) -> None:
    headers = {} if length is None else {"Inference-Header-Content-Length": length}
    try:
        status = send(server, method, path, body, headers)
    except (http.client.HTTPException, ConnectionError):
        return  # hanging up is an answer, as long as others are served
    assert 200 <= status < 600
    assert server.poll() is None, (method, path, body, length)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(method=METHODS, path=PATHS, body=BODIES, length=LENGTHS)
def test_no_request_over_http_brings_the_server_down(
    server: EmbeddedServer, method: str, path: str, body: bytes, length: str | None
) -> None:
    fuzz(server, method, path, body, length)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=ALMOST.map(lambda value: json.dumps(value).encode()), length=LENGTHS)
def test_no_inference_that_is_almost_right_brings_the_server_down(
    server: EmbeddedServer, body: bytes, length: str | None
) -> None:
    fuzz(server, "POST", "/v2/models/chain/infer", body, length)


@pytest.mark.soak
@settings(max_examples=5000, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(method=METHODS, path=PATHS, body=BODIES, length=LENGTHS)
def test_no_request_over_http_brings_the_server_down_for_long(
    server: EmbeddedServer, method: str, path: str, body: bytes, length: str | None
) -> None:
    fuzz(server, method, path, body, length)


@pytest.mark.parametrize("depth", [100, 5_000, 100_000])
def test_deep_json_is_refused(server: EmbeddedServer, depth: int) -> None:
    body = b'{"inputs":' + b"[" * depth + b"]" * depth + b"}"
    assert send(server, "POST", "/v2/models/chain/infer", body, {}) >= 400


@pytest.mark.parametrize(
    "raw",
    [
        b"GET /v2/health/ready HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZZ\r\n",
        b"POST /v2/models/chain/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n{}",
        b"POST /v2/models/chain/infer HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n{}",
        b"\x00" * 64,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
@pytest.mark.parametrize("kind", ["http", "grpc", "metrics"])
def test_no_bytes_on_the_wire_bring_the_server_down(server: EmbeddedServer, kind: str, raw: bytes) -> None:
    host, port = getattr(server, kind).split(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.sendall(raw + os.urandom(64))
        connection.settimeout(0.5)
        try:
            while connection.recv(4096):
                pass
        except OSError:
            pass  # it waits for more, or hung up


INFERENCE = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,4],"data":[1,2,3,4]}]}'
TOKENS = st.text(alphabet='abcXYZ-_:;=,/ \t\x7f\xe9"0123456789', max_size=30)
HEADERS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "Content-Type", "Content-Encoding", "Accept-Encoding", "Transfer-Encoding", "Content-Length", "Expect",
                "Inference-Header-Content-Length", "Connection", "Upgrade", "Range", "Host", "triton-request-id",
                "traceparent", "X", "",
            ]
        ),
        TOKENS | st.sampled_from(["gzip", "deflate", "chunked", "100-continue", "close", "0", "-1", "9" * 30]),
    ),
    max_size=6,
)  # fmt: skip


def talk(server: EmbeddedServer, raw: bytes) -> int | None:
    """Send bytes to HTTP and half-close; the status of the answer, None where the server hangs up without one."""
    host, port = server.http.split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        try:
            connection.sendall(raw)
            connection.shutdown(socket.SHUT_WR)
            answer = connection.recv(64)
        except ConnectionError:
            return None
    return int(answer.split()[1]) if answer.startswith(b"HTTP/1.") else None


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(headers=HEADERS, body=st.just(INFERENCE) | st.binary(max_size=60), length=st.integers(-3, 3))
def test_no_headers_bring_the_server_down(
    server: EmbeddedServer, headers: list[tuple[str, str]], body: bytes, length: int
) -> None:
    lines = [f"{name}: {value}".encode("latin-1") for name, value in headers]
    lines = [b"POST /v2/models/chain/infer HTTP/1.1", *lines, b"Content-Length: %d" % (len(body) + length), b"", body]
    status = talk(server, b"\r\n".join(lines))
    assert status is None or 100 <= status < 600  # 100: it was asked whether the body may come
    assert server.poll() is None, (headers, body, length)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    pieces=st.lists(st.binary(max_size=20), max_size=6),
    sizes=st.lists(st.sampled_from(["", "0", "5", "ffffffff", "ffffffffffffffffff", "-1", "zz", "1;x=y"]), max_size=6),
)
def test_no_chunks_bring_the_server_down(server: EmbeddedServer, pieces: list[bytes], sizes: list[str]) -> None:
    """Each piece under its own length, or under one of another number."""
    body = b""
    for index, piece in enumerate(pieces):
        size = sizes[index] if index < len(sizes) else f"{len(piece):x}"
        body += size.encode() + b"\r\n" + piece + b"\r\n"
    head = b"POST /v2/models/chain/infer HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    status = talk(server, head + body + b"0\r\n\r\n")
    assert status is None or 200 <= status < 600
    assert server.poll() is None, (pieces, sizes)


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_an_inference_in_chunks_is_answered(server: EmbeddedServer, size: int) -> None:
    chunks = [INFERENCE[at : at + size] for at in range(0, len(INFERENCE), size)]
    body = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    head = b"POST /v2/models/chain/infer HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert talk(server, head + body + b"0\r\n\r\n") == 200


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "gzip, gzip"])
# Without the time in it, by which the workers would know the test under different names.
@pytest.mark.parametrize(
    "body", [b"", INFERENCE, gzip.compress(INFERENCE, mtime=0)[:-9], gzip.compress(bytes(1 << 20), mtime=0)]
)
def test_compressed_bodies_are_answered_or_refused(server: EmbeddedServer, encoding: str, body: bytes) -> None:
    assert 200 <= send(server, "POST", "/v2/models/chain/infer", body, {"Content-Encoding": encoding}) < 600


@pytest.mark.parametrize(
    "headers", [{"X" * 5000: "y"}, {"x": "y" * 200_000}, {f"x{n}": "y" for n in range(90)}, {"x": "\x01\x7f"}]
)
def test_headers_of_any_size_leave_the_server_up(server: EmbeddedServer, headers: dict[str, str]) -> None:
    with contextlib.suppress(ConnectionError, http.client.HTTPException):
        assert 200 <= send(server, "POST", "/v2/models/chain/infer", INFERENCE, headers) < 600


@pytest.mark.parametrize(
    "path",
    [
        "v2/repository/index", "v2/repository/models/arithmetic/unload", "v2/repository/models/arithmetic/load",
        "v2/systemsharedmemory/region/x/register", "v2/trace/setting", "v2/logging",
    ],
)  # fmt: skip
def test_what_changes_the_server_needs_the_admin_key(server: EmbeddedServer, path: str) -> None:
    assert send(server, "POST", f"/{path}", b"{}", {}) == 403
    assert send(server, "POST", f"/{path}", b"{}", {"admin-key": "guess"}) == 403
    with triton_grpc.InferenceServerClient(server.grpc) as client, pytest.raises(InferenceServerException):
        client.unload_model("arithmetic")
    assert Control(server.http, "sesame").serving("arithmetic") == [1]
