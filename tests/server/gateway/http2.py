"""HTTP/2 by hand: gRPC calls as no gRPC library would make them."""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import time
from collections.abc import Iterable
from typing import NamedTuple

from server.gateway.upstream import SERVICE

_DATA, _HEADERS, _SETTINGS, _GOAWAY, _WINDOW_UPDATE = 0, 1, 4, 7, 8
_END_STREAM, _END_HEADERS, _ACK = 1, 4, 1
_FRAME = 16384
INFER = f"/{SERVICE}/ModelInfer"


class Answer(NamedTuple):
    """What came back: the gRPC status (None where the stream or connection was cut) and its message."""

    status: int | None
    message: str


def call(address: str, headers: Iterable[tuple[str, str]], message: bytes, flag: int, method: str = INFER) -> Answer:
    """One gRPC call with further headers, in the order given, and a message behind the flag byte (1: compressed)."""
    host, port = address.split(":")
    with socket.create_connection((host, int(port)), timeout=20) as sock:
        sock.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(_SETTINGS, 0, 0, b""))
        block = b"".join(_literal(name, value) for name, value in [*_pseudo(address, method), *headers])
        sock.sendall(_frame(_HEADERS, _END_HEADERS, 1, block))
        body = struct.pack(">BI", flag, len(message)) + message
        reader = _Reader(sock)
        with contextlib.suppress(OSError):  # refused before all was sent: the answer is there to read
            _send(sock, reader, body)
        return reader.answer()


def begin(address: str, method: str = INFER) -> socket.socket:
    """Open a connection and a call on it, and send no message."""
    host, port = address.split(":")
    sock = socket.create_connection((host, int(port)), timeout=20)
    block = b"".join(_literal(name, value) for name, value in _pseudo(address, method))
    sock.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(_SETTINGS, 0, 0, b""))
    sock.sendall(_frame(_HEADERS, _END_HEADERS, 1, block))
    return sock


def _pseudo(address: str, method: str) -> list[tuple[str, str]]:
    return [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", method),
        (":authority", address),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
    ]


def _literal(name: str, value: str) -> bytes:
    """HPACK: a literal that enters no table, without Huffman coding."""
    return b"\0" + _text(name) + _text(value)


def _text(text: str) -> bytes:
    data = text.encode()
    if len(data) < 127:
        return bytes([len(data)]) + data
    rest, out = len(data) - 127, bytearray([127])
    while rest >= 128:
        out.append(rest % 128 + 128)
        rest //= 128
    out.append(rest)
    return bytes(out) + data


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _send(sock: socket.socket, reader: _Reader, body: bytes) -> None:
    """Send the body as far as the windows of stream and connection allow it."""
    at = 0
    while at < len(body):
        while reader.window <= 0:
            if not reader.more():
                return
        part = body[at : at + min(_FRAME, reader.window)]
        at += len(part)
        reader.window -= len(part)
        sock.sendall(_frame(_DATA, _END_STREAM if at == len(body) else 0, 1, part))


class _Reader:
    """Collects what the server sends; C-core writes header texts plainly, so status and message are found by name."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock, self._bytes, self._headers = sock, b"", b""
        self._stream, self._connection = 65535, 65535
        self._ended = False
        self._deadline = time.monotonic() + 20

    @property
    def window(self) -> int:
        return min(self._stream, self._connection)

    @window.setter
    def window(self, value: int) -> None:
        spent = self.window - value
        self._stream -= spent
        self._connection -= spent

    def more(self) -> bool:
        """Read once; whether the stream is still open."""
        if self._ended or time.monotonic() > self._deadline:
            return False
        try:
            part = self._sock.recv(1 << 16)
        except OSError:
            part = b""
        if not part:
            self._ended = True
        self._bytes += part
        while len(self._bytes) >= 9:
            length = int.from_bytes(self._bytes[:3], "big")
            if len(self._bytes) < 9 + length:
                break
            kind, flags, stream = struct.unpack(">BBI", self._bytes[3:9])
            payload, self._bytes = self._bytes[9 : 9 + length], self._bytes[9 + length :]
            self._take(kind, flags, stream, payload)
        return not self._ended

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == _SETTINGS and not flags & _ACK:
            for at in range(0, len(payload), 6):
                name, value = struct.unpack(">HI", payload[at : at + 6])
                if name == 4:  # the initial window of each stream
                    self._stream += value - 65535
            self._sock.sendall(_frame(_SETTINGS, _ACK, 0, b""))
        elif kind == _WINDOW_UPDATE:
            size = struct.unpack(">I", payload)[0]
            if stream:
                self._stream += size
            else:
                self._connection += size
        elif kind == _HEADERS:
            self._headers += payload
            self._ended = bool(flags & _END_STREAM)
        elif kind in (3, _GOAWAY):
            self._ended = True

    def answer(self) -> Answer:
        while self.more():
            pass
        status = re.search(rb"grpc-status.(\d+)", self._headers, re.DOTALL)
        message = re.search(rb"grpc-message.{1,3}?([\[A-Za-z].*)", self._headers, re.DOTALL)
        return Answer(int(status[1]) if status else None, message[1].decode(errors="replace") if message else "")
