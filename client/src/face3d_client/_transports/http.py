"""HTTP: tritonclient packs the bodies; the connections and the reading of answers are this package's.

tritonclient's own blocking HTTP client runs on gevent, whose sockets belong to the thread that made them: it can
neither be shared between threads nor closed from another one. A few plain `http.client` connections in a pool can, and
a deadline holds for the whole call instead of for each read. The asyncio side is aiohttp, as in tritonclient.

What answers may be anything: no more is read than an answer can have, redirects are not followed (they would carry the
photograph elsewhere), and nothing is decompressed.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import http.client
import io
import json
import re
import select
import socket
import ssl
import threading
from collections.abc import Mapping
from typing import Any, Final, TypeAlias
from urllib.parse import quote

import aiohttp
import tritonclient.http as triton
from tritonclient.utils import np_to_triton_dtype

from face3d_client._errors import BadResponse, Face3DError, ServerUnavailable
from face3d_client._protocol.calls import Call, Reply
from face3d_client._protocol.server import ModelStatus, ServerInfo
from face3d_client._protocol.status import error_from_http
from face3d_client._protocol.tensors import MAX_ANSWER, Tensor, read_tensors
from face3d_client._transports.endpoint import TLS, WHAT_TO_CHECK, Endpoint
from face3d_client._transports.retry import Deadline
from face3d_client._transports.shared_memory import Region

__all__ = ["AsyncHttpTransport", "HttpTransport"]

_HEADER_LENGTH: Final = "inference-header-content-length"
_SHARED: Final = "/v2/systemsharedmemory/region"
_CHUNK: Final = 1 << 18
# Bytes of an answer without tensors: the list of a repository with a hundred models has 10 KiB.
_MAX_WORDS: Final = 1 << 20
# Bytes of the JSON head of an inference's answer: 150 for each of at most 13 outputs, and what Triton may add.
_MAX_HEAD: Final = 64 << 10
# Sent with every request: what is compressed could unfold to any size.
_PLAIN: Final = {"accept-encoding": "identity"}
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
    """The tensors of an answer: a JSON head, then the bytes of each output in the head's order.

    Raises:
        BadResponse: it is anything else.
    """
    length = next((value for name, value in headers.items() if name.lower() == _HEADER_LENGTH), None)
    size = len(body) if length is None else _decimal(length)
    if size is None or size > min(len(body), _MAX_HEAD):
        raise BadResponse(
            f"the answer's head is said to have {str(length)[:20]} bytes of {len(body)}. Check the address."
        )
    outputs = _member(_tree(body[:size]), "outputs", list)
    place, tensors = size, []
    for output in outputs:
        count = _member(_member(output, "parameters", dict), "binary_data_size", int)
        if not 0 <= count <= len(body) - place:
            raise BadResponse(f"an output is said to have {count} bytes, and {len(body) - place} are left.")
        shape = _member(output, "shape", list)
        raw = body[place : place + count]
        tensors.append(Tensor(_member(output, "name", str), _member(output, "datatype", str), shape, raw))
        place += count
    if place != len(body):
        raise BadResponse(f"the answer has {len(body) - place} bytes too many.")
    return read_tensors(call.outputs, tensors)


def _decimal(text: str) -> int | None:
    return int(text) if re.fullmatch(r"[0-9]{1,9}", text) else None


def _tree(body: bytes) -> Any:
    """What a JSON body says.

    Raises:
        BadResponse: it is no JSON, or nested deeper than any answer.
    """
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:  # a UnicodeDecodeError is a ValueError
        raise BadResponse(f"the server's answer is no JSON ({type(error).__name__}). Check the address.") from error


def _member(tree: Any, name: str, kind: type) -> Any:
    """A member of a JSON object, of this very type.

    Raises:
        BadResponse: it is not there, or of another type.
    """
    value = tree.get(name) if isinstance(tree, dict) else None
    if type(value) is not kind:
        raise BadResponse(f"the server's answer has no {name!r} of the right type. Check the address.")
    return value


def _raise_for_status(code: int, body: bytes) -> None:
    if code == 200:
        return
    if 100 <= code < 400:  # a redirect (which would take the photograph elsewhere), or an answer without content
        raise BadResponse(f"what answers there sends HTTP {code}, which is no answer. Check the address.")
    try:
        message = str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError, RecursionError):
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
    tree = _tree(body)
    if not isinstance(tree, list):
        raise BadResponse("the server's list of models is no list. Check the address.")
    return [
        ModelStatus(
            _member(model, "name", str),
            *(_member(model, name, str) if name in model else "" for name in ("version", "state", "reason")),
        )
        for model in tree
    ]


def _info(body: bytes) -> ServerInfo:
    tree = _tree(body)
    extensions = _member(tree, "extensions", list)
    if not all(isinstance(extension, str) for extension in extensions):
        raise BadResponse("the server's answer has no 'extensions' of the right type. Check the address.")
    return ServerInfo(_member(tree, "name", str), _member(tree, "version", str), tuple(extensions))


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
    elif isinstance(error, aiohttp.ClientPayloadError | http.client.IncompleteRead):
        words = "the answer ended too early"
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
        code, answer_headers, answer = self._exchange("POST", path, body, headers, timeout=timeout, most=MAX_ANSWER)
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
        most: int = _MAX_WORDS,
    ) -> _Answer:
        deadline = Deadline(timeout)
        all_headers = {**_PLAIN, **self._endpoint.headers, **(headers or {})}
        while True:
            connection, kept = self._take()
            whole = False
            try:
                answer = _talk(connection, method, self._endpoint.path + path, body, all_headers, deadline, most)
                whole = True
                return answer
            except TimeoutError as error:
                raise deadline.error() from error
            except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: a line that is no header
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
            idle = _still_open(self._idle)
            kept = idle is not None
            connection = idle or self._new()
            self._busy.add(connection)
            return connection, kept

    def _new(self) -> http.client.HTTPConnection:
        host, port = self._endpoint.host, self._endpoint.port
        if self._context is None:
            return http.client.HTTPConnection(host, port)
        return http.client.HTTPSConnection(host, port, context=self._context)

    def _give_back(self, connection: http.client.HTTPConnection, whole: bool) -> None:
        with self._lock:
            self._busy.discard(connection)
            if whole and not self._closed and connection.sock is not None:
                self._idle.append(connection)
                return
        connection.close()


def _still_open(idle: list[http.client.HTTPConnection]) -> http.client.HTTPConnection | None:
    """Take a kept connection that is silent: one with bytes to read was closed, or says what nobody asked for."""
    while idle:
        connection = idle.pop()
        with contextlib.suppress(OSError, ValueError):
            if connection.sock is not None and not select.select([connection.sock], [], [], 0)[0]:
                return connection
        connection.close()
    return None


class _Wire(io.RawIOBase):
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
        """As of a socket: what `http.client` reads an answer from."""
        return io.BufferedReader(self)


class _Response(http.client.HTTPResponse):
    """An answer that is read until a deadline."""

    def __init__(self, deadline: Deadline, wire: socket.socket, *words: Any, **more: Any) -> None:
        super().__init__(_Wire(wire, deadline), *words, **more)  # type: ignore[arg-type]  # it only calls makefile


def _talk(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    body: bytes | None,
    headers: Mapping[str, str],
    deadline: Deadline,
    most: int,
) -> _Answer:
    connection.timeout = deadline.left()
    connection.response_class = functools.partial(_Response, deadline)  # type: ignore[assignment]  # called, no more
    if connection.sock is None:
        connection.connect()
    connection.sock.settimeout(deadline.left())
    connection.request(method, path, body, dict(headers))
    with contextlib.closing(connection.getresponse()) as response:
        _check_size(response.headers.get("content-encoding"), response.length, most)
        chunks, size = [], 0
        while not response.isclosed() and (chunk := response.read(min(_CHUNK, most + 1 - size))):
            chunks.append(chunk)
            size += len(chunk)
            _check_size(None, size, most)
        if response.length:  # http.client does not mind a body cut short
            raise http.client.IncompleteRead(b"", response.length)
    return response.status, dict(response.headers.items()), b"".join(chunks)


def _check_size(encoding: str | None, size: int | None, most: int) -> None:
    """Refuse an answer that is compressed, or has more bytes than any true one.

    Raises:
        BadResponse: it is so.
    """
    if encoding not in (None, "", "identity"):
        raise BadResponse(f"the answer is compressed ({encoding[:20]!r}), which was not asked for.")
    if size is not None and size > most:
        raise BadResponse(f"the answer has more than {most >> 20} MiB, and no true one has. Check the address.")


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
        code, answer_headers, answer = await self._exchange(
            "POST", path, body, headers, timeout=timeout, most=MAX_ANSWER
        )
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
        most: int = _MAX_WORDS,
    ) -> _Answer:
        if self._closed:
            raise ServerUnavailable("this client is closed. Make a new one.", status="CANCELLED")
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=self._context or True, limit=0),
                timeout=aiohttp.ClientTimeout(total=None),  # the deadline below holds
                headers={**_PLAIN, **self._endpoint.headers},
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        scheme = "http" if self._context is None else "https"
        url = f"{scheme}://{self._endpoint.address}{self._endpoint.path}{path}"
        deadline = Deadline(timeout)
        try:
            async with (
                asyncio.timeout(timeout),
                self._session.request(method, url, data=body, headers=headers, allow_redirects=False) as response,
            ):
                return response.status, response.headers, await _read(response, most)
        except TimeoutError as error:
            raise deadline.error() from error
        except (OSError, aiohttp.ClientError, ValueError) as error:  # ValueError: a line that is no header
            raise _unreachable(self._endpoint, error) from error


async def _read(response: aiohttp.ClientResponse, most: int) -> bytes:
    """The body, as long as it has no more than `most` bytes.

    Raises:
        BadResponse: it has more, or is compressed.
    """
    _check_size(response.headers.get("content-encoding"), response.content_length, most)
    chunks, size = [], 0
    async for chunk in response.content.iter_any():
        chunks.append(chunk)
        size += len(chunk)
        _check_size(None, size, most)
    return b"".join(chunks)
