"""HTTP bodies of inference requests <-> a description: KServe v2's JSON with the binary tensor extension."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from server.gateway import limits
from server.gateway.description import ELEMENT_SIZE, InferRequest, InputTensor, RequestedOutput, Value
from server.gateway.parameters import nearest, no_regions
from server.gateway.refusal import INVALID, TOO_LARGE, Refused, bad_option, bad_request, shown

_DIGITS: Final = re.compile(r"[0-9]{1,10}")
_INTEGERS: Final = {
    "UINT8": (0, 2**8), "UINT16": (0, 2**16), "UINT32": (0, 2**32), "UINT64": (0, 2**64),
    "INT8": (-(2**7), 2**7), "INT16": (-(2**15), 2**15), "INT32": (-(2**31), 2**31), "INT64": (-(2**63), 2**63),
}  # fmt: skip


@dataclass(frozen=True)
class Parsed:
    """A body that was understood.

    Attributes:
        request: its description.
        header: the JSON to send in its place.
        binary: what follows it.
    """

    request: InferRequest
    header: bytes
    binary: memoryview | bytes


def right_call(model: str) -> str:
    """Return the end of a sentence about a body that is no request: a call that works."""
    return (
        "send the file's bytes: curl -H 'Inference-Header-Content-Length: 0' --data-binary @photo.jpg "
        f"http://HOST:8000/v2/models/{model}/infer -o answer.bin (or use the package face3d-client)."
    )


def parse_body(model: str, version: str, body: bytes, header_length: str | None, media: str) -> Parsed:
    """Read a body and write it anew, so that Triton reads what was checked.

    Args:
        model, version: from the path.
        body: as it came.
        header_length: value of ``Inference-Header-Content-Length``, None where there is none.
        media: value of ``Content-Type``, empty where there is none.

    Raises:
        Refused: it is no request.
    """
    length = len(body) if header_length is None else _header_length(header_length, len(body))
    if header_length is not None and length == 0:
        return _lone_tensor(model, version, body)
    _check_looks_like_json(model, body, length, media)
    tree = _json(model, body[:length])
    binary = memoryview(body)[length:]
    return _from_tree(model, version, tree, binary)


def _header_length(text: str, size: int) -> int:
    if not _DIGITS.fullmatch(text) or int(text) > size:
        raise bad_request(
            f"Inference-Header-Content-Length is `{shown(text)}`: give the number of bytes of the JSON at the start of "
            f"the body ({size} bytes in all), or 0 where the body is one tensor."
        )
    if int(text) > limits.MAX_JSON_HEADER:
        raise Refused(
            TOO_LARGE,
            "BadRequest",
            f"the JSON before the tensors has {int(text)} bytes: {limits.MAX_JSON_HEADER} are allowed.",
        )
    return int(text)


def _lone_tensor(model: str, version: str, body: bytes) -> Parsed:
    """Read the short form: the whole body is the one input, a picture."""
    tree = {
        "inputs": [
            {
                "name": "image",
                "shape": [1, 1],
                "datatype": "BYTES",
                "parameters": {"binary_data_size": len(body) + 4},
            }
        ],
        "parameters": {"binary_data_output": True},
    }
    return _from_tree(model, version, tree, len(body).to_bytes(4, "little") + body)


# --- bodies that are no JSON ----------------------------------------------------------------------------------------
_PICTURES: Final = (
    (b"\xff\xd8\xff", "a JPEG"),
    (b"\x89PNG", "a PNG"),
    (b"RIFF", "a WebP"),
    (b"BM", "a BMP"),
    (b"II*\0", "a TIFF"),
    (b"MM\0*", "a TIFF"),
    (b"GIF8", "a GIF"),
)
_OTHERS: Final = (
    (b"\x93NUMPY", "an array of NumPy, which is no picture file"),
    (b"PK\3\4", "an archive (ZIP)"),
    (b"\x1f\x8b", "compressed (gzip)"),
    (b"%PDF", "a PDF document"),
    (b"\x80\4\x95", "a serialised object of Python"),
    (b"\x80\5\x95", "a serialised object of Python"),
)
_BASE64: Final = re.compile(rb"[A-Za-z0-9+/_\r\n-]{64}")
_ADDRESS: Final = re.compile(rb"(?:https?|s3|gs|file|ftp)://", re.IGNORECASE)
_FORM: Final = re.compile(rb"[A-Za-z_][A-Za-z0-9_.\[\]-]{0,60}=")


def _check_looks_like_json(model: str, body: bytes, length: int, media: str) -> None:
    if body[: min(length, 64)].lstrip().startswith(b"{"):
        if length > limits.MAX_JSON_BODY:  # one before binary tensors has been held to less already
            raise Refused(
                TOO_LARGE,
                "BadRequest",
                f"the JSON has {length} bytes ({limits.MAX_JSON_BODY} are allowed): a picture does not belong into it, "
                f"{right_call(model)}",
            )
        return
    raise Refused(INVALID, "BadRequest", f"the body is {_what_it_is(body, media)}: {right_call(model)}")


def _what_it_is(body: bytes, media: str) -> str:
    """Return what a body that is no JSON seems to be."""
    if not body:
        return "empty"
    for magic, name in _PICTURES:
        if body.startswith(magic):
            return f"{name} file without the header that says so"
    if body[4:8] == b"ftyp":
        return "a HEIC or AVIF file, or a film, without the header that says so"
    for magic, name in _OTHERS:
        if body.startswith(magic):
            return name
    kind = media.partition(";")[0].strip().lower()
    if kind == "multipart/form-data" or body.startswith(b"--"):
        return "a form (multipart/form-data)"
    if _FORM.match(body):
        return "a form (application/x-www-form-urlencoded)"
    if body.startswith(b"data:") or _BASE64.match(body.strip(b"\"'")):
        return "base64 text"
    if body[:64].lstrip().startswith(b"<"):
        return "a page or another text (HTML, XML)"
    if _ADDRESS.match(body):
        return "an address, which is not fetched"
    return "no JSON of the protocol"


def _json(model: str, text: bytes) -> Any:
    try:
        return json.loads(text.decode(), object_pairs_hook=_unique, parse_constant=_no_constant)
    except RecursionError:
        raise bad_request("the JSON is nested too deeply: a request of the protocol is flat.") from None
    except UnicodeDecodeError:
        raise bad_request(f"the JSON is not UTF-8: bytes do not belong into it, {right_call(model)}") from None
    except ValueError as error:
        raise bad_request(f"the body is no valid JSON ({shown(error, 80)}): {right_call(model)}") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build an object whose names differ: readers of JSON do not agree on which of two counts."""
    tree = dict(pairs)
    if len(tree) != len(pairs):
        raise ValueError("a name stands twice in one object")
    return tree


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON")


