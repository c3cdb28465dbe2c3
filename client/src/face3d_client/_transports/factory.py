"""What carries a call to the server: gRPC or HTTP, blocking or not, behind two small interfaces."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from face3d_client._protocol.codec import Call, Reply
from face3d_client._text import printable
from face3d_client._transports.endpoint import Endpoint
from face3d_client._transports.shared_memory import Region

__all__ = [
    "AsyncTransport",
    "DirectTransport",
    "ModelStatus",
    "ServerInfo",
    "Transport",
    "open_async_transport",
    "open_transport",
]


@dataclass(frozen=True)
class ModelStatus:
    """A version of a model on the server.

    Attributes:
        name: the model's name.
        version: its version; empty where none could be loaded.
        state: READY, UNAVAILABLE, LOADING or UNLOADING; empty where it was never loaded.
        reason: why it is not ready, in the server's words.

    None of them holds control characters, whatever the server wrote.
    """

    name: str
    version: str
    state: str
    reason: str = ""

    def __post_init__(self) -> None:
        for name in ("name", "version", "state", "reason"):
            object.__setattr__(self, name, printable(getattr(self, name)))

    @property
    def ready(self) -> bool:
        """Whether it answers."""
        return self.state == "READY"


@dataclass(frozen=True)
class ServerInfo:
    """Who answers.

    Attributes:
        name: mostly ``triton``.
        version: Triton's version.
        extensions: the protocol extensions it speaks.

    None of them holds control characters, whatever the server wrote.
    """

    name: str
    version: str
    extensions: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", printable(self.name))
        object.__setattr__(self, "version", printable(self.version))
        object.__setattr__(self, "extensions", tuple(printable(extension) for extension in self.extensions))


class Transport(Protocol):
    """Blocking; every method may be called from any thread and raises `Face3DError` only; timeouts are in seconds."""

    def infer(self, call: Call, timeout: float) -> Reply:
        """Send one call and wait for its answer."""
        ...

    def model_ready(self, model: str, timeout: float) -> bool:
        """Whether this model answers."""
        ...

    def models(self, timeout: float) -> list[ModelStatus]:
        """Every model in the server's repository."""
        ...

    def info(self, timeout: float) -> ServerInfo:
        """Who answers."""
        ...

    def close(self) -> None:
        """Close the connections; calls in flight end with ServerUnavailable."""
        ...


class DirectTransport(Transport, Protocol):
    """To one server, so that memory can be shared with it."""

    def register(self, region: Region, timeout: float) -> None:
        """Make a region of shared memory known to the server."""
        ...

    def unregister(self, name: str, timeout: float) -> None:
        """Let the server forget a region."""
        ...


class AsyncTransport(Protocol):
    """The same for asyncio; used from one event loop."""

    async def infer(self, call: Call, timeout: float) -> Reply:
        """Send one call and wait for its answer."""
        ...

    async def model_ready(self, model: str, timeout: float) -> bool:
        """Whether this model answers."""
        ...

    async def models(self, timeout: float) -> list[ModelStatus]:
        """Every model in the server's repository."""
        ...

    async def info(self, timeout: float) -> ServerInfo:
        """Who answers."""
        ...

    async def register(self, region: Region, timeout: float) -> None:
        """Make a region of shared memory known to the server."""
        ...

    async def unregister(self, name: str, timeout: float) -> None:
        """Let the server forget a region."""
        ...

    async def close(self) -> None:
        """Close the connections."""
        ...


# The imports wait until a protocol is chosen: each loads a network library of its own (0.2 to 0.5 s).


def open_transport(endpoint: Endpoint) -> DirectTransport:
    """A blocking transport; connects with the first call."""
    if endpoint.protocol == "grpc":
        from face3d_client._transports.grpc import GrpcTransport

        return GrpcTransport(endpoint)
    from face3d_client._transports.http import HttpTransport

    return HttpTransport(endpoint)


def open_async_transport(endpoint: Endpoint) -> AsyncTransport:
    """An asyncio transport; connects with the first call, in the event loop that makes it."""
    if endpoint.protocol == "grpc":
        from face3d_client._transports.grpc import AsyncGrpcTransport

        return AsyncGrpcTransport(endpoint)
    from face3d_client._transports.http import AsyncHttpTransport

    return AsyncHttpTransport(endpoint)
