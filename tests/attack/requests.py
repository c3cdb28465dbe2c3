"""Odd inference requests, described without a protocol: `encode.py` sends them over gRPC or HTTP.

A mutator is a pure function of a well-formed request and a seeded generator. `KINDS` holds them by name; `odd_request`
applies one or several. A kind that knows nothing to spoil in a request (no option, no picture) returns it as it is.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray

Value = bool | int | float | str
NUMPY = {"UINT8": np.uint8, "FP32": np.float32, "INT64": np.int64, "BOOL": np.bool_}

# Every option of the service, and the parameters that the protocol itself gives a meaning.
OPTIONS = (*("score_threshold", "face", "box", "texture_size", "texture_format", "sharpen", "white_balance", "pose"),)
RESERVED = (
    *("priority", "timeout", "sequence_id", "sequence_start", "sequence_end", "binary_data_output", "binary_data_size"),
    *("triton_enable_empty_final_response", "triton_final_response", "headers", "face3d_revival"),
)
WEIRD_TEXT = (
    *("", "abc", "NaN", "nan", "inf", "-inf", "1e308", "-1", "-0.0", "true", "None", "0x10", "1_000", "[]", "{}"),
    *("9" * 5000, "a" * 100_000, "99999999999999999999", "\u202e\U0001f600", "\uff12", "\n\n", '"', "%s%n", "\x00"),
    *("../../etc/passwd", "'; DROP TABLE faces", "nan,nan,nan,nan", "0,0,1e308,1e308", "1,2,3", "1,2,3,4", "0,0,inf,1"),
    *("-1e300,-1e300,1e300,1e300", "1e-310,0,2e-310,1", "png\x00", "HEAD", "\ud7ff"),
)
WEIRD_INTEGERS = (0, 1, -1, 2, 7, 63, 64, 2048, 2049, 2**31, 2**32, 2**62, 2**63 - 1, -(2**63))
WEIRD_FLOATS = (math.nan, math.inf, -math.inf, 1e308, -1e308, 1e30, 5e-324, -0.0, 0.5, 1.0000001, 2048.0)
# Far beyond pixels, around zero, at the ends of float32, and what is no number.
WEIRD_FP32 = (math.nan, math.inf, -math.inf, 3e38, -3e38, 1e30, -1e30, 1e9, -1e9, 1e-30, 1e-45, 0.0, -0.0, -1.0, 1e5)
DIMENSIONS = (0, 1, 2, 3, 5, 17, -1, -(2**31), 2**31, 2**32, 2**32 + 1, 2**40, 2**62, 2**63 - 1)


@dataclass(frozen=True)
class Tensor:
    """An input as it is sent; nothing says that the parts agree.

    Attributes:
        name, datatype: as the protocol names them (BYTES, FP32, UINT8, INT64).
        shape: with the batch dimension.
        data: the bytes; of BYTES each element after its length in four bytes, little endian.
        parameters: of this tensor.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: bytes = field(repr=False)
    parameters: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True)
class Output:
    """An output that is asked for."""

    name: str
    parameters: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True)
class Request:
    """An inference request.

    Attributes:
        model, version, id: as the protocol has them; version "" for whichever serves.
        inputs, outputs: no output means all of them.
        parameters: of the request.
        kinds: names of the mutators that made it.
    """

    model: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Output, ...] = ()
    parameters: Mapping[str, Value] = field(default_factory=dict)
    version: str = ""
    id: str = ""
    kinds: tuple[str, ...] = ()


Mutator = Callable[[Request, Random], Request]
KINDS: dict[str, Mutator] = {}
# Triton 2.51 ends by SIGFPE for a classification of a BYTES output: for servers behind a gateway only.
DEADLY: dict[str, Mutator] = {}


def kind(function: Mutator) -> Mutator:
    """Register a mutator under its name."""
    KINDS[function.__name__] = function
    return function


def bytes_tensor(name: str, elements: Sequence[bytes], shape: tuple[int, ...] | None = None) -> Tensor:
    """A tensor of byte strings, [n, 1] unless ``shape`` says otherwise."""
    data = b"".join(struct.pack("<I", len(element)) + element for element in elements)
    return Tensor(name, "BYTES", shape or (len(elements), 1), data)


