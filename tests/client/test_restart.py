"""A server that is started again: a call meanwhile waits for it, within its deadline, and is answered."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import socket
import threading
from typing import Any

import grpc
import pytest
from face3d_client import AsyncFace3DClient, Face3DClient, Protocol, Retry, ServerUnavailable, Timeout

from tests.client import hostile
from tests.client.hostile import honest, honest_http, http, message

NAMES = ("coefficients",)
STARTING = "[ServerUnavailable] the server is starting: try again in a few seconds."
DOWN = 6  # answers before it is up: more than `Retry.attempts` allows for other failures


def http_starting(down: int = DOWN) -> Any:
    """Answers 503 as the gateway does, then the truth."""
    count = itertools.count()
    refusal = http(json.dumps({"error": STARTING}).encode(), "503 Service Unavailable", Retry_After="1")
    truth = honest_http(NAMES, honest())
    return hostile.http_server(lambda wire: wire.sendall(truth if next(count) >= down else refusal))


def grpc_starting(down: int = DOWN) -> Any:
    """Answers UNAVAILABLE as the gateway does, then the truth."""
    count = itertools.count()

    def handler(context: grpc.ServicerContext) -> bytes:
        if next(count) < down:
            context.abort(grpc.StatusCode.UNAVAILABLE, STARTING)
        raw: bytes = message(NAMES, honest()).SerializeToString()
        return raw

    return hostile.grpc_server(handler)


@pytest.mark.parametrize("starting", [http_starting, grpc_starting])
def test_a_restart_is_not_seen_by_a_call_with_the_defaults(starting: Any) -> None:
    async def wait(url: str) -> float:
        async with AsyncFace3DClient(url) as client:
            return float((await client.reconstruct(b"picture", outputs=NAMES)).coefficients.values[5])  # type: ignore[arg-type]

    with starting() as url, Face3DClient(url) as client:
        assert client.reconstruct(b"picture", outputs=NAMES).coefficients.values[5] == 5  # type: ignore[arg-type]
    with starting() as url:
        assert asyncio.run(wait(url)) == 5


def forward(listener: socket.socket, target: str) -> None:
    """Carry one connection to a server, and listen no more."""
    host, port = target.removeprefix("http://").split(":")
    with listener:
        listener.listen()
        wire, _ = listener.accept()
    with wire, socket.create_connection((host, int(port))) as behind:
        requests = threading.Thread(target=copy, args=(wire, behind))
        requests.start()
        copy(behind, wire)
        requests.join()


def copy(source: socket.socket, target: socket.socket) -> None:
    """Carry bytes until either side has no more; then both connections end."""
    with contextlib.suppress(OSError):
        while chunk := source.recv(65536):
            target.sendall(chunk)
    for end in (source, target):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def reserved(port: int = 0) -> socket.socket:
    """A socket that has a port and refuses connections until it listens."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    return listener


def test_nobody_listens_for_a_while_and_then_somebody_does() -> None:
    with http_starting(0) as answering:
        listener = reserved()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        timer = threading.Timer(0.5, forward, (listener, answering))
        timer.start()
        with Face3DClient(url) as client:
            assert client.reconstruct(b"picture", outputs=NAMES).coefficients.values[5] == 5  # type: ignore[arg-type]
        timer.join()


def test_a_server_that_answered_before_may_be_away_for_longer() -> None:
    with http_starting(0) as answering:
        listener = reserved()
        port = listener.getsockname()[1]
        first = threading.Thread(target=forward, args=(listener, answering))
        first.start()
        with Face3DClient(f"http://127.0.0.1:{port}") as client:
            client.reconstruct(b"picture", outputs=NAMES)  # type: ignore[arg-type]
            first.join()
            timer = threading.Timer(4, forward, (reserved(port), answering))  # two seconds are for unknown addresses
            timer.start()
            assert client.reconstruct(b"picture", outputs=NAMES).coefficients.values[5] == 5  # type: ignore[arg-type]
            timer.join()


@pytest.mark.parametrize("starting", [http_starting, grpc_starting])
def test_a_server_that_stays_down_is_an_error_in_time(starting: Any) -> None:
    with starting(10**6) as url:
        with Face3DClient(url, retry=Retry(outage=0.3)) as client, pytest.raises(ServerUnavailable, match="starting"):
            client.detect(b"picture")
        with Face3DClient(url, timeout=1) as client, pytest.raises((ServerUnavailable, Timeout)):
            client.detect(b"picture")


def test_no_retry_means_none() -> None:
    with (
        http_starting() as url,
        Face3DClient(url, retry=Retry(attempts=1)) as client,
        pytest.raises(ServerUnavailable, match="starting"),
    ):
        client.detect(b"picture")


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_an_error_says_whether_a_server_answered(protocol: Protocol) -> None:
    async def ask(url: str) -> ServerUnavailable:
        async with AsyncFace3DClient(url, protocol=protocol, retry=Retry(attempts=1)) as client:
            with pytest.raises(ServerUnavailable) as caught:
                await client.detect(b"picture")
            return caught.value

    def ask_blocking(url: str) -> ServerUnavailable:
        with Face3DClient(url, protocol=protocol, retry=Retry(attempts=1)) as client:
            with pytest.raises(ServerUnavailable) as caught:
                client.detect(b"picture")
            return caught.value

    nobody = "127.0.0.1:9"  # the discard port, where nobody listens
    assert (ask_blocking(nobody).answered, asyncio.run(ask(nobody)).answered) == (False, False)
    with {"grpc": grpc_starting, "http": http_starting}[protocol]() as url:
        assert (ask_blocking(url).answered, asyncio.run(ask(url)).answered) == (True, True)
