"""A client of several servers: each call goes to the least busy one, and to another if that one fails.

::

    with BalancedFace3DClient(["node1:8001", "node2:8001"]) as client:
        client.reconstruct("portrait.jpg").save("face.glb")

A gRPC connection stays with one server, so something has to choose: a proxy that understands HTTP/2, or the client. A
server that refused (its queue is full) or is gone is left alone for a while, longer each time it happens again; the
call goes on to the next one within the same attempt. Every call may be sent twice without harm: none changes a server.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar, Unpack, cast

from face3d_client._base_client import Connection
from face3d_client._client import Face3DClient
from face3d_client._errors import Face3DError
from face3d_client._protocol.calls import Call, Reply
from face3d_client._protocol.server import ModelStatus, ServerInfo
from face3d_client._transports.endpoint import Endpoint
from face3d_client._transports.factory import open_transport
from face3d_client._transports.interface import DirectTransport, Transport
from face3d_client._transports.retry import Deadline

__all__ = ["BalancedFace3DClient", "BalancedTransport"]

T = TypeVar("T")

# A server that failed is left alone for so many seconds: the first bound, doubled each time, and the last.
_FIRST_REST, _LONGEST_REST = 0.2, 10.0


class _Server:
    """One transport with what is known of it; the counts belong to `BalancedTransport`'s lock."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.in_flight = 0
        self.failures = 0  # in a row
        self.rests_until = 0.0


class BalancedTransport:
    """A `Transport` over several; see the module.

    Args:
        transports: one a server, at least one.
        clock: seconds of a clock that only runs forward.
    """

    def __init__(self, transports: Sequence[Transport], clock: Callable[[], float] = time.monotonic) -> None:
        if not transports:
            raise ValueError("at least one server is needed")
        self._servers = [_Server(transport) for transport in transports]
        self._clock = clock
        self._lock = threading.Lock()

    def infer(self, call: Call, timeout: float) -> Reply:
        """See `Transport`; the frames of a clip all go to one server, which has what it keeps of the clip."""
        if call.place is not None:
            return self._servers[call.place.clip % len(self._servers)].transport.infer(call, timeout)
        return self._on_any(lambda transport, left: transport.infer(call, left), timeout)

    def model_ready(self, model: str, timeout: float) -> bool:
        """Tell whether this model is ready on one of the servers."""
        deadline = Deadline(timeout)
        last: Face3DError | None = None
        for server in self._servers:
            try:
                if server.transport.model_ready(model, deadline.left()):
                    return True
                last = None
            except Face3DError as error:
                last = error
        if last is not None:
            raise last
        return False

    def models(self, timeout: float) -> list[ModelStatus]:
        """List the models of one of the servers."""
        return self._on_any(lambda transport, left: transport.models(left), timeout)

    def info(self, timeout: float) -> ServerInfo:
        """Ask one of the servers for its name, version and extensions."""
        return self._on_any(lambda transport, left: transport.info(left), timeout)

    def close(self) -> None:
        """See `Transport`."""
        for server in self._servers:
            server.transport.close()

    def _on_any(self, send: Callable[[Transport, float], T], timeout: float) -> T:
        """Send to one server after the other, each once, until one answers or the error is the request's own."""
        deadline = Deadline(timeout)
        tried: set[int] = set()
        while True:
            index = self._acquire(tried)
            server = self._servers[index]
            try:
                answer = send(server.transport, deadline.left())
            except Face3DError as error:
                self._release(server, failed=error.retryable)
                tried.add(index)
                if not error.retryable or len(tried) == len(self._servers) or deadline.over():
                    raise
            except BaseException:
                self._release(server, failed=False)
                raise
            else:
                self._release(server, failed=False, answered=True)
                return answer

    def _acquire(self, tried: set[int]) -> int:
        """Choose the server with the fewest calls in flight among those that do not rest; among equals, any."""
        with self._lock:
            now = self._clock()
            rest = [index for index in range(len(self._servers)) if index not in tried]
            awake = [index for index in rest if self._servers[index].rests_until <= now]
            # All of them rest: the one that has rested longest is asked all the same.
            chosen = min(
                awake or rest,
                key=lambda index: (
                    0.0 if awake else self._servers[index].rests_until,
                    self._servers[index].in_flight,
                    random.random(),
                ),
            )
            self._servers[chosen].in_flight += 1
            return chosen

    def _release(self, server: _Server, failed: bool, answered: bool = False) -> None:
        with self._lock:
            server.in_flight -= 1
            if failed:
                # Jitter, so that clients that lost a server together do not come back to it together.
                bound = min(_LONGEST_REST, _FIRST_REST * 2**server.failures)
                server.failures += 1
                server.rests_until = self._clock() + bound * random.uniform(0.5, 1.0)
            elif answered:
                server.failures, server.rests_until = 0, 0.0


class BalancedFace3DClient(Face3DClient):
    """A `Face3DClient` over several servers with the same models.

    Everything else is as there, retries included: an attempt has failed when no server has answered it.

    Args:
        urls: an address for each server, as `Face3DClient` takes them; the protocols may differ.
        **connection: protocol, timeout, retry, tls, token, headers and admin_key of `Face3DClient`, for all servers.

    Raises:
        ValueError: no address, or arguments that contradict each other.
    """

    def __init__(self, urls: Sequence[str], **connection: Unpack[Connection]) -> None:
        if isinstance(urls, str):
            raise ValueError(f"urls is a list of addresses, not one: [{urls!r}]")
        if not urls:
            raise ValueError("at least one address is needed")
        # Memory is shared with one machine only: asked for, it is one argument too many.
        super().__init__(urls[0], **connection, shared_memory=False)
        protocol, tls = connection.get("protocol"), connection.get("tls")
        token, headers, admin_key = connection.get("token"), connection.get("headers"), connection.get("admin_key")
        self._endpoints = [Endpoint.parse(url, protocol, tls, token, headers, admin_key) for url in urls]
        transports = [self._transport, *map(open_transport, self._endpoints[1:])]
        # Without shared memory, no region is ever registered.
        self._transport = cast(DirectTransport, BalancedTransport(transports))

    def __repr__(self) -> str:
        return f"BalancedFace3DClient({[str(endpoint) for endpoint in self._endpoints]!r})"
