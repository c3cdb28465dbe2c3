"""ASGI guard before Gradio: it passes on only the requests that the page itself makes.

Gradio's server has some fifty routes, of which the page needs twenty. The others start encoders (recordings), fetch
addresses (``/proxy=``) or call an event without the page (``/run``, ``/call``): here they are not there. Of what is
left, the sizes are bounded, every file that a request names must have been uploaded, and a request that another site's
page made in a visitor's browser is refused.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import os
import re
import stat
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from pathlib import Path
from typing import Any, Final, TypeAlias
from urllib.parse import urlsplit

from face3d_client._images import MAX_BYTES
from face3d_client._text import printable

__all__ = ["PageGuard", "is_upload"]

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

_READ_PATHS: Final = re.compile(
    r"/|/config/?|/theme\.css|/favicon\.ico|/robots\.txt|/manifest\.json|/pwa_icon(/\d+)?|/(assets|static|svelte)/.+"
    r"|/gradio_api/(app_id/?|info/?|theme\.css|startup-events|upload_progress|queue/(data|status)|heartbeat/\w+|file=/.+)"
)
_WRITE_PATHS: Final = re.compile(r"/gradio_api/(queue/join/?|upload/?|cancel|reset/?)")
_MAX_EVENT: Final = 64 << 10  # bytes: the values of some twenty sliders and the name of a file
_MAX_UPLOAD: Final = MAX_BYTES + (16 << 10)  # one photograph, and what a form puts around it
# Bytes that all files of visitors may have together. They are deleted after an hour or two; until then, whoever comes
# when this is used up is asked to come back.
_MAX_STORED: Final = 4 << 30
_MAX_UPLOADS: Final = 8  # at the same time, the others wait: each may hold MAX_BYTES that are not yet counted
_UPLOAD_SECONDS: Final = 120.0  # for one, waiting included: MAX_BYTES over 5 Mbit/s
_ABANDONED_SECONDS: Final = 3600.0  # what an upload that was cut off left is deleted after so long


class PageGuard:
    """An ASGI middleware around Gradio's server.

    Args:
        app: Gradio's.
        uploads: the folder that Gradio keeps visitors' files in.
        hosts: names by which the page may be called, besides localhost and every IP address. A page of an attacker's
            site can make a browser send requests to a name of that site which resolves to this machine (DNS rebinding),
            but never to another name.
        max_stored: bytes of all files in `uploads` from which on no more are taken.
    """

    def __init__(self, app: App, uploads: str, hosts: Iterable[str] = (), max_stored: int = _MAX_STORED) -> None:
        self._app = app
        self._uploads = uploads
        self._hosts = {"localhost", *(host.lower() for host in hosts)}
        self._max_stored = max_stored
        self._uploading = asyncio.Semaphore(_MAX_UPLOADS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # the page has no web sockets
            await send({"type": "websocket.close", "code": 1008})
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        refused = self._refusal(scope["method"], scope["path"], headers)
        if refused is not None:
            await _refuse(send, *refused)
        elif "/queue/join" in scope["path"]:
            await self._event(scope, receive, send)
        elif "/gradio_api/upload" in scope["path"] and scope["method"] == "POST":
            await self._upload(scope, receive, send)
        else:
            await self._app(scope, receive, _with_headers(send) if "file=" in scope["path"] else send)

    def _refusal(self, method: str, path: str, headers: Mapping[str, str]) -> tuple[int, str] | None:
        """Choose the status and sentence for a request that is refused; None for others."""
        host = headers.get("host", "")
        if not self._is_known_host(_host_name(host)):
            return 421, "this page is not known by that name; start it with --allow-host NAME if it should be"
        if method in ("GET", "HEAD"):
            return None if _READ_PATHS.fullmatch(path) else (404, "there is nothing here")
        if method != "POST" or not _WRITE_PATHS.fullmatch(path):
            return 404, "there is nothing here"
        origin = headers.get("origin")
        if (origin is not None and urlsplit(origin).netloc.lower() != host.lower()) or headers.get(
            "sec-fetch-site", "same-origin"
        ) not in ("same-origin", "none"):
            return 403, "another site's page may not use this one"
        length = headers.get("content-length", "")
        if not re.fullmatch(r"[0-9]{1,12}", length):
            return 411, "the length of the body is needed"
        if int(length) > (_MAX_UPLOAD if "/upload" in path else _MAX_EVENT):
            return 413, f"that is too large: a photograph may have {MAX_BYTES >> 20} MiB"
        return None

    def _is_known_host(self, name: str) -> bool:
        if name in self._hosts:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    async def _event(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass an event on if its files were all uploaded."""
        body = b""
        more = True
        while more and len(body) <= _MAX_EVENT:
            message = await receive()
            if message["type"] != "http.request":
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
        try:
            strange = _foreign_file(json.loads(body), self._uploads)
        except (ValueError, RecursionError):
            strange = "a body that is no JSON"
        if more or strange is not None:
            await _refuse(send, 400, f"{strange or 'the body'} was not uploaded here")
            return
        told = False

        async def again() -> MutableMapping[str, Any]:
            nonlocal told
            if told:
                return await receive()
            told = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, again, send)

    async def _upload(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass an upload on while there is room for it."""
        try:
            async with asyncio.timeout(_UPLOAD_SECONDS), self._uploading:
                if await asyncio.to_thread(_stored, self._uploads) < self._max_stored:
                    await self._app(scope, receive, send)
                    return
        except TimeoutError:
            await _refuse(send, 408, "that took too long; try again with a smaller photograph")
        else:
            await _refuse(send, 507, "no more files can be taken now; try again in an hour")


def is_upload(path: object, uploads: str) -> bool:
    """Tell whether this is the full path of a regular file in the folder of uploads, its links resolved."""
    if not isinstance(path, str) or "\0" in path or not Path(path).is_absolute():
        return False
    real, folder = Path(os.path.realpath(path)), Path(os.path.realpath(uploads))
    try:
        return real.is_relative_to(folder) and stat.S_ISREG(real.lstat().st_mode)
    except OSError:
        return False


def _foreign_file(tree: Any, uploads: str) -> str | None:
    """Find a file named anywhere in an event that was not uploaded, for a message; None where there is none."""
    if isinstance(tree, dict):
        # Gradio would fetch a path that is an address, and skips its own check for a file without "meta".
        if tree.get("path") is not None and not is_upload(tree["path"], uploads):
            return printable(Path(str(tree["path"])[:200]).name, 60) or "a file"
        tree = list(tree.values())
    if isinstance(tree, list):
        return next((found for part in tree if (found := _foreign_file(part, uploads)) is not None), None)
    return None


def _stored(folder: str) -> int:
    """Delete abandoned files below a folder; return the bytes of the others."""
    total = 0
    for parent, _, files in os.walk(folder):
        for name in files:
            path = Path(parent, name)
            try:
                about = path.lstat()
                # Where Gradio writes an upload until it is whole; it forgets those that never are.
                partial = parent == folder and name.startswith("tmp")
                if partial and time.time() - about.st_mtime > _ABANDONED_SECONDS:
                    path.unlink()
                else:
                    total += about.st_size
            except FileNotFoundError:  # deleted in this very moment
                continue
    return total


def _host_name(host: str) -> str:
    """Take the name or address out of a Host header, without its port."""
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    return name.lower().rstrip(".")


async def _refuse(send: Send, status: int, sentence: str) -> None:
    body = json.dumps({"detail": f"{sentence[0].upper()}{sentence[1:]}."}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _with_headers(send: Send) -> Send:
    """Add headers to a visitor's file: it is shown as what its name says, and runs nothing."""

    async def sending(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            more = [
                (b"x-content-type-options", b"nosniff"),
                (b"content-security-policy", b"sandbox; default-src 'none'"),
            ]
            message["headers"] = [*message.get("headers", []), *more]
        await send(message)

    return sending