# --- trees ----------------------------------------------------------------------------------------------------------
_REQUEST: Final = ("id", "inputs", "outputs", "parameters")
_INPUT: Final = ("name", "datatype", "shape", "data", "parameters")
_OUTPUT: Final = ("name", "parameters")


def _from_tree(model: str, version: str, tree: Any, binary: memoryview | bytes) -> Parsed:
    if not isinstance(tree, dict):
        raise bad_request(f"the JSON is no object: {right_call(model)}")
    if "instances" in tree or "b64" in tree or "inputs" not in tree:
        raise bad_request(f"the JSON has no `inputs` of the protocol KServe v2: {right_call(model)}")
    _known(tree, _REQUEST, "the request")
    parameters = _parameters(tree, "the request")
    binary_output = parameters.pop("binary_data_output", False)
    if not isinstance(binary_output, bool):
        raise bad_option("`binary_data_output` is true or false.")
    rest = memoryview(binary)
    inputs, written_inputs, at = [], [], 0
    for entry in _objects(tree, "inputs", limits.MAX_TENSORS):
        tensor, written, at = _input(model, entry, rest, at)
        inputs.append(tensor)
        written_inputs.append(written)
    if at != len(rest):
        raise bad_request(
            f"{len(rest) - at} bytes follow the last tensor: the sizes (binary_data_size) must add up to what is sent."
        )
    outputs = tuple(_output(entry, binary_output) for entry in _objects(tree, "outputs", limits.MAX_OUTPUTS))
    identity = tree.get("id", "")
    if not isinstance(identity, str):
        raise bad_request("`id` is a text.")
    request = InferRequest(model, version, identity, tuple(inputs), outputs, parameters, not binary_output)
    return Parsed(request, _written(request, written_inputs, binary_output), binary)


def _written(request: InferRequest, inputs: list[dict[str, Any]], binary_output: bool) -> bytes:
    tree: dict[str, Any] = {"inputs": inputs}
    if request.id:
        tree["id"] = request.id
    if request.outputs:
        tree["outputs"] = [{"name": o.name, "parameters": {"binary_data": not o.as_text}} for o in request.outputs]
    # Triton takes texts, integers and booleans; a number with a fraction goes as text.
    parameters = {n: repr(v) if isinstance(v, float) else v for n, v in request.parameters.items()}
    if binary_output and not request.outputs:
        parameters["binary_data_output"] = True
    if parameters:
        tree["parameters"] = parameters
    return json.dumps(tree).encode()


