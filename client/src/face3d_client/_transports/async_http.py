"""Asyncio HTTP on aiohttp, as in tritonclient, with one deadline for the whole of a call."""

from __future__ import annotations

import asyncio
import socket
import ssl
import weakref
from typing import Any, TypeVar

import aiohttp

from face3d_client._errors import Face3DError
from face3d_client._protocol.calls import Call, Reply
from face3d_client._protocol.server import ModelStatus, ServerInfo
from face3d_client._transports import http_messages as messages
from face3d_client._transports.endpoint import Endpoint
from face3d_client._transports.failures import client_closed, no_server
from face3d_client._transports.loops import PerLoop
from face3d_client._transports.retry import Deadline
from face3d_client._transports.shared_memory import Region

__all__ = ["AsyncHttpTransport"]

T = TypeVar("T")


class AsyncHttpTransport:
    """A session of aiohttp for each event loop, made by the first call there."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._context = None if endpoint.tls is None else messages.ssl_context(endpoint.tls)
        self._sessions = PerLoop(lambda: _Session(endpoint, self._context), _Session.close)
        self._closed = False

    async def infer(self, call: Call, timeout: float) -> Reply:
        """See `AsyncTransport`."""
        return await self._exchange(messages.infer(call, timeout), timeout)

    async def model_ready(self, model: str, timeout: float) -> bool:
        """See `AsyncTransport`."""
        return await self._exchange(messages.model_ready(model), timeout)

    async def models(self, timeout: float) -> list[ModelStatus]:
        """See `AsyncTransport`."""
        return await self._exchange(messages.models(), timeout)

    async def info(self, timeout: float) -> ServerInfo:
        """See `AsyncTransport`."""
        return await self._exchange(messages.info(), timeout)

    async def register(self, region: Region, timeout: float) -> None:
        """See `AsyncTransport`."""
        return await self._exchange(messages.register(region), timeout)

    async def unregister(self, name: str, timeout: float) -> None:
        """See `AsyncTransport`."""
        return await self._exchange(messages.unregister(name), timeout)

    async def close(self) -> None:
        """See `AsyncTransport`."""
        self._closed = True
        await self._sessions.close()

    async def _exchange(self, request: messages.Request[T], timeout: float) -> T:
        if self._closed:
            raise client_closed()
        session = (await self._sessions.get()).session
        scheme = "http" if self._context is None else "https"
        url = f"{scheme}://{self._endpoint.address}{self._endpoint.path}{request.path}"
        deadline = Deadline(timeout)
        try:
            async with (
                asyncio.timeout(timeout),
                session.request(
                    request.method, url, data=request.body, headers=request.headers, allow_redirects=False
                ) as response,
            ):
                answer = response.status, response.headers, await _read(response, request.max_answer)
        except TimeoutError as error:
            raise deadline.error() from error
        except (OSError, aiohttp.ClientError, ValueError) as error:  # ValueError: a line that is no header
            raise _unreachable(self._endpoint, error) from error
        return request.read(answer)


class _Session:
    """A session of one event loop, and its sockets: those of a loop that is closed, aiohttp leaves open."""

    def __init__(self, endpoint: Endpoint, context: ssl.SSLContext | None) -> None:
        self._loop = asyncio.get_running_loop()
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self.session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=context or True, limit=0, socket_factory=self._socket),
            timeout=aiohttp.ClientTimeout(total=None),  # the deadline of each call holds
            headers={**messages.PLAIN, **endpoint.headers},
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    def _socket(self, address: tuple[Any, ...]) -> socket.socket:
        made = socket.socket(*address[:3])
        made.setblocking(False)
        self._sockets.add(made)
        return made

    async def close(self) -> None:
        await self.session.close()
        if self._loop.is_closed():
            for made in list(self._sockets):
                made.close()


async def _read(response: aiohttp.ClientResponse, most: int) -> bytes:
    """Read the body, as long as it has no more than `most` bytes.

    Raises:
        BadResponse: it has more, or is compressed.
    """
    messages.check_size(response.headers.get("content-encoding"), response.content_length, most)
    chunks, size = [], 0
    async for chunk in response.content.iter_any():
        chunks.append(chunk)
        size += len(chunk)
        messages.check_size(None, size, most)
    return b"".join(chunks)


def _unreachable(endpoint: Endpoint, error: Exception) -> Face3DError:
    reason = str(error) or type(error).__name__
    if isinstance(error, aiohttp.ClientResponseError):
        reason = "what answers there does not speak HTTP"  # and its bytes are nothing to print
    elif isinstance(error, aiohttp.ClientPayloadError):
        reason = "the answer ended too early"
    return no_server(endpoint, reason, retryable=not isinstance(error, ssl.SSLCertVerificationError))
