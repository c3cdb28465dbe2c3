"""`preprocess` turns pictures away while many requests wait behind it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.model_repository.version_folder import load

admission = load("preprocess", "admission")


class Page:
    """A metrics page in Triton's words, and how many requests it says wait for the detector."""

    def __init__(self) -> None:
        self.pending = 0
        self.looks = 0
        page = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                page.looks += 1
                body = (
                    "# TYPE nv_inference_pending_request_count gauge\n"
                    f'nv_inference_pending_request_count{{model="detector",version="1"}} {page.pending}\n'
                    'nv_inference_pending_request_count{model="texture",version="1"} 3\n'
                    'nv_inference_pending_request_count{model="preprocess",version="1"} 500\n'
                )
                self.send_response(200)
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}/metrics"


@pytest.fixture
def page() -> Iterator[Page]:
    page = Page()
    threading.Thread(target=page.server.serve_forever, args=(0.01,), daemon=True).start()
    yield page
    page.server.shutdown()
    page.server.server_close()


def gate(address: str) -> admission.Admission:  # type: ignore[name-defined]
    return admission.Admission(address, frozenset({"detector", "texture"}), most=10)


def test_only_the_queues_of_the_named_models_count(page: Page) -> None:
    page.pending = 4
    assert gate(page.address).room() == 10 - 4 - 3


def test_nobody_is_let_in_while_too_many_wait(page: Page) -> None:
    page.pending = 50
    door = gate(page.address)
    assert door.room() == 0
    page.pending = 0
    assert door.room() == 7, "it looks again at once when it was full"


def test_what_went_on_since_the_last_look_counts_and_the_page_is_not_read_for_every_picture(page: Page) -> None:
    door = gate(page.address)
    door.INTERVAL = 60.0
    for room in (7, 5, 3, 1):
        assert door.room() == room
        door.let_in(2)
    assert page.looks == 1


@pytest.mark.parametrize("address", ["", "http://127.0.0.1:9/metrics"])
def test_without_a_page_all_are_let_in(address: str) -> None:
    assert gate(address).room() == 10
