"""Fixtures of the client's tests."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterator
from typing import Any, cast

import pytest
from face3d_client import AsyncFace3DClient, Face3DClient, Protocol, Reconstruction
from face3d_client._protocol.codec import parse_reconstruct

from server.embedded import EmbeddedServer, ServerOptions, on_free_ports
from server.service import Service
from tests.client import stand_in, synthetic
from tests.servers import serving


@pytest.fixture
def result() -> Reconstruction:
    """A result of known numbers with every output in it."""
    return parse_reconstruct(synthetic.reply())


@pytest.fixture(scope="session")
def server(running_service: Service) -> Service:
    """The real service as clients meet it: through the gateway."""
    return running_service


@pytest.fixture(scope="session")
def stand_in_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """A real Triton that answers, fails and waits on demand; do not stop it."""
    folder = tmp_path_factory.mktemp("stand_in")
    options = ServerOptions(repository=stand_in.build(folder / "repository"), log_file=folder / "triton.log")
    with serving(on_free_ports(options)) as running:
        yield running


class Blocking:
    """An `AsyncFace3DClient` driven from outside its loop, so that one test can check all four transports."""

    def __init__(self, client: AsyncFace3DClient, runner: asyncio.Runner) -> None:
        self._client = client
        self._runner = runner

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._client, name)
        if not callable(attribute):
            return attribute

        def call(*args: Any, **keywords: Any) -> Any:
            async def run() -> Any:
                answer = attribute(*args, **keywords)
                return await answer if inspect.isawaitable(answer) else [item async for item in answer]

            return self._runner.run(run())

        return call


def url_of(server: EmbeddedServer, protocol: Protocol) -> str:
    """The address of one of a server's two doors."""
    return server.grpc if protocol == "grpc" else server.http


TRANSPORTS = ("grpc", "http", "grpc-async", "http-async")


@pytest.fixture(params=TRANSPORTS)
def client(request: pytest.FixtureRequest, stand_in_server: EmbeddedServer) -> Iterator[Face3DClient]:
    """A client of the stand-in, by each of the four transports in turn."""
    protocol, _, is_async = str(request.param).partition("-")
    kind = cast(Protocol, protocol)
    url = url_of(stand_in_server, kind)
    if not is_async:
        with Face3DClient(url, protocol=kind, timeout=20) as blocking:
            yield blocking
        return
    with asyncio.Runner() as runner:
        asynchronous = AsyncFace3DClient(url, protocol=kind, timeout=20)
        yield cast(Face3DClient, Blocking(asynchronous, runner))
        runner.run(asynchronous.close())
