"""Bytes of a ModelInferRequest that no protobuf library would write: kinds by name, each a function of good bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import cycle, islice
from random import Random

Mutator = Callable[[bytes, Random], bytes]
KINDS: dict[str, Mutator] = {}
FLOODS: dict[str, Callable[[int], bytes]] = {}
"""Messages of about so many bytes that become many times as large once they are parsed."""

_VARINT, _FIXED64, _LENGTH, _GROUP, _END_GROUP, _FIXED32 = range(6)
_MODEL, _PARAMETERS, _INPUTS, _OUTPUTS, _RAW = 1, 4, 5, 6, 7  # fields of ModelInferRequest
_NAME, _DATATYPE, _SHAPE, _TENSOR_PARAMETERS, _CONTENTS = 1, 2, 3, 4, 5  # fields of InferInputTensor
_WIDE = (0, 1, 127, 2**31, 2**32, 2**32 + 1, 2**62, 2**63, 2**64 - 1)


def varint(value: int) -> bytes:
    """An unsigned number, seven bits a byte."""
    out = bytearray()
    while value > 127:
        out.append(value % 128 + 128)
        value //= 128
    return bytes(out) + bytes([value])


def field(number: int, kind: int, content: bytes) -> bytes:
    """A field with its key."""
    return varint(number << 3 | kind) + content


def text(number: int, content: bytes) -> bytes:
    """A field of bytes, a text or a message."""
    return field(number, _LENGTH, varint(len(content)) + content)


def _kind(function: Mutator) -> Mutator:
    KINDS[function.__name__] = function
    return function


def _flood(function: Callable[[int], bytes]) -> Callable[[int], bytes]:
    FLOODS[function.__name__] = function
    return function


@_kind
def unknown_fields(data: bytes, random: Random) -> bytes:
    """Fields that the message does not have, of every wire type, before and behind the others."""
    number = random.choice([8, 15, 100, 2**29 - 1])
    extra = random.choice(
        [
            field(number, _VARINT, varint(random.choice(_WIDE))),
            field(number, _FIXED64, bytes(8)),
            field(number, _FIXED32, bytes(4)),
            text(number, b"classification" * random.choice([1, 1000])),
        ]
    )
    return extra + data if random.random() < 0.5 else data + extra


@_kind
def unknown_fields_by_the_thousand(data: bytes, random: Random) -> bytes:
    return data + field(random.choice([8, 99]), _VARINT, b"\0") * random.choice([1000, 30_000])


@_kind
def singular_field_twice(data: bytes, random: Random) -> bytes:
    """A second model, version or id: of two the last counts, for those that agree on it."""
    number = random.choice([1, 2, 3])
    return data + text(number, random.choice([b"align", b"face3d", b"", b"1", b"x" * 1000, b"detect"]))


@_kind
def input_with_fields_twice(data: bytes, random: Random) -> bytes:
    """An input whose name, type or shape stands twice."""
    tensor = text(_NAME, b"image") + text(_DATATYPE, b"BYTES") + field(_SHAPE, _VARINT, b"\1") * 2
    more = random.choice(
        [text(_NAME, b"choice"), text(_DATATYPE, b"FP32"), field(_SHAPE, _VARINT, varint(random.choice(_WIDE)))]
    )
    return data + text(_INPUTS, tensor + more)


@_kind
def wrong_wire_type(data: bytes, random: Random) -> bytes:
    """A known field of another wire type."""
    number = random.choice([1, 2, 3, 4, 5, 6, 7])
    kind = random.choice([_VARINT, _FIXED64, _FIXED32])
    return data + field(number, kind, {_VARINT: b"\5", _FIXED64: bytes(8), _FIXED32: bytes(4)}[kind])


@_kind
def wire_type_that_is_none(data: bytes, random: Random) -> bytes:
    return data + field(random.choice([1, 5, 9]), random.choice([6, 7]), b"\0")


@_kind
def groups(data: bytes, random: Random) -> bytes:
    """Groups, closed, open, nested and closed under another number."""
    inside = text(1, b"x") * random.choice([0, 3])
    return data + random.choice(
        [
            field(9, _GROUP, inside) + field(9, _END_GROUP, b""),
            field(9, _GROUP, inside),
            field(9, _END_GROUP, b""),
            field(9, _GROUP, inside) + field(10, _END_GROUP, b""),
            field(9, _GROUP, b"") * 20_000,
            field(9, _GROUP, b"") * 90 + field(9, _END_GROUP, b"") * 90,
            field(_INPUTS, _GROUP, inside) + field(_INPUTS, _END_GROUP, b""),
        ]
    )


@_kind
def cut_short(data: bytes, random: Random) -> bytes:
    return data[: random.randrange(len(data))]


@_kind
def length_beyond_the_end(data: bytes, random: Random) -> bytes:
    return data + varint(random.choice([1, 5, 7]) << 3 | _LENGTH) + varint(random.choice([1, 2**31 - 1, 2**31, 2**63]))


@_kind
def number_of_field_zero(data: bytes, random: Random) -> bytes:
    return data + field(0, random.choice([_VARINT, _LENGTH]), b"\0")


@_kind
def varints_too_long(data: bytes, random: Random) -> bytes:
    """A number in ten bytes and more, as a key, a length or a value."""
    long = b"\x80" * random.choice([9, 10, 11, 1000]) + b"\0"
    return data + random.choice([long, b"\x0a" + long, b"\x48" + long])


@_kind
def bytes_flipped(data: bytes, random: Random) -> bytes:
    spoilt = bytearray(data)
    for _ in range(random.choice([1, 2, 10])):
        at = random.randrange(min(len(spoilt), random.choice([60, len(spoilt)])))
        spoilt[at] = random.randrange(256)
    return bytes(spoilt)


@_kind
def noise(_: bytes, random: Random) -> bytes:
    return random.randbytes(random.choice([0, 1, 3, 50, 5000]))


@_kind
def text_that_is_no_utf8(data: bytes, random: Random) -> bytes:
    bad = random.choice([b"\xff", b"\xed\xa0\x80", b"\xc0\xaf", b"face3d\0", b"\xf8\x88\x80\x80\x80"])
    number = random.choice([1, 2, 3, 4])
    return data + text(number, text(1, bad) if number == _PARAMETERS else bad)


@_kind
def contents_and_raw_contents(data: bytes, random: Random) -> bytes:
    """An input with its bytes in both places."""
    content = text(8, random.randbytes(20))
    tensor = text(_NAME, b"image") + text(_DATATYPE, b"BYTES") + text(_SHAPE, b"\1\1") + text(_CONTENTS, content)
    return text(1, b"face3d") + text(_INPUTS, tensor) + random.choice([b"", text(_RAW, b"\1\0\0\0x")])


@_kind
def contents_of_another_type(data: bytes, random: Random) -> bytes:
    content = random.choice(
        [text(1, b"\1"), text(2, b"\1\2"), text(3, b"\1"), text(6, bytes(4)), text(6, b"\xff" * 3), text(7, bytes(8))]
    )
    tensor = text(_NAME, b"image") + text(_DATATYPE, b"BYTES") + text(_SHAPE, b"\1\1") + text(_CONTENTS, content)
    return text(1, random.choice([b"face3d", b"detect"])) + text(_INPUTS, tensor)


@_kind
def dimensions_of_any_size(data: bytes, random: Random) -> bytes:
    """Shapes up to the ends of 64 bits, packed or one by one."""
    dims = [random.choice(_WIDE) for _ in range(random.choice([0, 1, 2, 2, 2, 9, 500]))]
    shape = random.choice(
        [text(_SHAPE, b"".join(map(varint, dims))), b"".join(field(_SHAPE, _VARINT, varint(d)) for d in dims)]
    )
    tensor = text(_NAME, b"image") + text(_DATATYPE, b"BYTES") + shape
    return text(1, b"detect") + text(_INPUTS, tensor) + text(_RAW, b"\1\0\0\0x")


@_kind
def parameter_with_several_values(data: bytes, random: Random) -> bytes:
    """A one-of of which all are there, none is, or of which the last is not the first's kind."""
    value = random.choice([b"", b"\x08\1\x10\5", b"\x10\5" + text(3, b"x"), text(3, b"0.5") + b"\x21" + bytes(8)])
    name = random.choice([b"score_threshold", b"classification", b"priority", b"", b"sharpen"])
    return data + text(_PARAMETERS, text(1, name) + text(2, value))


