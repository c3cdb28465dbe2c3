"""Connections of the public HTTP endpoint: aiohttp's, with bounds that it does not have by itself."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

from aiohttp import HttpVersion11, web

from server.gateway import limits
from server.gateway.gateway import log
from server.gateway.refusal import Kind, Refused, bad_request, overloaded, shown

_NAME: Final = {"Server": "face3d"}  # and neither Python's nor aiohttp's version
_QUIET: Final = logging.getLogger("server.gateway.http")
_QUIET.addHandler(logging.NullHandler())
_QUIET.propagate = False  # aiohttp logs the client's bytes of a request that it cannot read


_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
# Seconds between the two looks at whether a client that sends nothing more still listens.
_LISTENS_AFTER: Final = 0.5


class Connection(web.RequestHandler):
    """One connection: its first request must come in time, and there is a bound on their number.

    Attributes:
        unanswered: the request that is being answered.
    """

    unanswered: web.BaseRequest | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection, or answer that there are too many."""
        super().connection_made(transport)
        assert isinstance(transport, asyncio.Transport)
        assert self._manager is not None
        if len(self._manager.connections) > limits.MAX_CONNECTIONS:
            transport.write(_full())
            self.force_close()
        else:
            asyncio.get_running_loop().call_later(limits.HEADER_TIME, self._expect_request)

    def _expect_request(self) -> None:
        if not self._request_count:
            self.force_close()

    def eof_received(self) -> bool:  # type: ignore[override]
        """Keep a connection whose client has closed its sending half, until the request before that is answered.

        A client that has gone altogether looks the same: its kernel answers a first interim response with a reset,
        which the second one meets, and the request is given up. Clients skip these (RFC 9110, 15.2).
        """
        super().eof_received()
        if self.unanswered is None or not self.unanswered.content.is_eof():
            return False
        self.close()  # after the answer
        self._see_that_it_listens()
        asyncio.get_running_loop().call_later(_LISTENS_AFTER, self._see_that_it_listens)
        return True

    def _see_that_it_listens(self) -> None:
        request = self.unanswered
        begun = request is None or request.writer.output_size > 0
        if self.transport is not None and request is not None and not begun and request.version >= HttpVersion11:
            self.transport.write(_CONTINUE)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what is no HTTP, and what the gateway itself did not expect, in the protocol's form of an error."""
        if request.writer.output_size > 0:
            raise ConnectionError("an answer has been begun")
        if status < 500:
            reason = shown((message or "").partition("\n")[0].partition(" b'")[0].rstrip(":"), 80)
            response = respond(bad_request(f"this is no HTTP request that can be read ({reason})."))
        else:
            log(f"unexpected: {shown(repr(exc), 200)}")
            response = error_response(status, "[ServerUnavailable] the gateway failed: see its log.")
        response.force_close()
        return response


class ConnectionServer(web.Server):
    """Makes a `Connection` for each that comes in."""

    def __init__(self, handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]) -> None:
        super().__init__(self._answered, request_factory=self._request, handler_cancellation=True)
        self._answer = handler

    def __call__(self) -> Connection:
        """Make the handler of one connection."""
        return Connection(
            self,
            loop=asyncio.get_running_loop(),
            access_log=None,  # type: ignore[arg-type]
            logger=_QUIET,
            auto_decompress=False,
            max_line_size=limits.MAX_HEADER_FIELD,
            max_field_size=limits.MAX_HEADER_FIELD,
            max_headers=limits.MAX_HEADERS,
            keepalive_timeout=limits.IDLE_TIME,
            lingering_time=limits.LINGER_TIME,
            read_bufsize=limits.MIB,
        )

    def _request(self, message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.BaseRequest:
        loop = asyncio.get_running_loop()
        request = web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=limits.MAX_MESSAGE)
        protocol.unanswered = request
        return request

    async def _answered(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            return await self._answer(request)
        finally:
            assert isinstance(request.protocol, Connection)
            request.protocol.unanswered = None


def plain(status: int, text: str = "") -> web.Response:
    """Build an answer with a line of text, or with nothing."""
    return web.Response(status=status, text=text, headers=_NAME)


def passed(status: int, body: bytes, headers: dict[str, str]) -> web.Response:
    """Build the answer that passes Triton's on."""
    return web.Response(status=status, body=body, headers=headers | _NAME)


def error_response(status: int, sentence: str, retry_after: int | None = None) -> web.Response:
    """Build an error in the protocol's form."""
    headers = {"Content-Type": "application/json"}
    if retry_after is not None:
        headers["Retry-After"] = str(retry_after)
    return passed(status, json.dumps({"error": sentence}).encode(), headers)


def respond(error: Refused) -> web.Response:
    """Build the answer to a refused request."""
    kind: Kind = error.kind
    return error_response(kind.http, str(error), kind.retry_after)


def _full() -> bytes:
    error = overloaded(f"the server is full ({limits.MAX_CONNECTIONS} connections are open)")
    body = json.dumps({"error": str(error)}).encode()
    return (
        b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\n"
        b"Connection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    )
