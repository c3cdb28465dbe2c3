"""Blocking HTTP on `http.client`: a pool of connections with one deadline for the whole of a call.

tritonclient's own blocking HTTP client runs on gevent, whose sockets belong to the thread that made them: it can
neither be shared between threads nor closed from another one.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import io
import select
import socket
import ssl
import threading
from collections.abc import Mapping
from typing import Any, Final, TypeVar

from face3d_client._errors import Face3DError
from face3d_client._protocol.calls import Call, Reply
from face3d_client._protocol.server import ModelStatus, ServerInfo
from face3d_client._transports import http_messages as messages
from face3d_client._transports.endpoint import Endpoint
from face3d_client._transports.failures import client_closed, no_server
from face3d_client._transports.retry import Deadline
from face3d_client._transports.shared_memory import Region

__all__ = ["HttpTransport"]

T = TypeVar("T")

_CHUNK: Final = 1 << 18


class HttpTransport:
    """A pool of kept connections, as many as calls were ever in flight at the same time."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._context = None if endpoint.tls is None else messages.ssl_context(endpoint.tls)
        self._lock = threading.Lock()
        self._idle: list[http.client.HTTPConnection] = []
        self._busy: set[http.client.HTTPConnection] = set()
        self._closed = False

    def infer(self, call: Call, timeout: float) -> Reply:
        """See `Transport`."""
        return self._exchange(messages.infer(call, timeout), timeout)

    def model_ready(self, model: str, timeout: float) -> bool:
        """See `Transport`."""
        return self._exchange(messages.model_ready(model), timeout)

    def models(self, timeout: float) -> list[ModelStatus]:
        """See `Transport`."""
        return self._exchange(messages.models(), timeout)

    def info(self, timeout: float) -> ServerInfo:
        """See `Transport`."""
        return self._exchange(messages.info(), timeout)

    def register(self, region: Region, timeout: float) -> None:
        """See `Transport`."""
        return self._exchange(messages.register(region), timeout)

    def unregister(self, name: str, timeout: float) -> None:
        """See `Transport`."""
        return self._exchange(messages.unregister(name), timeout)

    def close(self) -> None:
        """See `Transport`."""
        with self._lock:
            self._closed = True
            connections = [*self._idle, *self._busy]
            self._idle.clear()
        for connection in connections:
            # Closing a socket does not wake a thread that waits on it; shutting it down does.
            if connection.sock is not None:
                with contextlib.suppress(OSError):
                    connection.sock.shutdown(socket.SHUT_RDWR)
            connection.close()

    def _exchange(self, request: messages.Request[T], timeout: float) -> T:
        deadline = Deadline(timeout)
        headers = {**messages.PLAIN, **self._endpoint.headers, **request.headers}
        while True:
            connection, kept = self._acquire()
            complete = False
            try:
                answer = _exchange_on(connection, request, self._endpoint.path + request.path, headers, deadline)
                complete = True
                break
            except TimeoutError as error:
                raise deadline.error() from error
            except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: a line that is no header
                # A kept connection may have died of age or with the server; that says nothing about a new one.
                if kept and not self._closed:
                    continue
                if self._closed:
                    raise client_closed() from error
                raise _unreachable(self._endpoint, error) from error
            finally:
                self._release(connection, complete)
        return request.read(answer)

    def _acquire(self) -> tuple[http.client.HTTPConnection, bool]:
        with self._lock:
            if self._closed:
                raise client_closed()
            idle = _pop_idle(self._idle)
            kept = idle is not None
            connection = idle or self._new()
            self._busy.add(connection)
            return connection, kept

    def _new(self) -> http.client.HTTPConnection:
        host, port = self._endpoint.host, self._endpoint.port
        if self._context is None:
            return http.client.HTTPConnection(host, port)
        return http.client.HTTPSConnection(host, port, context=self._context)

    def _release(self, connection: http.client.HTTPConnection, complete: bool) -> None:
        with self._lock:
            self._busy.discard(connection)
            if complete and not self._closed and connection.sock is not None:
                self._idle.append(connection)
                return
        connection.close()


def _pop_idle(idle: list[http.client.HTTPConnection]) -> http.client.HTTPConnection | None:
    """Take a kept connection that has nothing to read: another one was closed, or says what nobody asked for."""
    while idle:
        connection = idle.pop()
        with contextlib.suppress(OSError, ValueError):
            if connection.sock is not None and not select.select([connection.sock], [], [], 0)[0]:
                return connection
        connection.close()
    return None


class _DeadlineReader(io.RawIOBase):
    """The reading end of a socket; every read ends at the deadline, so that a slow drip of bytes ends there too."""

    def __init__(self, wire: socket.socket, deadline: Deadline) -> None:
        self._wire = wire
        self._file = wire.makefile("rb", buffering=0)  # keeps the socket open when `http.client` closes it early
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._wire.settimeout(self._deadline.left())
        return self._file.readinto(buffer)

    def close(self) -> None:
        self._file.close()
        super().close()

    def makefile(self, _: str) -> io.BufferedReader:
        """Make the file that `http.client` reads an answer from, as a socket does."""
        return io.BufferedReader(self)


class _Response(http.client.HTTPResponse):
    """An answer that is read until a deadline."""

    def __init__(self, deadline: Deadline, wire: socket.socket, *words: Any, **more: Any) -> None:
        super().__init__(_DeadlineReader(wire, deadline), *words, **more)  # type: ignore[arg-type]  # it only calls makefile


def _exchange_on(
    connection: http.client.HTTPConnection,
    request: messages.Request[Any],
    path: str,
    headers: Mapping[str, str],
    deadline: Deadline,
) -> messages.Answer:
    connection.timeout = deadline.left()
    connection.response_class = functools.partial(_Response, deadline)  # type: ignore[assignment]  # called, no more
    if connection.sock is None:
        connection.connect()
    connection.sock.settimeout(deadline.left())
    connection.request(request.method, path, request.body, dict(headers))
    with contextlib.closing(connection.getresponse()) as response:
        messages.check_size(response.headers.get("content-encoding"), response.length, request.max_answer)
        chunks, size = [], 0
        while not response.isclosed() and (chunk := response.read(min(_CHUNK, request.max_answer + 1 - size))):
            chunks.append(chunk)
            size += len(chunk)
            messages.check_size(None, size, request.max_answer)
        if response.length:  # http.client does not mind a body cut short
            raise http.client.IncompleteRead(b"", response.length)
    return response.status, dict(response.headers.items()), b"".join(chunks)


def _unreachable(endpoint: Endpoint, error: Exception) -> Face3DError:
    reason = str(error) or type(error).__name__
    if isinstance(error, http.client.BadStatusLine) and not isinstance(error, http.client.RemoteDisconnected):
        reason = "what answers there does not speak HTTP"  # and its bytes are nothing to print
    elif isinstance(error, http.client.IncompleteRead):
        reason = "the answer ended too early"
    return no_server(endpoint, reason, retryable=not isinstance(error, ssl.SSLCertVerificationError))
