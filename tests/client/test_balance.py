"""Calls over several servers: who gets them, and what happens when one is lost."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from face3d_client import BadImage, Retry, ServerUnavailable
from face3d_client._protocol.codec import build_reconstruct
from face3d_client._transports.endpoint import Endpoint
from face3d_client._transports.factory import open_transport
from face3d_client.balance import BalancedFace3DClient, BalancedTransport

from server.embedded import EmbeddedServer, ServerOptions, on_free_ports
from tests.client import stand_in
from tests.server.calls import counter

NOBODY = "127.0.0.1:9"  # the discard port, where nobody listens


def answered(server: EmbeddedServer) -> float:
    return counter(server, "nv_inference_request_success", "face3d")


@pytest.fixture
def pair(tmp_path: Path) -> list[EmbeddedServer]:
    """Two servers of their own, which a test may kill."""
    repository = stand_in.build(tmp_path / "repository")
    options = on_free_ports(ServerOptions(repository=repository, exit_timeout=5))
    return [EmbeddedServer(replace(options, log_file=tmp_path / f"{name}.log")) for name in ("one", "two")]


def test_no_request_is_lost_when_one_of_two_servers_is_killed(pair: list[EmbeddedServer], portrait_jpeg: bytes) -> None:
    first, second = pair
    with first, second, BalancedFace3DClient([first.grpc, second.grpc]) as client:
        client.wait_ready()
        killed = threading.Event()

        def ask(index: int) -> int:
            if index == 60:
                first.kill()
                killed.set()
            return client.reconstruct(portrait_jpeg, outputs=["coefficients"]).coefficients.values.size

        with ThreadPoolExecutor(6) as pool:
            results = list(pool.map(ask, range(200)))
        assert killed.is_set()
        assert results == [257] * 200
        # Both had worked before: what the survivor answered is less than all.
        assert 0 < answered(second) < 200
        assert client.ready()


def test_work_is_shared_between_servers(pair: list[EmbeddedServer], portrait_jpeg: bytes) -> None:
    first, second = pair
    with first, second, BalancedFace3DClient([first.grpc, second.grpc]) as client:
        client.wait_ready()
        with ThreadPoolExecutor(6) as pool:

            def ask(count: int) -> None:
                list(pool.map(lambda _: client.reconstruct(portrait_jpeg, outputs=["coefficients"]), range(count)))

            ask(12)  # after that both are connected, which takes longer than many answers
            before = Counter({"first": answered(first), "second": answered(second)})
            ask(60)
        shares = Counter({"first": answered(first), "second": answered(second)})
        shares.subtract(before)
        assert sum(shares.values()) >= 58  # Triton counts a request a moment after it was answered
        # Who has fewer in flight is asked, so that a server that the machine slows down gets less: 7 of 60 were seen.
        assert min(shares.values()) >= 1


@contextmanager
def broken_server() -> Iterator[tuple[str, list[int]]]:
    """The address of a server that drops every connection, and a list that grows by one for each."""
    dropped: list[int] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drop() -> None:
            with contextlib.suppress(OSError):  # closed at the end of the block
                while True:
                    listener.accept()[0].close()
                    dropped.append(1)

        thread = threading.Thread(target=drop)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}", dropped
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_a_server_that_is_not_there_costs_one_failed_try_and_is_then_left_alone(
    stand_in_server: EmbeddedServer, portrait_jpeg: bytes
) -> None:
    call = build_reconstruct(portrait_jpeg, {"outputs": ["coefficients"]})
    with broken_server() as (broken, dropped):
        endpoints = (Endpoint.parse(broken, None), Endpoint.parse(stand_in_server.grpc, None))
        transport = BalancedTransport([open_transport(endpoint) for endpoint in endpoints], clock=lambda: 0.0)
        for _ in range(40):  # each of them would choose the broken one half of the time
            assert transport.infer(call, 30)["coefficients"].size == 257
        transport.close()
    assert dropped == [1]


def test_no_call_fails_because_one_of_the_servers_is_not_there(
    stand_in_server: EmbeddedServer, portrait_jpeg: bytes
) -> None:
    with BalancedFace3DClient([NOBODY, stand_in_server.grpc], retry=Retry(attempts=1)) as client:
        for _ in range(20):
            client.reconstruct(portrait_jpeg, outputs=["coefficients"])


def test_an_error_of_the_request_is_raised_at_once_and_blames_no_server(stand_in_server: EmbeddedServer) -> None:
    with BalancedFace3DClient([stand_in_server.grpc, stand_in_server.grpc]) as client:
        with pytest.raises(BadImage):
            client.reconstruct(b"ERROR INVALID_ARG [BadImage] this is no picture.")
        assert client.ready()


def test_when_no_server_is_there_the_error_says_so() -> None:
    with BalancedFace3DClient([NOBODY, "127.0.0.1:10"], retry=Retry(attempts=2, base=0.01)) as client:
        with pytest.raises(ServerUnavailable, match="no server answers"):
            client.detect(b"some picture")
        assert not client.ready()


def test_arguments_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        BalancedFace3DClient([])
    with pytest.raises(ValueError, match="list of addresses"):
        BalancedFace3DClient("localhost:8001")
    with pytest.raises(TypeError, match="shared_memory"):
        BalancedFace3DClient(["localhost"], shared_memory=True)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="'grpc' or 'http'"):
        BalancedFace3DClient(["localhost", "other:8001"], protocol="ftp")  # type: ignore[arg-type]
    assert "localhost:8001" in repr(BalancedFace3DClient(["localhost", "localhost:8002"]))
