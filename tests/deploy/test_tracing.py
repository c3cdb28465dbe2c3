"""Spans of the real server, taken by a small OTLP receiver on loopback."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from deploy.docker.entrypoint import trace_arguments
from server.embedded import EmbeddedServer, ServerOptions, on_free_ports
from tests.server.calls import infer, rows
from tests.server.repositories import arithmetic, ensemble


@pytest.fixture
def received() -> Iterator[tuple[str, list[tuple[str, dict[str, Any]]]]]:
    """(URL, what was posted there: path and JSON)."""
    posts: list[tuple[str, dict[str, Any]]] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            posts.append((self.path, json.loads(body)))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class calls it so
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/v1/traces", posts
        server.shutdown()
        thread.join()


def test_a_request_arrives_as_one_trace_with_a_span_for_each_step(
    tmp_path: Path, received: tuple[str, list[tuple[str, dict[str, Any]]]]
) -> None:
    url, posts = received
    arithmetic(tmp_path / "repository")
    ensemble(tmp_path / "repository")
    words = trace_arguments({"FACE3D_TRACE_URL": url, "FACE3D_TRACE_RATE": "1"})
    options = ServerOptions(repository=tmp_path / "repository", extra=tuple(words))
    with EmbeddedServer(on_free_ports(options)) as server:
        infer(server, "chain", x=rows(1.0))
        deadline = time.monotonic() + 30
        while not {"chain", "arithmetic", "compute"} <= {span["name"] for span in spans(posts)}:
            assert time.monotonic() < deadline, posts
            time.sleep(0.2)
    found = spans(posts)
    assert len({span["traceId"] for span in found}) == 1
    by_id = {span["spanId"]: span for span in found}
    (compute,) = (span for span in found if span["name"] == "compute")
    assert by_id[compute["parentSpanId"]]["name"] == "arithmetic"
    assert {path for path, _ in posts} == {"/v1/traces"}
    attributes = posts[0][1]["resourceSpans"][0]["resource"]["attributes"]
    assert {"key": "service.name", "value": {"stringValue": "face3d"}} in attributes


def spans(posts: list[tuple[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    return [
        span
        for _, body in posts
        for resource in body["resourceSpans"]
        for scope in resource["scopeSpans"]
        for span in scope["spans"]
    ]