@_kind
def parameter_twice(data: bytes, random: Random) -> bytes:
    """A name twice in a map; or an entry without a key or value."""
    entry = text(_PARAMETERS, text(1, b"sharpen") + text(2, text(3, b"0.5")))
    other = random.choice([entry, text(_PARAMETERS, b""), text(_PARAMETERS, text(1, b"sharpen")), entry * 200])
    return data + entry + other


@_kind
def classification_of_an_output(data: bytes, random: Random) -> bytes:
    """What ends Triton 2.51, in the parameters of outputs, of the request, of the input, nested once more."""
    entry = text(1, b"classification") + text(2, field(2, _VARINT, varint(random.choice(_WIDE))))
    name = text(1, random.choice([b"mesh", b"texture", b"warnings", b"coefficients"]))
    return data + random.choice(
        [
            text(_OUTPUTS, name + text(2, entry)),
            text(_OUTPUTS, name) + text(_OUTPUTS, name + text(2, entry) * 2),
            text(_OUTPUTS, name + text(2, text(1, b"CLASSIFICATION") + text(2, text(3, b"1")))),
            text(_OUTPUTS, name + text(2, text(1, b"x") + text(1, b"classification") + text(2, b"\x10\1"))),
            text(_PARAMETERS, entry),
        ]
    )


