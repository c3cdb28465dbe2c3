"""Pictures through system shared memory: right answers, nothing left behind, a server that was started again."""

from __future__ import annotations

import asyncio
import dataclasses
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from face3d_client import AsyncFace3DClient, BadImage, Face3DClient, Protocol, Retry, ServerUnavailable

from server.embedded import EmbeddedServer, ServerOptions, on_free_ports
from tests.client import stand_in
from tests.client.conftest import url_of
from tests.servers import serving

MEMORY = Path("/dev/shm")
both = pytest.mark.parametrize("protocol", ["grpc", "http"])


def regions() -> set[str]:
    return {path.name for path in MEMORY.glob("face3d_*")}


@both
def test_pictures_arrive_and_the_memory_is_given_back(stand_in_server: EmbeddedServer, protocol: Protocol) -> None:
    before = regions()
    with Face3DClient(url_of(stand_in_server, protocol), protocol=protocol, shared_memory=True) as client:
        for number in range(20):
            picture = f"NUMBER {number} ".encode() + bytes(number * 100_000)
            assert client.reconstruct(picture, outputs=["coefficients"]).coefficients.values[0] == number
        assert 0 < len(regions() - before) <= 2  # used again: one of 1 MiB, one of 2
        with pytest.raises(BadImage):
            client.reconstruct(b"ERROR INVALID_ARG [BadImage] Bad. Send a good one.")
        assert len(client.reconstruct_all(np.zeros((40, 50, 3), np.uint8))) == 3
    assert regions() == before


@both
def test_async_clients_share_memory_too(stand_in_server: EmbeddedServer, protocol: Protocol) -> None:
    before = regions()

    async def ask() -> list[float]:
        url = url_of(stand_in_server, protocol)
        async with AsyncFace3DClient(url, protocol=protocol, shared_memory=True) as client:
            pictures = [f"NUMBER {number}".encode() for number in range(30)]
            outcomes = client.map(pictures, concurrency=6, outputs=["coefficients"])
            return [float(outcome.unwrap().coefficients.values[0]) async for outcome in outcomes]

    assert asyncio.run(ask()) == list(range(30))
    assert regions() == before


def test_threads_never_see_each_others_pictures(stand_in_server: EmbeddedServer) -> None:
    with Face3DClient(stand_in_server.grpc, shared_memory=True) as client:

        def ask(number: int) -> float:
            return float(
                client.reconstruct(f"NUMBER {number}".encode(), outputs=["coefficients"]).coefficients.values[0]
            )

        with ThreadPoolExecutor(6) as pool:
            assert list(pool.map(ask, range(100))) == list(range(100))


@both
def test_a_server_that_was_started_again_is_told_of_the_memory_again(tmp_path: Path, protocol: Protocol) -> None:
    options = on_free_ports(ServerOptions(repository=stand_in.build(tmp_path / "repository"), exit_timeout=5))
    with serving(options) as server:
        client = Face3DClient(
            url_of(server, protocol), protocol=protocol, shared_memory=True, retry=Retry(attempts=10, cap=1.0)
        )
        assert client.reconstruct(b"NUMBER 1").coefficients.values[0] == 1
        doors = (server.http, server.grpc, server.metrics)
    http, grpc, metrics = (int(door.rpartition(":")[2]) for door in doors)
    with serving(dataclasses.replace(options, http_port=http, grpc_port=grpc, metrics_port=metrics)), client:
        assert client.reconstruct(b"NUMBER 2").coefficients.values[0] == 2


def test_a_closed_client_makes_no_memory(stand_in_server: EmbeddedServer) -> None:
    before = regions()
    client = Face3DClient(stand_in_server.grpc, shared_memory=True)
    assert client.reconstruct(b"NUMBER 1", outputs=["coefficients"]).coefficients.values[0] == 1
    client.close()
    with pytest.raises(ServerUnavailable, match="closed"):
        client.reconstruct(b"NUMBER 2")
    assert regions() == before


def test_a_server_on_another_machine_is_refused() -> None:
    with pytest.raises(ValueError, match="one machine only"):
        Face3DClient("faces.example:8001", shared_memory=True)
