"""A look at the bytes of a ModelInferRequest before they are parsed.

Parsing makes an object of each submessage and eight bytes of each number: two bytes become a hundred, so that a message
of 36 MiB would take gigabytes and seconds. Requests of the ensembles have some thirty fields; this counts them as far
as the bound, and refuses what has more. It follows https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

from typing import Final

from server.gateway import limits
from server.gateway.refusal import Refused, bad_request

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
# (message, field) -> the message inside, for the messages of a request that hold others.
_INSIDE: Final = {
    ("request", 4): "parameter", ("request", 5): "input", ("request", 6): "output", ("input", 4): "parameter",
    ("input", 5): "contents", ("output", 2): "parameter",
}  # fmt: skip
# Fields that may be long: a picture's bytes, and a list of elements or numbers that is one.
_LONG: Final = frozenset({("request", 5), ("request", 7), ("input", 5), ("contents", 8)})


def check_size(data: bytes) -> None:
    """See that a message holds no more fields and numbers than a request can need.

    Raises:
        Refused: it does, or its bytes are no message.
    """
    _Scan(data).message("request", 0, len(data))


class _Scan:
    def __init__(self, data: bytes) -> None:
        self._data, self._fields = data, 0

    def message(self, kind: str, at: int, end: int) -> None:
        """Count the fields between two places."""
        while at < end:
            self._fields += 1
            if self._fields > limits.MAX_FIELDS:
                raise bad_request(f"the message has more than {limits.MAX_FIELDS} fields: a request needs thirty.")
            key, at = self._varint(at, end)
            number, wire = key >> 3, key & 7
            if wire == _VARINT:
                _, at = self._varint(at, end)
            elif wire == _LENGTH:
                size, at = self._varint(at, end)
                self._long(kind, number, at, min(at + size, end + 1))
                at += size
            elif wire in (_FIXED64, _FIXED32):
                at += 8 if wire == _FIXED64 else 4
            else:
                raise _broken()  # groups, which no version of the protocol has
            if at > end:
                raise _broken()

    def _long(self, kind: str, number: int, at: int, end: int) -> None:
        if end - at > limits.MAX_FIELD and (kind, number) not in _LONG:
            raise bad_request(f"a field of the message has more than {limits.MAX_FIELD} bytes: only tensors may.")
        inside = _INSIDE.get((kind, number))
        if inside is not None and end <= len(self._data):
            self.message(inside, at, end)

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        """Read a number; return it and the place behind it."""
        value = shift = 0
        while at < end and shift < 70:
            byte = self._data[at]
            value |= (byte & 127) << shift
            at, shift = at + 1, shift + 7
            if byte < 128:
                return value, at
        raise _broken()


def _broken() -> Refused:
    return bad_request("the bytes of the request are no ModelInferRequest: use a client of KServe v2.")
