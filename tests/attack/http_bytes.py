"""HTTP/1.1 as no library would send it: kinds by name, each gives the bytes of one connection."""

from __future__ import annotations

import functools
import gzip
import re
import socket
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from random import Random
from typing import Final

KINDS: dict[str, Callable[[bytes, Random], bytes]] = {}
INFER: Final = b"/v2/models/detect/infer"
_LENGTH: Final = b"Inference-Header-Content-Length: 0\r\n"
_HEAD: Final = b"POST " + INFER + b" HTTP/1.1\r\nHost: x\r\n"
_BETWEEN: Final = 0.2  # seconds of silence after an answer's beginning
_STATUS: Final = re.compile(rb"HTTP/1\.[01] (\d{3}) ")


def _kind(function: Callable[[bytes, Random], bytes]) -> Callable[[bytes, Random], bytes]:
    KINDS[function.__name__] = function
    return function


def post(body: bytes, *headers: bytes, target: bytes = INFER, version: bytes = b"HTTP/1.1") -> bytes:
    """A POST whose headers are those given, and nothing else but Host."""
    lines = b"".join(header + b"\r\n" for header in headers)
    return b"POST " + target + b" " + version + b"\r\nHost: x\r\n" + lines + b"\r\n" + body


@_kind
def lengths_that_contradict(picture: bytes, random: Random) -> bytes:
    """Requests that two readers would divide differently."""
    hidden = b"POST /v2/models/align/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
    size = b"Content-Length: %d" % len(hidden)
    odd = [
        [size, b"Content-Length: 0"], [b"Content-Length: 0", size], [size, size], [size + b", 0"],
        [size + b"," + size[16:]],
        [size, b"Transfer-Encoding: chunked"], [b"Transfer-Encoding: chunked", size],
        [b"Transfer-Encoding:\tchunked", size],
        [b"Transfer-Encoding : chunked", size], [b"Transfer-Encoding: xchunked", size],
        [b" Transfer-Encoding: chunked", size],
        [b"Transfer-Encoding: gzip, chunked"], [b"Transfer-Encoding: chunked, gzip"],
        [b"Transfer-Encoding: identity", size],
        [b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity"], [b"Transfer_Encoding: chunked", size],
        [b"Content_Length: 0", size], [b"Content-Length: +5"], [b"Content-Length: 5 5"], [b"Content-Length:"],
        [b"Content-Length: \xd9\xa5"], [b"Content-Length: 5\0"], [b"Content-Length: 99999999999999999999999"],
        [b"Content-Length: 0x5"], [b"Content-Length: 1e1"], [b"Content-Length: -1"], [b"X: a\r\n chunked", size],
    ]  # fmt: skip
    return post(random.choice([b"0\r\n\r\n", b""]) + hidden, *random.choice(odd))


@_kind
def chunks_that_lie(picture: bytes, random: Random) -> bytes:
    chunks = random.choice(
        [
            b"5\r\nab", b"-1\r\nab\r\n", b"FFFFFFFFFFFFFFFF\r\nab\r\n", b"\xd9\xa5\r\nabcde\r\n0\r\n\r\n",
            b"0x2\r\nab\r\n0\r\n\r\n",
            b"2\r\nabc\r\n0\r\n\r\n", b"2;" + b"x" * 20_000 + b"\r\nab\r\n0\r\n\r\n", b"2\nab\n0\n\n", b"\r\n" * 50,
            b"",
            b"0\r\nX-Trailer: 1\r\n\r\n", b"0\r\nContent-Length: 50\r\n\r\n", b"0\r\n" + b"T: x\r\n" * 5000 + b"\r\n",
            b"2\r\nab\r\n" * 3 + b"0\r\n\r\nGET / HTTP/1.1\r\n\r\n", b"1\r\na\r\n" * 20_000 + b"0\r\n\r\n",
            b"00000000000000000000002\r\nab\r\n0\r\n\r\n",
        ]
    )  # fmt: skip
    return post(chunks, b"Transfer-Encoding: chunked", _LENGTH.strip())


@_kind
def targets(picture: bytes, random: Random) -> bytes:
    """Request targets: absolute, of an authority, with NUL, dots, escapes, other digits, none."""
    target = random.choice(
        [
            b"http://127.0.0.1/v2/models/align/infer", b"http://evil.example" + INFER, b"*", b"127.0.0.1:80",
            b"//x" + INFER,
            b"/v2/models/detect%00/infer", b"/v2/models/detect\0/infer", b"/v2/models/../../etc/passwd",
            b"/%2e%2e/%2e%2e/v2",
            b"/v2/models/detect/versions/\xd9\xa1/infer", b"/v2/models/detect/versions/%D9%A1/infer",
            b"/v2/models/\xff\xfe/infer",
            b"/v2/models/%ff/infer", b"/v2/models/detect/infer?x=1&x=2", b"/v2/models/detect/infer#x", b"", b"v2",
            b"/" + b"a/" * 4000,
            b"/v2/models/detect/infer;x", b"/v2/models/detect/versions/1/versions/1/infer",
            b"/v2/models/%64etect/infer", b"/%",
            b"/v2/models/detect/versions/99999999999999999999/infer", b"/v2/models/" + b"x" * 7000 + b"/infer",
            b"http://[::1", b"http://[",
            b"http://x:99999999/", b"/v2/repository/index", b"/v2/repository/models/detect/unload",
            b"/v2/systemsharedmemory/region/x/register",
        ]
    )  # fmt: skip
    return post(b"{}", b"Content-Length: 2", target=target)


@_kind
def methods_and_versions(picture: bytes, random: Random) -> bytes:
    line = random.choice(
        [
            b"TRACE / HTTP/1.1", b"CONNECT 127.0.0.1:22 HTTP/1.1", b"OPTIONS * HTTP/1.1", b"PRI * HTTP/2.0",
            b"get /v2 HTTP/1.1",
            b"GET /v2", b"GET /v2 HTTP/0.9", b"GET /v2 HTTP/1.0", b"GET /v2 HTTP/2.0", b"GET /v2 HTTP/1.1 x",
            b"GET  /v2 HTTP/1.1",
            b"GET\t/v2\tHTTP/1.1", b"GET /v2 http/1.1", b"GET /v2 HTTP/11", b"G\0T /v2 HTTP/1.1",
            b"\xd0\x93 /v2 HTTP/1.1", b"HEAD " + INFER + b" HTTP/1.1",
            b"A" * 9000 + b" / HTTP/1.1", b"PUT " + INFER + b" HTTP/1.1", b"DELETE /v2/models/detect HTTP/1.1",
            b"M-SEARCH * HTTP/1.1", b" ",
        ]
    )  # fmt: skip
    return line + b"\r\nHost: x\r\n\r\n"


@_kind
def headers(picture: bytes, random: Random) -> bytes:
    """Names and values of headers, and how many of them."""
    header = random.choice(
        [
            b"X: " + b"x" * 9000, b"X" * 9000 + b": x", b"X: x\r\n" * 70 + b"X: x", b"X: \0", b"X\0: x", b"X: \x01\x02",
            b": x", b"x", b"X\r: x",
            b"X: a\r\n\tb", b"X: a\rb", b"X: a\nY: b", b"Host: y", b"Host: y, z", b"Host:", b"\xe2\x80\xa8: x",
            b"X:\xff\xfe", b"Connection: close, keep-alive",
            b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA",
            b"Upgrade: websocket\r\nConnection: Upgrade",
            b"Expect: 100-continue", b"Expect: 200-ok", b"Expect: 100-continue, 100-continue", b"Expect:",
            b"Range: bytes=0-0,1-1,2-2", b"Cookie: " + b"a=b; " * 1000,
            b"Inference-Header-Content-Length: \xd9\xa2", b"Inference-Header-Content-Length: 2, 2",
            b"inference_header_content_length: 0", b"Content-Encoding: \0",
            b"Content-Type: multipart/form-data; boundary=" + b"x" * 5000, b"traceparent: 00-zz", b"X-Forwarded-For: 1",
            b"Transfer-Encoding: " + b"chunked," * 500,
        ]
    )  # fmt: skip
    return post(b"{}", b"Content-Length: 2", header)


@_kind
def pipelined(picture: bytes, random: Random) -> bytes:
    """Requests one behind the other without waiting, some spoilt, the last one cut."""
    good = post(picture, b"Content-Length: %d" % len(picture), _LENGTH.strip())
    health = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    return random.choice(
        [
            health * 500,
            good * 3,
            health + good + health,
            good + b"junk\r\n\r\n" + good,
            good * 2 + good[:-5],
            b"\r\n" * 100 + health,
            good + b"\0" * 500,
        ]
    )


@functools.cache
def _bomb() -> bytes:
    """20 MiB of zeros in 20 KiB."""
    return gzip.compress(bytes(20 << 20))


@_kind
def compressed(picture: bytes, random: Random) -> bytes:
    """Megabytes in kilobytes, by every header that may name it."""
    bomb = _bomb()
    length = b"Content-Length: %d" % len(bomb)
    names = [
        b"gzip",
        b"deflate",
        b"br",
        b"zstd",
        b"x-gzip",
        b"GZIP",
        b"identity, gzip",
        b"gzip, gzip",
        b"gzip;q=1",
        b"compress",
    ]
    header = random.choice([b"Content-Encoding: ", b"content-encoding:", b"Content_Encoding: "]) + random.choice(names)
    if random.random() < 0.3:
        return post(b"%x\r\n%b\r\n0\r\n\r\n" % (len(bomb), bomb), b"Transfer-Encoding: gzip, chunked")
    return post(bomb, length, header, random.choice([_LENGTH.strip(), b"X: y"]))


@_kind
def other_protocols(picture: bytes, random: Random) -> bytes:
    return random.choice(
        [
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + random.randbytes(500), b"SSH-2.0-x\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(200),
            b"EHLO x\r\n", b"\0" * 5000, random.randbytes(2000), b"*1\r\n$4\r\nINFO\r\n", b"\r\n\r\n\r\n", b"GET",
            b"\xff" * 20_000, b"{}\n",
        ]
    )  # fmt: skip


@_kind
def bodies_that_stay_away(picture: bytes, random: Random) -> bytes:
    """More bytes announced than come; the connection is half closed behind them."""
    return post(
        picture[: random.choice([0, 10])],
        b"Content-Length: %d" % random.choice([11, 36 << 20, 37 << 20]),
        _LENGTH.strip(),
    )


def odd_connections(picture: bytes, count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """The same ``count`` names of kinds and bytes for the same seed, every kind in turn."""
    random, names = Random(seed), list(KINDS)
    for name in islice(cycle(names), count):
        yield name, KINDS[name](picture, random)


def converse(address: str, data: bytes, patience: float = 1.0, seconds: float = 60) -> bytes:
    """Send bytes and return all that comes back.

    Args:
        address: ``host:port``.
        data: as it is sent, at once.
        patience: seconds of silence after which the sending half is closed: what is not whole by then never is.
        seconds: the connection must be closed by the other side within so many after that.

    Raises:
        TimeoutError: it was not.
    """
    host, port = address.split(":")
    answer = bytearray()
    with socket.create_connection((host, int(port)), timeout=seconds) as sock:
        try:
            sock.sendall(data)
            sock.settimeout(patience)
            try:
                while part := sock.recv(1 << 16):
                    answer += part
                    sock.settimeout(_BETWEEN)
            except TimeoutError:
                sock.shutdown(socket.SHUT_WR)
                sock.settimeout(seconds)
                while part := sock.recv(1 << 16):
                    answer += part
        except (BrokenPipeError, ConnectionResetError):
            pass  # refused before all was read: what came before is the answer
    return bytes(answer)


def statuses(answer: bytes) -> list[int]:
    """The statuses of all HTTP answers in what a connection gave."""
    return [int(number) for number in _STATUS.findall(answer)]