def array_tensor(name: str, array: NDArray[Any]) -> Tensor:
    """A tensor of a uint8, float32, int64 or bool array."""
    (datatype,) = (name for name, dtype in NUMPY.items() if dtype == array.dtype)
    return Tensor(name, datatype, array.shape, array.tobytes())


def array_of(tensor: Tensor) -> NDArray[Any]:
    """The array of a well-formed tensor that is not of bytes."""
    return np.frombuffer(tensor.data, NUMPY[tensor.datatype]).reshape(tensor.shape).copy()


def elements_of(tensor: Tensor) -> list[bytes]:
    """The byte strings of a well-formed tensor."""
    found, at = [], 0
    while at < len(tensor.data):
        (length,) = struct.unpack_from("<I", tensor.data, at)
        found.append(tensor.data[at + 4 : at + 4 + length])
        at += 4 + length
    return found


def odd_request(wellformed: Request, random: Random, kinds: Sequence[str] = tuple(KINDS)) -> Request:
    """A request that was spoilt in one to three ways, by kinds of those named (all when none is)."""
    names = list(kinds or KINDS)
    chosen = random.sample(names, min(len(names), random.choice((1, 1, 1, 2, 3))))
    for name in chosen:
        try:
            wellformed = KINDS[name](wellformed, random)
        except (KeyError, ValueError, IndexError, struct.error):
            continue  # what another kind has spoilt before cannot be read any more
    return replace(wellformed, kinds=tuple(chosen))


def odd_requests(wellformed: Sequence[Request], count: int, seed: int) -> Iterator[Request]:
    """The same ``count`` requests for the same seed, every kind in turn."""
    random, names = Random(seed), list(KINDS)
    for index in range(count):
        first = names[index % len(names)]
        request = replace(KINDS[first](random.choice(wellformed), random), kinds=(first,))
        if random.random() < 0.3:
            more = odd_request(request, random)
            request = replace(more, kinds=(first, *more.kinds))
        yield request


# --- how parts of a request are replaced -----------------------------------------------------------------------------
def _with_input(request: Request, index: int, tensor: Tensor) -> Request:
    inputs = list(request.inputs)
    inputs[index] = tensor
    return replace(request, inputs=tuple(inputs))


def _change_input(
    request: Request, random: Random, change: Callable[[Tensor], Tensor], datatypes: Sequence[str] = ()
) -> Request:
    """Change one of the inputs, of those types if any are named."""
    fit = [index for index, tensor in enumerate(request.inputs) if not datatypes or tensor.datatype in datatypes]
    if not fit:
        return request
    index = random.choice(fit)
    return _with_input(request, index, change(request.inputs[index]))


def _change_floats(request: Request, random: Random, change: Callable[[NDArray[np.float32]], Any]) -> Request:
    """Change the values of a float tensor in place, or by what ``change`` returns."""

    def changed(tensor: Tensor) -> Tensor:
        array = array_of(tensor)
        with np.errstate(all="ignore"):
            made = change(array)
            return array_tensor(tensor.name, array if made is None else np.asarray(made, np.float32))

    return _change_input(request, random, changed, ["FP32"])


def _change_picture(request: Request, random: Random, change: Callable[[bytes], bytes]) -> Request:
    def changed(tensor: Tensor) -> Tensor:
        elements = elements_of(tensor)
        at = random.randrange(len(elements))
        elements[at] = change(elements[at])
        return bytes_tensor(tensor.name, elements, tensor.shape)

    return _change_input(request, random, changed, ["BYTES"])


def _change_row(request: Request, change: Callable[[NDArray[np.float32]], Any]) -> Request:
    """Change each face that a request brings along: rows of 15 in `choice`, `faces` and `context`."""
    for index, tensor in enumerate(request.inputs):
        if tensor.name in ("choice", "faces", "context") and tensor.datatype == "FP32":
            array = array_of(tensor)
            with np.errstate(all="ignore"):
                for row in array.reshape(-1, array.shape[-1]):
                    change(row[:15])
            request = _with_input(request, index, array_tensor(tensor.name, array))
    return request


def _with_parameters(request: Request, **parameters: Value) -> Request:
    return replace(request, parameters={**request.parameters, **parameters})


