"""Exceptions of the transports themselves: no server answered, or the client is closed."""

from __future__ import annotations

import os
from typing import Final

from face3d_client._errors import ServerUnavailable
from face3d_client._transports.endpoint import Endpoint

__all__ = ["client_closed", "no_server"]

_WHAT_TO_CHECK: Final = (
    "Start one (python -m server) or check the address (gRPC: HOST:8001, HTTP: http://HOST:8000; grpcs:// and https:// "
    "where the server has TLS)."
)

# Where gRPC looks for a proxy, in its order.
_PROXIES: Final = ("grpc_proxy", "https_proxy", "http_proxy")


def no_server(endpoint: Endpoint, reason: str, *, retryable: bool = True) -> ServerUnavailable:
    """Make the exception for an address where no server answers.

    Args:
        endpoint: the address.
        reason: what the network said.
        retryable: whether it may answer a moment later.
    """
    error = ServerUnavailable(
        f"no server answers at {endpoint}: {reason}. {_proxy(endpoint)}{_WHAT_TO_CHECK}",
        status="UNAVAILABLE",
        retryable=retryable,
    )
    error.answered = False
    return error


def _proxy(endpoint: Endpoint) -> str:
    """Name the proxy that gRPC takes from the environment; nothing where it takes none."""
    if endpoint.protocol != "grpc" or endpoint.is_loopback:
        return ""
    name = next((name for name in _PROXIES if os.environ.get(name)), None)
    if name is None:
        return ""
    return (
        f"gRPC goes through the proxy that {name} names, unless no_proxy names the server: no_proxy={endpoint.host} "
        "goes without. "
    )


def client_closed() -> ServerUnavailable:
    """Make the exception for a call of a client that was closed before or meanwhile."""
    return ServerUnavailable("this client is closed. Make a new one.", status="CANCELLED")
