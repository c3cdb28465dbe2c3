"""The public HTTP endpoint."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Final

import aiohttp
from aiohttp import web

from server.gateway import limits, outcome
from server.gateway.admission import Ticket
from server.gateway.gateway import EXTENSIONS, Gateway
from server.gateway.http_body import parse_body
from server.gateway.http_connection import ConnectionServer, passed, plain, respond
from server.gateway.refusal import (
    NO_ANSWER,
    NOT_SERVED,
    TOO_LARGE,
    WRONG_MEDIA,
    WRONG_METHOD,
    Refused,
    bad_request,
    shown,
)
from server.gateway.trace import TRACEPARENT
from server.gateway.upstream import check_process

_LENGTH: Final = "Inference-Header-Content-Length"
# Headers that must not stand twice: two readers could take another one each.
_SINGLE: Final = (_LENGTH, "Content-Length", "Content-Type", "Content-Encoding", "Transfer-Encoding", "Host")
_PASSED_BACK: Final = ("Content-Type", _LENGTH)
_MODEL: Final = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?(/ready|/config|/infer)?")


class HttpServer:
    """Answers the paths that are served, and says of every other that it is not."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._runner: web.ServerRunner | None = None

    async def start(self, address: str, port: int) -> int:
        """Listen, and return the port; OSError where it is taken."""
        self._runner = web.ServerRunner(ConnectionServer(self._answer), shutdown_timeout=1.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, address, port, backlog=limits.MAX_CONNECTIONS).start()
        bound: int = self._runner.addresses[0][1]
        return bound

    async def stop(self) -> None:
        """Close the connections."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            return await self._route(request)
        except Refused as error:
            return respond(error)

    async def _route(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.path
        if path in ("/healthz", "/v2/health/ready"):
            _only(request, "GET", "HEAD")
            return plain(200 if self._gateway.ready else 503, self._gateway.state() + "\n")
        if path == "/v2/health/live":
            _only(request, "GET", "HEAD")
            return plain(200)
        if path in ("/v2", "/v2/"):
            _only(request, "GET", "HEAD")
            return self._server_metadata()
        match = _MODEL.fullmatch(path)
        if match is None:
            raise Refused(
                NOT_SERVED,
                "BadRequest",
                "this path is not served here: there are /healthz, /v2, /v2/health/live, /v2/health/ready, "
                "/v2/models/NAME and, under it, /ready, /config and /infer.",
            )
        name, version, end = match[1], match[2] or "", match[3] or ""
        if end == "/infer":
            _only(request, "POST")
            return await self._infer(request, name, version)
        _only(request, "GET", "HEAD")
        if end == "/ready":
            return plain(200 if self._gateway.is_model_ready(name, version) else 503)
        return await self._about(name, version, end)

    def _server_metadata(self) -> web.Response:
        self._gateway.check_serving()
        about = {"name": "triton", "version": self._gateway.upstream.state.version, "extensions": EXTENSIONS}
        return passed(200, json.dumps(about).encode(), {"Content-Type": "application/json"})

    async def _about(self, name: str, version: str, end: str) -> web.Response:
        self._gateway.check_public(name)
        self._gateway.check_serving()
        self._gateway.find_model(name, version)
        return await self._pass("GET", _path(name, version) + end)

    # --- inference --------------------------------------------------------------------------------------------------
    async def _infer(self, request: web.BaseRequest, name: str, version: str) -> web.StreamResponse:
        _check_headers(request)
        with self._gateway.request("http") as ticket:
            self._gateway.find_model(name, version)
            size = request.content_length
            if size is not None and size > limits.MAX_MESSAGE:
                raise _too_large()
            async with self._gateway.admission.reading(in_one_piece=False):
                body = await _body(request, ticket)
            ticket.enter()
            length, media = request.headers.get(_LENGTH), request.headers.get("Content-Type", "")
            parsed = parse_body(name, version, body, length, media)
            large = self._gateway.check(parsed.request)
            headers = {_LENGTH: str(len(parsed.header)), "Content-Type": "application/octet-stream"}
            if TRACEPARENT.fullmatch(trace := request.headers.get("traceparent", "")):
                headers["traceparent"] = trace
            sent = parsed.header + parsed.binary
            del body, parsed
            async with self._gateway.admission.turn(large):
                response = await self._pass("POST", _path(name, version) + "/infer", sent, headers)
            del sent
            if response.status >= 400:
                assert isinstance(response.body, bytes)
                ticket.outcome = outcome.of_http(response.status, response.body)
            return await _write(request, response)

    async def _pass(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> web.Response:
        """Ask Triton, and give what it answers."""
        try:
            async with self._gateway.upstream.http_request(method, path, body, headers) as answer:
                data = await answer.read()
        except TimeoutError:
            raise Refused(
                NO_ANSWER, "Timeout", f"no answer within {limits.WORK_TIME:.0f} s: try again later."
            ) from None
        except (OSError, aiohttp.ClientError):
            raise self._gateway.upstream.connection_lost() from None
        if answer.status >= 500:
            check_process(data.decode(errors="replace"))
        back = {name: answer.headers[name] for name in _PASSED_BACK if name in answer.headers}
        return passed(answer.status, data, back)


def _only(request: web.BaseRequest, *methods: str) -> None:
    if request.method not in methods:
        words = f"{shown(request.method, 20)} is not served at this path: use {methods[0]}."
        raise Refused(WRONG_METHOD, "BadRequest", words)


def _path(name: str, version: str) -> str:
    """Return the path of a model whose name and version are known to be plain."""
    return f"/v2/models/{name}" + (f"/versions/{version}" if version else "")


def _check_headers(request: web.BaseRequest) -> None:
    headers = request.headers
    for name in _SINGLE:
        if len(headers.getall(name, ())) > 1:
            raise bad_request(f"the header {name} stands twice: send it once.")
    encoding = headers.get("Content-Encoding", "identity")
    if encoding.lower() != "identity":
        raise Refused(
            WRONG_MEDIA, "BadRequest", f"the body is compressed ({shown(encoding)}): send it without Content-Encoding."
        )


async def _body(request: web.BaseRequest, ticket: Ticket) -> bytes:
    """Read the whole body, each part held as it comes.

    Raises:
        Refused: it is too large, or broke off.
    """
    if request.headers.get("Expect", "").lower() == "100-continue" and request.transport is not None:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    parts, size = [], 0
    try:
        while part := await request.content.readany():
            size += len(part)
            if size > limits.MAX_MESSAGE:
                raise _too_large()
            await ticket.hold(size)
            parts.append(part)
    except web.RequestPayloadError:
        raise bad_request("the body broke off, or its chunks cannot be read.") from None
    return parts[0] if len(parts) == 1 else b"".join(parts)


async def _write(request: web.BaseRequest, response: web.Response) -> web.Response:
    """Send the answer while its request still counts as inside; a client that does not read it is cut off."""
    try:
        async with asyncio.timeout(limits.ANSWER_TIME):
            await response.prepare(request)
            await response.write_eof()
    except TimeoutError:
        if request.transport is not None:
            request.transport.abort()
    return response


def _too_large() -> Refused:
    words = f"the request has more than {limits.MAX_MESSAGE >> 20} MiB: send a smaller file, without a film behind it."
    return Refused(TOO_LARGE, "ImageTooLarge", words)
