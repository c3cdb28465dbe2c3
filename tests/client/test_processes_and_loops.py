"""One client in several processes and event loops, and what its requests carry and go through."""

from __future__ import annotations

import asyncio
import copy
import gc
import multiprocessing
import os
import pickle
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import pytest
from face3d_client import AsyncFace3DClient, Face3DClient, Protocol, Retry, ServerUnavailable
from face3d_client._transports.endpoint import Endpoint
from face3d_client._transports.failures import no_server

from server.embedded import EmbeddedServer
from tests.client.conftest import url_of

PROTOCOLS: tuple[Protocol, ...] = ("grpc", "http")
PICTURE = b"a picture"


def faces(client: Face3DClient) -> int:
    """How many faces the stand-in finds; also run in other processes."""
    return len(client.detect(PICTURE))


@pytest.fixture(params=PROTOCOLS)
def blocking(request: pytest.FixtureRequest, stand_in_server: EmbeddedServer) -> Iterator[Face3DClient]:
    url = url_of(stand_in_server, request.param)
    with Face3DClient(url, protocol=request.param, timeout=20) as client:
        yield client


# --- pickle ---------------------------------------------------------------------------------------------------------


def _again(data: bytes) -> Any:
    return pickle.loads(data)  # noqa: S301  # of this test


def test_a_client_is_pickled_as_its_settings_and_connects_anew(blocking: Face3DClient) -> None:
    assert faces(blocking) == 3
    for other in (_again(pickle.dumps(blocking)), copy.deepcopy(blocking)):
        with other:
            assert other.endpoint == blocking.endpoint
            assert other._transport is not blocking._transport
            assert faces(other) == 3
    assert faces(blocking) == 3, "closing the copy leaves the original open"


def test_every_setting_is_in_the_pickle(monkeypatch: pytest.MonkeyPatch) -> None:
    retry = Retry(attempts=2)
    client = AsyncFace3DClient(
        "https://example.org:99/x", timeout=7, retry=retry, token="secret", headers={"x-a": "b"}, admin_key="key"
    )
    data = pickle.dumps(client)
    monkeypatch.setenv("FACE3D_URL", "grpc://elsewhere:1")
    other = _again(data)
    assert type(other) is AsyncFace3DClient
    assert other.endpoint == client.endpoint
    assert (other._timeout, other._budget._policy) == (7, retry)


def test_the_address_of_the_environment_is_pickled_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACE3D_URL", "http://first:1")
    data = pickle.dumps(Face3DClient())
    monkeypatch.setenv("FACE3D_URL", "http://second:2")
    assert str(_again(data).endpoint) == "http://first:1"


def test_processes_that_are_spawned_are_handed_a_client(blocking: Face3DClient) -> None:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(faces, blocking).result(timeout=120) == 3


# --- fork -----------------------------------------------------------------------------------------------------------


def in_child(run: Any) -> int:
    """Run a function in a process that is forked; its exit status, 99 where it hangs."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            threading.Timer(60, os._exit, (99,)).start()
            status = int(run())
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_forked_process_connects_anew_and_the_parent_keeps_its_connection(blocking: Face3DClient) -> None:
    assert faces(blocking) == 3
    transport = blocking._transport
    for _ in range(2):
        assert in_child(lambda: faces(blocking)) == 3
    assert blocking._transport is transport
    assert faces(blocking) == 3


def test_a_lock_that_a_thread_holds_during_the_fork_stops_nobody(blocking: Face3DClient) -> None:
    assert faces(blocking) == 3
    with blocking._budget._lock:
        assert in_child(lambda: faces(blocking)) == 3


# --- event loops ----------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_one_client_works_in_one_loop_after_the_other(stand_in_server: EmbeddedServer, protocol: Protocol) -> None:
    client = AsyncFace3DClient(url_of(stand_in_server, protocol), protocol=protocol, timeout=20)

    async def found() -> int:
        return len(await client.detect(PICTURE))

    assert [asyncio.run(found()) for _ in range(3)] == [3, 3, 3]
    asyncio.run(client.close())
    gc.collect()  # asyncio complains of transports that outlive their loop: here, and not in the next test
    with pytest.raises(ServerUnavailable, match="closed"):
        asyncio.run(found())


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_one_client_works_in_two_loops_at_the_same_time(stand_in_server: EmbeddedServer, protocol: Protocol) -> None:
    client = AsyncFace3DClient(url_of(stand_in_server, protocol), protocol=protocol, timeout=20)
    results: list[int] = []
    together = threading.Barrier(2)

    def work() -> None:
        async def found() -> int:
            faces = await client.detect(PICTURE)
            await asyncio.to_thread(together.wait, 20)
            return len(faces) + len(await client.detect(PICTURE))

        results.append(asyncio.run(found()))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert results == [6, 6]
    asyncio.run(client.close())
    gc.collect()


# --- proxies and compression ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["http_proxy", "https_proxy", "grpc_proxy"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_server_on_this_machine_is_reached_whatever_proxy_there_is(
    stand_in_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch, protocol: Protocol, name: str
) -> None:
    monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    with Face3DClient(url_of(stand_in_server, protocol), protocol=protocol, timeout=20) as client:
        assert faces(client) == 3


def test_a_server_elsewhere_that_is_not_reached_is_told_with_its_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("grpc_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://user:password@proxy.example.org:3128")
    words = str(no_server(Endpoint.parse("grpc://gpu.example.org", None), "refused"))
    assert "http_proxy" in words
    assert "no_proxy=gpu.example.org" in words
    assert "password" not in words
    assert "http_proxy" not in str(no_server(Endpoint.parse("http://gpu.example.org", None), "refused"))
    assert "http_proxy" not in str(no_server(Endpoint.parse("localhost:8001", None), "refused"))


@pytest.mark.parametrize(
    ("host", "here"),
    [
        ("localhost", True),
        ("LOCALHOST", True),
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("[::1]", True),
        ("x.localhost", True),
        ("10.0.0.1", False),
        ("example.org", False),
        ("localhost.example.org", False),
    ],
)
def test_what_is_on_this_machine_is_known_by_its_name(host: str, here: bool) -> None:
    assert Endpoint.parse(f"grpc://{host}:8001", None).is_loopback is here


@pytest.mark.parametrize("asynchronous", [False, True])
def test_no_compression_is_asked_for(asynchronous: bool) -> None:
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as door:

        def answer() -> None:
            wire, _ = door.accept()
            with wire:
                heard.append(wire.recv(65_536))
                wire.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        url = f"http://127.0.0.1:{door.getsockname()[1]}"
        if asynchronous:

            async def ready() -> bool:
                async with AsyncFace3DClient(url) as client:
                    return await client.ready("face3d")

            assert asyncio.run(ready())
        else:
            with Face3DClient(url) as client:
                assert client.ready("face3d")
        thread.join(20)
    asked = [line for line in heard[0].lower().split(b"\r\n") if line.startswith(b"accept-encoding")]
    assert asked == [b"accept-encoding: identity"]


def test_an_unknown_option_is_told_the_nearest_right_one() -> None:
    with Face3DClient("localhost:1") as client, pytest.raises(TypeError, match="did you mean score_threshold"):
        client.reconstruct(PICTURE, score_treshold=0.5)  # type: ignore[call-arg]
