"""HTTP: tritonclient packs and unpacks the bodies, the connections are this package's.

tritonclient's own blocking HTTP client runs on gevent, whose sockets belong to the thread that made them: it can
neither be shared between threads nor closed from another one. A few plain `http.client` connections in a pool can, and
a deadline holds for the whole call instead of for each read. The asyncio side is aiohttp, as in tritonclient.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import re
import socket
import ssl
import threading
from collections.abc import Mapping
from typing import Final, TypeAlias
from urllib.parse import quote

import aiohttp
import tritonclient.http as triton
from tritonclient.utils import np_to_triton_dtype

from ._codec import Call, Reply
from ._endpoint import TLS, WHAT_TO_CHECK, Endpoint
from ._errors import Face3DError, ServerUnavailable, error_from_http
from ._retry import Deadline
from ._shared import Region
from ._transport import ModelStatus, ServerInfo

__all__ = ["AsyncHttpTransport", "HttpTransport"]

_HEADER_LENGTH: Final = "inference-header-content-length"
_SHARED: Final = "/v2/systemsharedmemory/region"
_CHUNK: Final = 1 << 18
_Answer: TypeAlias = "tuple[int, Mapping[str, str], bytes]"  # status, headers (names in any case), body


def _request(call: Call, timeout: float) -> tuple[str, bytes, dict[str, str]]:
    """Path, body and headers of an inference (KServe v2 with the binary tensor extension)."""
    inputs = []
    for name, array in call.inputs.items():
        tensor = triton.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
        if name in call.placed:
            tensor.set_shared_memory(call.placed[name].region, call.placed[name].byte_size)
        else:
            tensor.set_data_from_numpy(array, binary_data=True)
        inputs.append(tensor)
    body, json_size = triton.InferenceServerClient.generate_request_body(
        inputs,
        outputs=[triton.InferRequestedOutput(name, binary_data=True) for name in call.outputs],
        timeout=max(1, int(timeout * 1e6)),
        parameters=dict(call.parameters) or None,
    )
    headers = {"content-type": "application/octet-stream"}
    if json_size is not None:
        headers[_HEADER_LENGTH] = str(json_size)
    return f"/v2/models/{quote(call.model)}/infer", body, headers


def _registration(region: Region) -> tuple[str, bytes]:
    """Path and body that make a region of shared memory known to the server."""
    description = {"key": region.key, "offset": 0, "byte_size": region.size}
    return f"{_SHARED}/{region.name}/register", json.dumps(description).encode()


def _reply(call: Call, headers: Mapping[str, str], body: bytes) -> Reply:
    length = next((value for name, value in headers.items() if name.lower() == _HEADER_LENGTH), None)
    result = triton.InferenceServerClient.parse_response_body(body, header_length=length and int(length))
    return {name: result.as_numpy(name) for name in call.outputs}


def _raise_for_status(code: int, body: bytes) -> None:
    if code == 200:
        return
    try:
        message = str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        # A proxy's page: its words.
        message = " ".join(re.sub(r"<[^>]*>", " ", body[:500].decode(errors="replace")).split())
        known = code != 404
    else:
        known = code != 405  # Triton's port for metrics, which takes no requests
    if not known:
        sentence = f"what answers there takes no inference requests (HTTP {code}: {message}). Check the address."
        raise ServerUnavailable(sentence, status=f"HTTP {code}")
    raise error_from_http(code, message)


def _statuses(body: bytes) -> list[ModelStatus]:
    return [
        ModelStatus(model["name"], model.get("version", ""), model.get("state", ""), model.get("reason", ""))
        for model in json.loads(body)
    ]


def _info(body: bytes) -> ServerInfo:
    tree = json.loads(body)
    return ServerInfo(tree["name"], tree["version"], tuple(tree["extensions"]))


def _ssl_context(files: TLS) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=files.ca)
    if files.cert is not None:
        context.load_cert_chain(files.cert, files.key)
    return context


def _unreachable(endpoint: Endpoint, error: Exception) -> Face3DError:
    words = str(error) or type(error).__name__
    strange = (http.client.BadStatusLine, aiohttp.ClientResponseError)
    if isinstance(error, strange) and not isinstance(error, http.client.RemoteDisconnected):
        words = "what answers there does not speak HTTP"  # and its bytes are nothing to print
    return ServerUnavailable(
        f"no server answers at {endpoint}: {words}. {WHAT_TO_CHECK}",
        status="UNAVAILABLE",
        retryable=not isinstance(error, ssl.SSLCertVerificationError),
    )


class HttpTransport:
    """Blocking HTTP: a pool of kept connections, as many as calls were ever in flight at the same time."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._context = None if endpoint.tls is None else _ssl_context(endpoint.tls)
        self._lock = threading.Lock()
        self._idle: list[http.client.HTTPConnection] = []
        self._busy: set[http.client.HTTPConnection] = set()
        self._closed = False

    def infer(self, call: Call, timeout: float) -> Reply:
        """See `Transport`."""
        path, body, headers = _request(call, timeout)
        code, answer_headers, answer = self._exchange("POST", path, body, headers, timeout=timeout)
        _raise_for_status(code, answer)
        return _reply(call, answer_headers, answer)

    def model_ready(self, model: str, timeout: float) -> bool:
        """See `Transport`."""
        code, _, body = self._exchange("GET", f"/v2/models/{quote(model)}/ready", timeout=timeout)
        if code in (401, 403):
            _raise_for_status(code, body)
        return code == 200

    def models(self, timeout: float) -> list[ModelStatus]:
        """See `Transport`."""
        code, _, body = self._exchange("POST", "/v2/repository/index", b"{}", timeout=timeout)
        _raise_for_status(code, body)
        return _statuses(body)

    def info(self, timeout: float) -> ServerInfo:
        """See `Transport`."""
        code, _, body = self._exchange("GET", "/v2", timeout=timeout)
        _raise_for_status(code, body)
        return _info(body)

    def register(self, region: Region, timeout: float) -> None:
        """See `Transport`."""
        code, _, body = self._exchange("POST", *_registration(region), timeout=timeout)
        _raise_for_status(code, body)

    def unregister(self, name: str, timeout: float) -> None:
        """See `Transport`."""
        code, _, body = self._exchange("POST", f"{_SHARED}/{name}/unregister", b"", timeout=timeout)
        _raise_for_status(code, body)

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

    def _exchange(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        timeout: float,
    ) -> _Answer:
        deadline = Deadline(timeout)
        all_headers = {**self._endpoint.headers, **(headers or {})}
        while True:
            connection, kept = self._take()
            whole = False
            try:
                answer = _talk(connection, method, self._endpoint.path + path, body, all_headers, deadline)
                whole = True
                return answer
            except TimeoutError as error:
                raise deadline.error() from error
            except (OSError, http.client.HTTPException) as error:
                # A kept connection may have died of age or with the server; that says nothing about a new one.
                if kept and not self._closed:
                    continue
                if self._closed:
                    raise ServerUnavailable("this client is closed. Make a new one.", status="CANCELLED") from error
                raise _unreachable(self._endpoint, error) from error
            finally:
                self._give_back(connection, whole)

    def _take(self) -> tuple[http.client.HTTPConnection, bool]:
        with self._lock:
            if self._closed:
                raise ServerUnavailable("this client is closed. Make a new one.", status="CANCELLED")
            kept = bool(self._idle)
            if kept:
                connection = self._idle.pop()
            elif self._context is None:
                connection = http.client.HTTPConnection(self._endpoint.host, self._endpoint.port)
            else:
                connection = http.client.HTTPSConnection(
                    self._endpoint.host, self._endpoint.port, context=self._context
                )
            self._busy.add(connection)
            return connection, kept

    def _give_back(self, connection: http.client.HTTPConnection, whole: bool) -> None:
        with self._lock:
            self._busy.discard(connection)
            if whole and not self._closed and connection.sock is not None:
                self._idle.append(connection)
                return
        connection.close()


