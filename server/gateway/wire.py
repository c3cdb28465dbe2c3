"""A look at the bytes of a ModelInferRequest before they are parsed, which leaves its tensors' bytes where they are.

Parsing makes an object of each submessage and eight bytes of each number: two bytes become a hundred, so that a message
of 36 MiB would take gigabytes and seconds. Requests of the ensembles have some thirty fields; this counts them as far
as the bound, and refuses what has more. And parsing and writing copy a picture three times, for which all other
requests wait: so `raw_input_contents` are found here, and only what is around them is parsed and written.
It follows https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

from dataclasses import dataclass
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
_TENSOR: Final = ("request", 7)  # raw_input_contents
_TENSOR_KEY: Final = bytes([7 << 3 | _LENGTH])
# Bytes of a number: of a key or a length, which have 32 bits, and of any other, which has 64.
_SHORT_VARINT, _LONG_VARINT = 5, 10


@dataclass(frozen=True)
class SplitRequest:
    """A ModelInferRequest whose raw tensors are set apart.

    Attributes:
        data: the message as it came.
        rest: its fields but for the raw tensors, in their order.
        tensors: the content of each `raw_input_contents`.
        first: where the first of these fields begins; the length of ``data`` without any.
    """

    data: bytes
    rest: bytes
    tensors: tuple[memoryview, ...]
    first: int

    def with_rest(self, rest: bytes) -> bytes:
        """Return the message of ``rest``, written in the place of ``self.rest``, and the raw tensors behind it.

        Where that is the message as it came, byte by byte, it is not copied.
        """
        parts: list[bytes | memoryview] = [rest]
        for tensor in self.tensors:
            parts += (_TENSOR_KEY + _written_varint(len(tensor)), tensor)
        # As `first` lies behind an equal rest, the tensors' fields are all that follows; these are as long as written
        # here only if keys and lengths are written in the shortest way, as here.
        unchanged = rest == self.rest and self.first >= len(rest) and sum(map(len, parts)) == len(self.data)
        return self.data if unchanged else b"".join(parts)


def split(data: bytes) -> SplitRequest:
    """Set the raw tensors of a message apart, and see that it holds no more fields and numbers than a request can need.

    Raises:
        Refused: it does, or its bytes are no message.
    """
    scan = _Scan(data)
    scan.message("request", 0, len(data))
    view, rest, at = memoryview(data), [], 0
    for begin, _, end in scan.tensors:
        rest.append(view[at:begin])
        at = end
    rest.append(view[at:])
    first = scan.tensors[0][0] if scan.tensors else len(data)
    return SplitRequest(data, b"".join(rest), tuple(view[start:end] for _, start, end in scan.tensors), first)


def _written_varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


class _Scan:
    """Goes through the fields of a message, and of those inside.

    Attributes:
        tensors: of each raw tensor, where its field begins, where its content begins, and where both end.
    """

    def __init__(self, data: bytes) -> None:
        self._data, self._fields = data, 0
        self.tensors: list[tuple[int, int, int]] = []

    def message(self, kind: str, at: int, end: int) -> None:
        """Count the fields between two places."""
        while at < end:
            self._fields += 1
            if self._fields > limits.MAX_FIELDS:
                raise bad_request(f"the message has more than {limits.MAX_FIELDS} fields: a request needs thirty.")
            begin = at
            key, at = self._varint(at, end, _SHORT_VARINT)
            number, wire = key >> 3, key & 7
            if wire == _VARINT:
                _, at = self._varint(at, end, _LONG_VARINT)
            elif wire == _LENGTH:
                size, at = self._varint(at, end, _SHORT_VARINT)
                self._long(kind, number, at, min(at + size, end + 1))
                if (kind, number) == _TENSOR:
                    self.tensors.append((begin, at, at + size))
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

    def _varint(self, at: int, end: int, longest: int) -> tuple[int, int]:
        """Read a number of at most ``longest`` bytes; return it and the place behind it."""
        value = shift = 0
        while at < end and shift < 7 * longest:
            byte = self._data[at]
            value |= (byte & 127) << shift
            at, shift = at + 1, shift + 7
            if byte < 128:
                return value, at
        raise _broken()


def _broken() -> Refused:
    return bad_request("the bytes of the request are no ModelInferRequest: use a client of KServe v2.")
