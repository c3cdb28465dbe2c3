"""Interfaces of the transports: blocking and asyncio, the same methods in both."""

from __future__ import annotations

from typing import Protocol

from face3d_client._protocol.calls import Call, Reply
from face3d_client._protocol.server import ModelStatus, ServerInfo
from face3d_client._transports.shared_memory import Region

__all__ = ["AsyncTransport", "DirectTransport", "Transport"]


class Transport(Protocol):
    """Blocking; every method may be called from any thread and raises `Face3DError` only; timeouts are in seconds."""

    def infer(self, call: Call, timeout: float) -> Reply:
        """Send one call and wait for its answer."""
        ...

    def model_ready(self, model: str, timeout: float) -> bool:
        """Tell whether this model is ready."""
        ...

    def models(self, timeout: float) -> list[ModelStatus]:
        """List every model in the server's repository."""
        ...

    def info(self, timeout: float) -> ServerInfo:
        """Ask for the server's name, version and extensions."""
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
        """Tell whether this model is ready."""
        ...

    async def models(self, timeout: float) -> list[ModelStatus]:
        """List every model in the server's repository."""
        ...

    async def info(self, timeout: float) -> ServerInfo:
        """Ask for the server's name, version and extensions."""
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