def _any_value(random: Random) -> Value:
    values: tuple[Value, ...] = (
        random.choice(WEIRD_TEXT),
        random.choice(WEIRD_INTEGERS),
        random.choice(WEIRD_FLOATS),
        random.random() < 0.5,
    )
    return random.choice(values)


# --- values of tensors -----------------------------------------------------------------------------------------------
@kind
def every_value_the_same(request: Request, random: Random) -> Request:
    """One extreme number everywhere."""
    value = random.choice(WEIRD_FP32)
    return _change_floats(request, random, lambda array: array.fill(value))


@kind
def one_value_extreme(request: Request, random: Random) -> Request:
    """One extreme number in a tensor that is right otherwise."""

    def change(array: NDArray[np.float32]) -> None:
        array.reshape(-1)[random.randrange(array.size)] = random.choice(WEIRD_FP32)

    return _change_floats(request, random, change)


@kind
def some_values_extreme(request: Request, random: Random) -> Request:
    """A share of the numbers replaced, each by another extreme."""

    def change(array: NDArray[np.float32]) -> None:
        flat = array.reshape(-1)
        for at in range(0, flat.size, max(1, flat.size // 40)):
            if random.random() < 0.5:
                flat[at] = random.choice(WEIRD_FP32)

    return _change_floats(request, random, change)


@kind
def scaled(request: Request, random: Random) -> Request:
    """All numbers times a factor, up to the ends of float32 and down to denormals."""
    factor = random.choice([1e-42, 1e-30, 1e-6, 0.01, 0.5, 2, 100, 1e6, 1e30, -1, -1e6])
    return _change_floats(request, random, lambda array: array * np.float32(factor))


@kind
def random_bits(request: Request, random: Random) -> Request:
    """Any bit pattern: NaN with payloads, denormals, all magnitudes."""
    return _change_input(request, random, lambda t: replace(t, data=random.randbytes(len(t.data))), list(NUMPY))


@kind
def noise(request: Request, random: Random) -> Request:
    """Plausible magnitudes without any structure."""
    seed, spread = random.randrange(2**32), random.choice([1, 100, 1e4])
    return _change_floats(
        request, random, lambda array: np.random.default_rng(seed).normal(spread, spread, array.shape)
    )


@kind
def integers_extreme(request: Request, random: Random) -> Request:
    """Extremes in an INT64 tensor (a fingerprint)."""

    def change(tensor: Tensor) -> Tensor:
        values = np.full(len(tensor.data) // 8, random.choice(WEIRD_INTEGERS), np.int64)
        return array_tensor(tensor.name, values.reshape(tensor.shape))

    return _change_input(request, random, change, ["INT64"])


@kind
def one_row_of_a_batch_bad(request: Request, random: Random) -> Request:
    """Two rows, the second of them spoilt."""
    inputs = []
    for tensor in request.inputs:
        twice = replace(tensor, shape=(2 * tensor.shape[0], *tensor.shape[1:]), data=2 * tensor.data)
        if tensor.datatype == "FP32":
            array = array_of(twice)
            array[-1] = random.choice(WEIRD_FP32)
            twice = array_tensor(tensor.name, array)
        inputs.append(twice)
    return replace(request, inputs=tuple(inputs))


# --- faces -----------------------------------------------------------------------------------------------------------
@kind
def face_of_one_value(request: Request, random: Random) -> Request:
    """Box, score and points all the same number."""
    value = random.choice([*WEIRD_FP32, 1, 7, 50, 300])
    return _change_row(request, lambda row: row.fill(value))


@kind
def face_points_equal(request: Request, random: Random) -> Request:
    """All five points in one place, the box as it was."""
    value = random.choice([*WEIRD_FP32, 100])

    def change(row: NDArray[np.float32]) -> None:
        row[5:] = value

    return _change_row(request, change)


@kind
def face_points_collinear(request: Request, random: Random) -> Request:
    """All five points on a line."""
    a, b = random.choice([0, 1, -1, 1e-3, 1e6]), random.choice([0, 1, 10, 1e-6, 1e4])

    def change(row: NDArray[np.float32]) -> None:
        row[5::2], row[6::2] = 100 + a * np.arange(5), 100 + b * np.arange(5)

    return _change_row(request, change)


@kind
def face_points_far_apart(request: Request, random: Random) -> Request:
    """A face of the right form, of any size from an atom's to a galaxy's, about its own middle."""
    factor = random.choice([1e-40, 1e-6, 1e-3, 0.03, 0.1, 3, 10, 1e3, 1e6, 1e20, 1e35])

    def change(row: NDArray[np.float32]) -> None:
        middle = row[5:].reshape(5, 2).mean(axis=0)
        row[5:] = ((row[5:].reshape(5, 2) - middle) * factor + middle).reshape(-1)

    return _change_row(request, change)


@kind
def face_elsewhere(request: Request, random: Random) -> Request:
    """The whole face moved, points and box, out of the picture."""
    by = random.choice([-1e35, -1e6, -3000, -300, 300, 3000, 1e6, 1e35])

    def change(row: NDArray[np.float32]) -> None:
        row[:4] += by
        row[5:] += by

    return _change_row(request, change)


@kind
def face_turned(request: Request, random: Random) -> Request:
    """Points upside down, mirrored or in another order."""
    order = random.choice([(4, 3, 2, 1, 0), (1, 0, 2, 4, 3), (3, 4, 2, 0, 1), (2, 2, 2, 2, 2), (0, 1, 2, 0, 1)])

    def change(row: NDArray[np.float32]) -> None:
        row[5:] = row[5:].reshape(5, 2)[list(order)].reshape(-1)

    return _change_row(request, change)


@kind
def face_box_wrong(request: Request, random: Random) -> Request:
    """Points as they were in a box that is empty, inverted, huge, or elsewhere."""
    box = random.choice(
        [(0, 0, 0, 0), (9, 9, 1, 1), (-1e30, -1e30, 1e30, 1e30), (1e-40, 0, 2e-40, 1), (5000, 5000, 6000, 6000)]
    )

    def change(row: NDArray[np.float32]) -> None:
        row[:4] = box

    return _change_row(request, change)


@kind
def face_score_wrong(request: Request, random: Random) -> Request:
    """A score that is no share."""
    score = random.choice([-1, 2, 1e30, -0.0, 1e-45, math.nan])

    def change(row: NDArray[np.float32]) -> None:
        row[4] = score

    return _change_row(request, change)


# --- shapes, types, bytes --------------------------------------------------------------------------------------------
@kind
def batch_of_another_size(request: Request, random: Random) -> Request:
    """The batch dimension of one input replaced, its bytes left."""
    size = random.choice(DIMENSIONS)
    return _change_input(request, random, lambda t: replace(t, shape=(size, *t.shape[1:])))


@kind
def every_batch_of_another_size(request: Request, random: Random) -> Request:
    """The batch dimension of all inputs replaced, their bytes left."""
    size = random.choice(DIMENSIONS)
    return replace(request, inputs=tuple(replace(t, shape=(size, *t.shape[1:])) for t in request.inputs))


@kind
def dimension_of_another_size(request: Request, random: Random) -> Request:
    """Any one dimension replaced, the bytes left."""

    def change(tensor: Tensor) -> Tensor:
        shape = list(tensor.shape)
        shape[random.randrange(len(shape))] = random.choice(DIMENSIONS)
        return replace(tensor, shape=tuple(shape))

    return _change_input(request, random, change)


@kind
def smaller_or_larger_with_bytes_to_match(request: Request, random: Random) -> Request:
    """One dimension behind the batch's replaced, and as many zero bytes as that makes."""

    def change(tensor: Tensor) -> Tensor:
        shape = list(tensor.shape)
        shape[random.randrange(1, len(shape))] = random.choice([0, 1, 2, 3, 7, 64, 300])
        count = math.prod(shape)
        if count > 4_000_000:
            return tensor
        return array_tensor(tensor.name, np.zeros(shape, NUMPY[tensor.datatype]))

    return _change_input(request, random, change, list(NUMPY))


@kind
def dimension_too_many(request: Request, random: Random) -> Request:
    """A dimension of 1 somewhere."""

    def change(tensor: Tensor) -> Tensor:
        at = random.randrange(len(tensor.shape) + 1)
        return replace(tensor, shape=(*tensor.shape[:at], 1, *tensor.shape[at:]))

    return _change_input(request, random, change)


@kind
def dimension_missing(request: Request, random: Random) -> Request:
    """One dimension less, or none at all."""
    return _change_input(request, random, lambda t: replace(t, shape=t.shape[random.choice([1, 1, 9]) :]))


@kind
def type_of_another_name(request: Request, random: Random) -> Request:
    """Bytes of one type under the name of another."""
    name = random.choice(["FP64", "FP32", "FP16", "BF16", "BYTES", "UINT8", "INT64", "BOOL", "fp32", "FP99", "", "\0"])
    return _change_input(request, random, lambda t: replace(t, datatype=name))


@kind
def bytes_too_few(request: Request, random: Random) -> Request:
    """A tensor cut short."""
    keep = random.choice([0, 1, 3, 4])
    return _change_input(
        request, random, lambda t: replace(t, data=t.data[: random.choice([keep, len(t.data) - 1, len(t.data) // 2])])
    )


@kind
def bytes_too_many(request: Request, random: Random) -> Request:
    """More bytes than the shape has room for."""
    return _change_input(request, random, lambda t: replace(t, data=t.data + bytes(random.choice([1, 4, 1000]))))


@kind
def lengths_that_lie(request: Request, random: Random) -> Request:
    """A byte string whose length says more, less or 4 GiB."""

    def change(tensor: Tensor) -> Tensor:
        length = len(tensor.data) - 4
        lie = random.choice([0, 2**32 - 1, 2**31, length + 1, max(0, length - 1)])
        return replace(tensor, data=struct.pack("<I", lie) + tensor.data[4:])

    return _change_input(request, random, change, ["BYTES"])


# --- names -----------------------------------------------------------------------------------------------------------
@kind
def input_missing(request: Request, random: Random) -> Request:
    """One input left out."""
    gone = random.randrange(max(1, len(request.inputs)))
    return replace(request, inputs=tuple(t for index, t in enumerate(request.inputs) if index != gone))


@kind
def only_one_input(request: Request, random: Random) -> Request:
    """All inputs left out but one."""
    return replace(request, inputs=request.inputs and (random.choice(request.inputs),))


@kind
def no_input(request: Request, random: Random) -> Request:
    """All inputs left out."""
    return replace(request, inputs=())


@kind
def input_twice(request: Request, random: Random) -> Request:
    """One input sent twice."""
    return replace(request, inputs=(*request.inputs, random.choice(request.inputs)))


@kind
def input_of_another_name(request: Request, random: Random) -> Request:
    """A name that the model does not know."""
    name = random.choice(["", "\0", "IMAGE", "x" * 5000, "choice", "faces", "\U0001f600"])
    return _change_input(request, random, lambda t: replace(t, name=name))


@kind
def input_beside_the_others(request: Request, random: Random) -> Request:
    """One input more than the model has."""
    extra = array_tensor(
        random.choice(["extra", "context", "choice"]), np.zeros((1, random.choice([1, 15])), np.float32)
    )
    return replace(request, inputs=(*request.inputs, extra))


@kind
def output_unknown(request: Request, random: Random) -> Request:
    """An output that the model does not have."""
    return replace(request, outputs=(*request.outputs, Output(random.choice(["nothing", "", "\0", "x" * 5000]))))


@kind
def output_twice(request: Request, random: Random) -> Request:
    """One output asked for twice."""
    return replace(request, outputs=request.outputs and (*request.outputs, random.choice(request.outputs)))


@kind
def output_alone(request: Request, random: Random) -> Request:
    """One output of those that there are."""
    return replace(request, outputs=request.outputs and (random.choice(request.outputs),))


@kind
def model_unknown(request: Request, random: Random) -> Request:
    """A model that is not served."""
    return replace(
        request, model=random.choice(["nobody", "", "\0", "../face3d", "FACE3D", "x" * 5000, "face3d/infer"])
    )


@kind
def version_odd(request: Request, random: Random) -> Request:
    """A version that is not there or no number."""
    return replace(request, version=random.choice(["0", "2", "-1", "x", "1.0", " 1", "99999999999999999999", "\0"]))


@kind
def id_odd(request: Request, random: Random) -> Request:
    """An id that would not look well in a log."""
    return replace(request, id=random.choice(["\n[E] a forged line", "x" * 5000, "\x1b[31m", "\U0001f600", "\0"]))


# --- parameters ------------------------------------------------------------------------------------------------------
@kind
def option_of_any_value(request: Request, random: Random) -> Request:
    """One of the service's options with a value of any type."""
    return _with_parameters(request, **{random.choice(OPTIONS): _any_value(random)})


@kind
def option_of_weird_text(request: Request, random: Random) -> Request:
    """One of the service's options with text that reads as a number of some kind, or not at all."""
    return _with_parameters(request, **{random.choice(OPTIONS): random.choice(WEIRD_TEXT)})


@kind
def option_of_weird_float(request: Request, random: Random) -> Request:
    """One of the service's options with infinity, NaN and the like."""
    return _with_parameters(request, **{random.choice(OPTIONS): random.choice(WEIRD_FLOATS)})


@kind
def all_options_at_once(request: Request, random: Random) -> Request:
    """Every option, each with any value."""
    return _with_parameters(request, **{name: _any_value(random) for name in OPTIONS})


@kind
def options_that_contradict(request: Request, random: Random) -> Request:
    """Two options that choose a face."""
    return _with_parameters(request, face=0, box="0,0,9,9")


@kind
def reserved_parameter(request: Request, random: Random) -> Request:
    """A parameter that means something to the protocol, with a value of any type."""
    return _with_parameters(request, **{random.choice(RESERVED): _any_value(random)})


@kind
def unknown_parameter(request: Request, random: Random) -> Request:
    """A parameter that nobody knows, some of them nearly right."""
    name = random.choice(["", "\0", "x" * 1000, "texturesize", "score-threshold", "Pose", "__proto__", "\U0001f600"])
    return _with_parameters(request, **{name: _any_value(random)})


@kind
def parameters_by_the_hundred(request: Request, random: Random) -> Request:
    """Hundreds of parameters."""
    return _with_parameters(request, **{f"p{index}": index for index in range(random.choice([100, 500]))})


@kind
def parameter_of_an_input(request: Request, random: Random) -> Request:
    """A parameter beside an input: of shared memory, of binary data, of nothing."""
    name = random.choice(["shared_memory_region", "shared_memory_byte_size", "shared_memory_offset", "x", *RESERVED])
    return _change_input(request, random, lambda t: replace(t, parameters={name: _any_value(random)}))


@kind
def output_into_shared_memory(request: Request, random: Random) -> Request:
    """An output into a region that is not there."""
    size = random.choice([4, -1, 2**40, 0])
    parameters: dict[str, Value] = {
        "shared_memory_region": random.choice(["x", "", "/dev/mem"]),
        "shared_memory_byte_size": size,
    }
    return replace(request, outputs=tuple(replace(output, parameters=parameters) for output in request.outputs))


# --- pictures --------------------------------------------------------------------------------------------------------
@kind
def picture_cut_short(request: Request, random: Random) -> Request:
    """A file that ends early."""
    return _change_picture(request, random, lambda data: data[: random.randrange(len(data) + 1)])


@kind
def picture_of_noise(request: Request, random: Random) -> Request:
    """Bytes without meaning, some behind a file's first bytes."""
    head = random.choice(
        [b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"II*\0", b"RIFF\0\0\0\0WEBP", b"GIF89a", b"%!PS"]
    )
    return _change_picture(request, random, lambda _: head + random.randbytes(random.choice([0, 1, 50, 5000])))


@kind
def picture_with_bytes_flipped(request: Request, random: Random) -> Request:
    """A few bytes of the file changed."""

    def change(data: bytes) -> bytes:
        spoilt = bytearray(data)
        for _ in range(random.choice([1, 3, 30])):
            if spoilt:
                spoilt[random.randrange(len(spoilt))] = random.randrange(256)
        return bytes(spoilt)

    return _change_picture(request, random, change)


@kind
def picture_and_more(request: Request, random: Random) -> Request:
    """A file with other bytes behind its end."""
    return _change_picture(request, random, lambda data: data + random.randbytes(random.choice([1, 1000])))


def classification_of_an_output(request: Request, random: Random) -> Request:
    """Classes instead of values; of BYTES outputs (`mesh`, `texture`, `warnings`) this ends Triton 2.51."""
    count = random.choice([0, 1, -1, 100, 2**31])
    return replace(
        request, outputs=tuple(replace(output, parameters={"classification": count}) for output in request.outputs)
    )


DEADLY[classification_of_an_output.__name__] = classification_of_an_output