def _talk(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    body: bytes | None,
    headers: Mapping[str, str],
    deadline: Deadline,
) -> _Answer:
    connection.timeout = deadline.left()
    if connection.sock is None:
        connection.connect()
    wire: socket.socket = connection.sock  # http.client forgets it when an answer ends the connection
    wire.settimeout(deadline.left())
    connection.request(method, path, body, dict(headers))
    wire.settimeout(deadline.left())
    response = connection.getresponse()
    chunks = []
    while not response.isclosed():
        wire.settimeout(deadline.left())
        chunks.append(response.read(_CHUNK))
    if response.length:  # http.client does not mind a body cut short
        raise http.client.IncompleteRead(b"", response.length)
    return response.status, dict(response.headers.items()), b"".join(chunks)


class AsyncHttpTransport:
    """Non-blocking HTTP. The session is made by the first call: it belongs to the event loop that runs then."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._context = None if endpoint.tls is None else _ssl_context(endpoint.tls)
        self._session: aiohttp.ClientSession | None = None
        self._closed = False

    async def infer(self, call: Call, timeout: float) -> Reply:
        """See `AsyncTransport`."""
        path, body, headers = _request(call, timeout)
        code, answer_headers, answer = await self._exchange("POST", path, body, headers, timeout=timeout)
        _raise_for_status(code, answer)
        return _reply(call, answer_headers, answer)

    async def model_ready(self, model: str, timeout: float) -> bool:
        """See `AsyncTransport`."""
        code, _, body = await self._exchange("GET", f"/v2/models/{quote(model)}/ready", timeout=timeout)
        if code in (401, 403):
            _raise_for_status(code, body)
        return code == 200

    async def models(self, timeout: float) -> list[ModelStatus]:
        """See `AsyncTransport`."""
        code, _, body = await self._exchange("POST", "/v2/repository/index", b"{}", timeout=timeout)
        _raise_for_status(code, body)
        return _statuses(body)

    async def info(self, timeout: float) -> ServerInfo:
        """See `AsyncTransport`."""
        code, _, body = await self._exchange("GET", "/v2", timeout=timeout)
        _raise_for_status(code, body)
        return _info(body)

    async def register(self, region: Region, timeout: float) -> None:
        """See `AsyncTransport`."""
        code, _, body = await self._exchange("POST", *_registration(region), timeout=timeout)
        _raise_for_status(code, body)

    async def unregister(self, name: str, timeout: float) -> None:
        """See `AsyncTransport`."""
        code, _, body = await self._exchange("POST", f"{_SHARED}/{name}/unregister", b"", timeout=timeout)
        _raise_for_status(code, body)

    async def close(self) -> None:
        """See `AsyncTransport`."""
        self._closed = True
        if self._session is not None:
            await self._session.close()

    async def _exchange(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        timeout: float,
    ) -> _Answer:
        if self._closed:
            raise ServerUnavailable("this client is closed. Make a new one.", status="CANCELLED")
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=self._context or True, limit=0),
                timeout=aiohttp.ClientTimeout(total=None),  # the deadline below holds
                headers=dict(self._endpoint.headers),
            )
        scheme = "http" if self._context is None else "https"
        url = f"{scheme}://{self._endpoint.address}{self._endpoint.path}{path}"
        deadline = Deadline(timeout)
        try:
            async with (
                asyncio.timeout(timeout),
                self._session.request(method, url, data=body, headers=headers) as response,
            ):
                return response.status, response.headers, await response.read()
        except TimeoutError as error:
            raise deadline.error() from error
        except (OSError, aiohttp.ClientError) as error:
            raise _unreachable(self._endpoint, error) from error