def _objects(tree: Mapping[str, Any], name: str, most: int) -> list[dict[str, Any]]:
    entries = tree.get(name, [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise bad_request(f"`{name}` is a list of objects.")
    if len(entries) > most:
        raise bad_request(f"`{name}` has {len(entries)} entries: too many.")
    return entries


def _known(tree: Mapping[str, Any], names: tuple[str, ...], where: str) -> None:
    for name in tree:
        if name not in names:
            raise bad_request(f"{where} has no field `{shown(name)}`: {nearest(name, names)}")


def _parameters(tree: Mapping[str, Any], where: str) -> dict[str, Value]:
    given = tree.get("parameters", {})
    if not isinstance(given, dict):
        raise bad_option(f"`parameters` of {where} is an object.")
    for name, value in given.items():
        if not isinstance(value, (bool, int, float, str)):
            kind = {list: "a list", dict: "an object", type(None): "null"}.get(type(value), "something else")
            raise bad_option(f"the parameter `{shown(name)}` is {kind}: give a text, a number, true or false.")
        if isinstance(value, float) and not math.isfinite(value):
            raise bad_option(f"the parameter `{shown(name)}` is too large a number.")
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise bad_option(f"the parameter `{shown(name)}` is too large a number.")
    return dict(given)


def _output(entry: dict[str, Any], binary_output: bool) -> RequestedOutput:
    _known(entry, _OUTPUT, "an output")
    parameters = _parameters(entry, "an output")
    binary = parameters.pop("binary_data", binary_output)
    if not isinstance(binary, bool):
        raise bad_option("`binary_data` is true or false.")
    return RequestedOutput(_text(entry, "name", "an output"), not binary, parameters)


def _text(entry: Mapping[str, Any], name: str, where: str) -> str:
    value = entry.get(name)
    if not isinstance(value, str):
        raise bad_request(f"{where} needs a `{name}`, a text.")
    return value


def _input(model: str, entry: dict[str, Any], binary: memoryview, at: int) -> tuple[InputTensor, dict[str, Any], int]:
    """Read one input: its description, what to write for it, and where the next one's bytes begin."""
    _known(entry, _INPUT, "an input")
    name, datatype = _text(entry, "name", "an input"), _text(entry, "datatype", "an input")
    shape = entry.get("shape")
    if not isinstance(shape, list) or not all(type(dim) is int and -(2**63) <= dim < 2**63 for dim in shape):
        raise bad_request(f"`shape` of the input `{shown(name)}` is a list of whole numbers.")
    if len(shape) > limits.MAX_RANK:
        raise bad_request(f"`shape` of the input `{shown(name)}` has {len(shape)} dimensions: too many.")
    parameters = _parameters(entry, "an input")
    if any(parameter.startswith("shared_memory_") for parameter in parameters):
        raise no_regions()
    size = parameters.pop("binary_data_size", None)
    written: dict[str, Any] = {"name": name, "shape": shape, "datatype": datatype}
    if size is None:
        values = _values(model, name, datatype, entry.get("data"))
        tensor = InputTensor(name, datatype, tuple(shape), count=len(values), parameters=parameters)
        return tensor, written | {"data": values}, at
    if "data" in entry:
        raise bad_request(f"the input `{shown(name)}` has both `data` and `binary_data_size`: give one of them.")
    if type(size) is not int or not 0 <= size <= len(binary) - at:
        raise bad_request(
            f"`binary_data_size` of the input `{shown(name)}` is {shown(size)}, and {len(binary) - at} bytes are left: "
            "give the number of its bytes behind the JSON."
        )
    tensor = InputTensor(name, datatype, tuple(shape), binary[at : at + size], parameters=parameters)
    return tensor, written | {"parameters": {"binary_data_size": size}}, at + size


def _values(model: str, name: str, datatype: str, data: Any) -> list[Any]:
    """Return the values of a tensor in JSON, flat.

    Raises:
        Refused: there are none, they are of another type, or it is a picture, which JSON cannot hold.
    """
    if datatype == "BYTES" or name == "image":
        what = "numbers" if _first(data) is not None and not isinstance(_first(data), str) else "text"
        if isinstance(_first(data), dict):
            what = "an object"
        raise Refused(
            INVALID,
            "BadImage",
            f"the input `{shown(name)}` came as {what} in JSON, which cannot hold a file: {right_call(model)}",
        )
    if not isinstance(data, list):
        raise bad_request(f"the input `{shown(name)}` has no `data`: give a list of values, or `binary_data_size`.")
    values = list(_flat(data))
    if not all(_fits(value, datatype) for value in values):
        raise bad_request(f"the input `{shown(name)}` has values that are no {shown(datatype)}.")
    return values


def _first(data: Any) -> Any:
    """Find the first value inside of nested lists; None where there is none."""
    while isinstance(data, list):
        data = data[0] if data else None
    return data


def _flat(data: list[Any], depth: int = 1) -> Iterator[Any]:
    """Yield the values in nested lists, as deep as a shape has dimensions."""
    if depth > limits.MAX_RANK:
        raise bad_request(f"`data` is nested in more than {limits.MAX_RANK} lists: give the values flat.")
    for value in data:
        if isinstance(value, list):
            yield from _flat(value, depth + 1)
        else:
            yield value


def _fits(value: Any, datatype: str) -> bool:
    if datatype == "BOOL":
        return isinstance(value, bool)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    if datatype in _INTEGERS:
        low, high = _INTEGERS[datatype]
        return isinstance(value, int) and low <= value < high
    most = {"FP16": 65504.0, "FP32": 3.4028234e38}.get(datatype, 1.7e308)
    return datatype in ELEMENT_SIZE and -most <= value <= most