@_kind
def raw_contents_in_other_places(data: bytes, random: Random) -> bytes:
    """Raw contents before the other fields, twice, under a key or a length that is longer than it need be."""
    content = random.choice([b"", b"\1\0\0\0x", bytes(random.choice([200, 70_000]))])
    key = random.choice([b"\x3a", b"\xba\0", b"\xba\x80\x80\x80\0", b"\xba\x80\x80\x80\x80\0", b"\xba\x80\x80\x80\x10"])
    length = varint(len(content))
    if random.random() < 0.5:
        padded = [*length[:-1], length[-1] | 128, *[128] * random.choice([0, 1, 3, 6])]
        length = bytes([*padded, 0])
    raw = key + length + content
    return random.choice([raw + data, data + raw, raw + data + raw, raw])


@_kind
def many_outputs_and_inputs(data: bytes, random: Random) -> bytes:
    return data + text(random.choice([_INPUTS, _OUTPUTS, _RAW, _PARAMETERS]), b"") * random.choice([20, 70, 5000])


# --- floods ----------------------------------------------------------------------------------------------------------
def _fill(piece: bytes, size: int) -> bytes:
    return piece * (size // len(piece))


def _one_input(content: bytes) -> bytes:
    return text(1, b"detect") + text(_INPUTS, text(_NAME, b"image") + text(_DATATYPE, b"BYTES") + content)


@_flood
def empty_inputs(size: int) -> bytes:
    return text(1, b"detect") + _fill(text(_INPUTS, b""), size)


@_flood
def empty_outputs(size: int) -> bytes:
    return text(1, b"detect") + _fill(text(_OUTPUTS, b""), size)


@_flood
def empty_raw_contents(size: int) -> bytes:
    return text(1, b"detect") + _fill(text(_RAW, b""), size)


@_flood
def parameters_of_other_names(size: int) -> bytes:
    pieces = (text(_PARAMETERS, text(1, b"%x" % index)) for index in range(size // 10))
    return text(1, b"detect") + b"".join(pieces)


@_flood
def dimensions(size: int) -> bytes:
    return _one_input(text(_SHAPE, bytes(size)))


@_flood
def dimensions_one_by_one(size: int) -> bytes:
    return _one_input(_fill(field(_SHAPE, _VARINT, b"\1"), size))


@_flood
def parameters_of_an_input(size: int) -> bytes:
    pieces = (text(_TENSOR_PARAMETERS, text(1, b"%x" % index)) for index in range(size // 10))
    return _one_input(b"".join(pieces))


@_flood
def empty_elements(size: int) -> bytes:
    return _one_input(text(_SHAPE, b"\1\1") + text(_CONTENTS, _fill(text(8, b""), size)))


@_flood
def numbers_of_one_byte(size: int) -> bytes:
    return _one_input(text(_SHAPE, b"\1\1") + text(_CONTENTS, text(3, bytes(size))))


@_flood
def unknown_groups(size: int) -> bytes:
    return text(1, b"detect") + _fill(field(9, _GROUP, b"") + field(9, _END_GROUP, b""), size)


def odd_bytes(good: bytes, count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """The same ``count`` names of kinds and messages for the same seed, every kind in turn."""
    random, names = Random(seed), list(KINDS)
    for name in islice(cycle(names), count):
        yield name, KINDS[name](good, random)
