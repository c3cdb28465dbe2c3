"""The public HTTP endpoint."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any, Final

import aiohttp
from aiohttp import web

from server.gateway import limits
from server.gateway.gateway import EXTENSIONS, Gateway
from server.gateway.http_body import parse_body
from server.gateway.refusal import (
    NO_ANSWER,
    NOT_SERVED,
    TOO_LARGE,
    TOO_SLOW,
    WRONG_MEDIA,
    WRONG_METHOD,
    Refused,
    bad_request,
    shown,
)

_LENGTH: Final = "Inference-Header-Content-Length"
# Headers that must not stand twice: two readers could take another one each.
_SINGLE: Final = (_LENGTH, "Content-Length", "Content-Type", "Content-Encoding", "Transfer-Encoding", "Host")
_PASSED_BACK: Final = ("Content-Type", _LENGTH)
_EMPTY: Final = b""


class HttpServer:
    """Answers the paths that are served, and says of every other that it is not."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        application = web.Application(client_max_size=limits.MAX_MESSAGE, middlewares=[_answer_refusals])
        for path, handler in (
            ("/healthz", self._healthz),
            ("/v2", self._server_metadata),
            ("/v2/health/live", self._live),
            ("/v2/health/ready", self._healthz),
        ):
            application.router.add_get(path, handler)
        for model in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
            application.router.add_get(model, self._model_metadata)
            application.router.add_get(f"{model}/ready", self._model_ready)
            application.router.add_get(f"{model}/config", self._model_config)
            application.router.add_post(f"{model}/infer", self._infer)
        self._runner = web.AppRunner(
            application,
            access_log=None,
            handler_cancellation=True,  # a client that goes away takes its request to Triton with it
            auto_decompress=False,
            max_line_size=limits.MAX_HEADER_FIELD,
            max_field_size=limits.MAX_HEADER_FIELD,
            max_headers=limits.MAX_HEADERS,
            keepalive_timeout=limits.IDLE_TIME,
            lingering_time=1.0,
            read_bufsize=limits.MIB,
        )

    async def start(self, address: str, port: int) -> int:
        """Listen; returns the port. OSError where it is taken."""
        await self._runner.setup()
        site = web.TCPSite(self._runner, address, port, backlog=512)
        await site.start()
        bound: int = self._runner.addresses[0][1]
        return bound

    async def stop(self) -> None:
        """Close the connections."""
        await self._runner.cleanup()

    # --- state ------------------------------------------------------------------------------------------------------
    async def _live(self, _: web.Request) -> web.Response:
        return web.Response()

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.Response(status=200 if self._gateway.ready else 503, text=self._gateway.state() + "\n")

    async def _server_metadata(self, _: web.Request) -> web.Response:
        self._gateway.open()
        return web.json_response(
            {"name": "triton", "version": self._gateway.upstream.seen.version, "extensions": EXTENSIONS}
        )

    async def _model_ready(self, request: web.Request) -> web.Response:
        ready = self._gateway.is_model_ready(*_named(request))
        return web.Response(status=200 if ready else 503)

    async def _model_metadata(self, request: web.Request) -> web.Response:
        return await self._about(request, "")

    async def _model_config(self, request: web.Request) -> web.Response:
        return await self._about(request, "/config")

    async def _about(self, request: web.Request, end: str) -> web.Response:
        name, version = _named(request)
        self._gateway.known(name)
        self._gateway.open()
        self._gateway.model(name, version)
        return await self._pass("GET", _path(name, version) + end)

    # --- inference --------------------------------------------------------------------------------------------------
    async def _infer(self, request: web.Request) -> web.StreamResponse:
        name, version = _named(request)
        _check_headers(request)
        with self._gateway.request("http") as ticket:
            self._gateway.known(name)
            size = request.content_length
            await ticket.hold(limits.MAX_MESSAGE if size is None else size)
            body = await _body(request)
            await ticket.hold(len(body))
            parsed = parse_body(
                name, version, body, request.headers.get(_LENGTH), request.headers.get("Content-Type", "")
            )
            self._gateway.check(parsed.request)
            headers = {_LENGTH: str(len(parsed.header)), "Content-Type": "application/octet-stream"}
            if (trace := request.headers.get("traceparent", "")) and len(trace) == 55:
                headers["traceparent"] = trace
            answer = await self._pass("POST", _path(name, version) + "/infer", parsed.header + bytes(parsed.binary), headers)
            return answer

    async def _pass(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> web.Response:
        """Ask Triton and answer with what it said."""
        try:
            async with self._gateway.upstream.exchange(method, path, body, headers) as answer:
                data = await answer.read()
        except TimeoutError:
            raise Refused(NO_ANSWER, "Timeout", f"no answer within {limits.WORK_TIME:.0f} s: try again later.") from None
        except (OSError, aiohttp.ClientError) as error:
            raise self._gateway.upstream.broken(error) from None
        back = {name: answer.headers[name] for name in _PASSED_BACK if name in answer.headers}
        return web.Response(status=answer.status, body=data, headers=back)


def _named(request: web.Request) -> tuple[str, str]:
    return request.match_info["model"], request.match_info.get("version", "")


def _path(name: str, version: str) -> str:
    """The path of a model whose name and version are known to be plain."""
    return f"/v2/models/{name}" + (f"/versions/{version}" if version else "")


def _check_headers(request: web.Request) -> None:
    headers = request.headers
    for name in _SINGLE:
        if len(headers.getall(name, ())) > 1:
            raise bad_request(f"the header {name} stands twice: send it once.")
    encoding = headers.get("Content-Encoding", "identity")
    if encoding.lower() != "identity":
        raise Refused(
            WRONG_MEDIA, "BadRequest", f"the body is compressed ({shown(encoding)}): send it without Content-Encoding."
        )


async def _body(request: web.Request) -> bytes:
    """The whole body.

    Raises:
        Refused: it is too large, or too slow.
    """
    if (request.content_length or 0) > limits.MAX_MESSAGE:
        raise _too_large()
    try:
        async with asyncio.timeout(limits.BODY_TIME):
            return await request.read()
    except web.HTTPRequestEntityTooLarge:
        raise _too_large() from None
    except TimeoutError:
        raise Refused(
            TOO_SLOW, "Timeout", f"the body was not whole within {limits.BODY_TIME:.0f} s: send a smaller file."
        ) from None


def _too_large() -> Refused:
    return Refused(
        TOO_LARGE, "ImageTooLarge", f"the request has more than {limits.MAX_MESSAGE >> 20} MiB: send a smaller file."
    )


def refusal_response(error: Refused) -> web.Response:
    """The answer to a refused request, in the protocol's form of an error."""
    headers = {} if error.kind.retry_after is None else {"Retry-After": str(error.kind.retry_after)}
    return web.Response(
        status=error.kind.http,
        body=json.dumps({"error": str(error)}).encode(),
        headers=headers | {"Content-Type": "application/json"},
    )


@web.middleware
async def _answer_refusals(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except Refused as error:
        return refusal_response(error)
    except web.HTTPMethodNotAllowed as error:
        allowed = ", ".join(sorted(error.allowed_methods))
        return refusal_response(
            Refused(WRONG_METHOD, "BadRequest", f"{shown(request.method)} is not served at this path: use {allowed}.")
        )
    except web.HTTPNotFound:
        return refusal_response(
            Refused(
                NOT_SERVED,
                "BadRequest",
                "this path is not served here: there are /healthz, /v2, /v2/health/live, /v2/health/ready and, under "
                "/v2/models/NAME, nothing, /ready, /config and (POST) /infer.",
            )
        )
