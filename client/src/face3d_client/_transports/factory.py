"""Transports chosen by an address: gRPC or HTTP, blocking or asyncio."""

from __future__ import annotations

from face3d_client._transports.endpoint import Endpoint
from face3d_client._transports.interface import AsyncTransport, DirectTransport

__all__ = ["open_async_transport", "open_transport"]

# The imports wait until a protocol is chosen: each loads a network library of its own (0.2 to 0.5 s).


def open_transport(endpoint: Endpoint) -> DirectTransport:
    """Make a blocking transport; it connects with the first call."""
    if endpoint.protocol == "grpc":
        from face3d_client._transports.grpc import GrpcTransport

        return GrpcTransport(endpoint)
    from face3d_client._transports.http import HttpTransport

    return HttpTransport(endpoint)


def open_async_transport(endpoint: Endpoint) -> AsyncTransport:
    """Make an asyncio transport; it connects with the first call, in the event loop that makes it."""
    if endpoint.protocol == "grpc":
        from face3d_client._transports.grpc import AsyncGrpcTransport

        return AsyncGrpcTransport(endpoint)
    from face3d_client._transports.async_http import AsyncHttpTransport

    return AsyncHttpTransport(endpoint)
