"""Exceptions of the transports themselves: no server answered, or the client is closed."""

from __future__ import annotations

from typing import Final

from face3d_client._errors import ServerUnavailable
from face3d_client._transports.endpoint import Endpoint

__all__ = ["client_closed", "no_server"]

_WHAT_TO_CHECK: Final = (
    "Start one (python -m server) or check the address (gRPC: HOST:8001, HTTP: http://HOST:8000; grpcs:// and https:// "
    "where the server has TLS)."
)


def no_server(endpoint: Endpoint, reason: str, *, retryable: bool = True) -> ServerUnavailable:
    """Make the exception for an address where no server answers.

    Args:
        endpoint: the address.
        reason: what the network said.
        retryable: whether it may answer a moment later.
    """
    error = ServerUnavailable(
        f"no server answers at {endpoint}: {reason}. {_WHAT_TO_CHECK}", status="UNAVAILABLE", retryable=retryable
    )
    error.answered = False
    return error


def client_closed() -> ServerUnavailable:
    """Make the exception for a call of a client that was closed before or meanwhile."""
    return ServerUnavailable("this client is closed. Make a new one.", status="CANCELLED")
