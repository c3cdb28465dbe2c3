"""Odd JSON as the body of an inference over HTTP: kinds by name, each gives bodies for one seed."""

from __future__ import annotations

import functools
import gzip
import json
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from random import Random
from typing import Any

LENGTH = "Inference-Header-Content-Length"
Body = tuple[bytes, dict[str, str]]
KINDS: dict[str, Callable[[bytes, Random], Body]] = {}

_NUMBERS = (
    *(
        "NaN",
        "Infinity",
        "-Infinity",
        "-0",
        "1e999",
        "-1e999",
        "1e-999",
        "9" * 5000,
        "9" * 25,
        "0x10",
        "01",
        "1.",
        ".5",
    ),
    *("+1", "1e", "--1", "1_0", "\uff11", "\u0662", "1e5", "2.0", "18446744073709551616", "-9223372036854775809"),
)
_PLACES = ("face", "score_threshold", "texture_size", "sharpen", "timeout", "priority")


def _kind(function: Callable[[bytes, Random], Body]) -> Callable[[bytes, Random], Body]:
    KINDS[function.__name__] = function
    return function


def tree(picture: bytes, **changes: Any) -> dict[str, Any]:
    """A well-formed request's JSON, with fields replaced."""
    size = {"binary_data_size": len(picture) + 4}
    image = {"name": "image", "datatype": "BYTES", "shape": [1, 1], "parameters": size}
    return {"inputs": [image], "outputs": [{"name": "coefficients", "parameters": {"binary_data": True}}]} | changes


def body(text: bytes, picture: bytes, **headers: str) -> Body:
    """JSON and the picture behind it, with the header that says where one ends."""
    tensor = len(picture).to_bytes(4, "little") + picture
    return text + tensor, {LENGTH: str(len(text)), "Content-Type": "application/octet-stream"} | headers


def _with(picture: bytes, place: str, literal: str) -> Body:
    """A literal of any text as the value of a parameter, a dimension or a size."""
    mark = '"@@"'
    made = tree(picture)
    if place == "shape":
        made["inputs"][0]["shape"] = [1, "@@"]
    elif place == "size":
        made["inputs"][0]["parameters"]["binary_data_size"] = "@@"
    else:
        made["parameters"] = {place: "@@"}
    return body(json.dumps(made).replace(mark, literal).encode(), picture)


@_kind
def number_that_is_odd(picture: bytes, random: Random) -> Body:
    return _with(picture, random.choice([*_PLACES, "shape", "size"]), random.choice(_NUMBERS))


@_kind
def value_of_another_type(picture: bytes, random: Random) -> Body:
    literal = random.choice(["null", "[]", "{}", "[[1]]", '{"a": 1}', '""', "true", "false", '"1"', "[1, 1]"])
    return _with(picture, random.choice([*_PLACES, "shape", "size"]), literal)


@_kind
def name_twice(picture: bytes, random: Random) -> Body:
    """A name twice in one object, plain, escaped, or of another case."""
    text = json.dumps(tree(picture))
    hidden = '"outputs": [{"name": "mesh", "parameters": {"classification": 1}}]'
    key = random.choice(['"outputs"', r'"output\u0073"', r'"\u006futputs"', '"Outputs"', r'"outputs\u0000"'])
    return body(f"{{{hidden.replace(chr(34) + 'outputs' + chr(34), key, 1)}, {text[1:]}".encode(), picture)


@_kind
def nested_deeply(picture: bytes, random: Random) -> Body:
    depth = random.choice([10, 500, 5000, 30_000])
    opened, closed = random.choice([("[", "]"), ('{"a":', "}")])
    inner = opened * depth + "1" + closed * random.choice([0, depth])
    text = json.dumps(tree(picture, parameters="@@")).replace('"@@"', inner)
    return body(text.encode(), picture)


@_kind
def text_with_odd_characters(picture: bytes, random: Random) -> Body:
    """Lone surrogates, NUL, marks of direction, in names and values."""
    odd = random.choice(
        [r"\ud800", r"\udc00\ud800", r"\u0000", r"\u202e", "\u202e", r"\uffff", "\x7f", r"\/", "\x1b[31m"]
    )
    field = random.choice(["id", "model", "output", "parameter", "value", "datatype"])
    made = tree(picture)
    match field:
        case "output":
            made["outputs"][0]["name"] = "@@"
        case "parameter":
            made["parameters"] = {"@@": 1}
        case "value":
            made["parameters"] = {"pose": "@@"}
        case "datatype":
            made["inputs"][0]["datatype"] = "@@"
        case _:
            made[field] = "@@"
    return body(json.dumps(made).replace("@@", odd).encode(), picture)


@_kind
def encoded_otherwise(picture: bytes, random: Random) -> Body:
    """A byte order mark, UTF-16, UTF-32, UTF-7, Latin-1, escapes that are cut."""
    text = json.dumps(tree(picture, id="\u00e9"), ensure_ascii=False)
    encodings = ["utf-8-sig", "utf-16", "utf-16-le", "utf-32", "utf-7", "latin-1"]
    data = text.encode(random.choice(encodings))
    return body(data if random.random() < 0.8 else data[:-2] + b"\\u12", picture)


@_kind
def not_quite_json(picture: bytes, random: Random) -> Body:
    text = json.dumps(tree(picture))
    changed = random.choice(
        [
            *(text + ",", text[:-1], text + text, text.replace('"', "'"), "// x\n" + text, text.replace(": ", ":,", 1)),
            *(
                "\n" * 70 + text,
                text[:-1] + ",}",
                "{}",
                "[" + text + "]",
                "null",
                "0",
                '"x"',
                "",
                "\0" + text,
                "{" * 60_000,
            ),
        ]
    )
    return body(changed.encode(), picture)


@_kind
def shape_of_the_tree(picture: bytes, random: Random) -> Body:
    """Lists for objects, objects for lists, fields of other protocols."""
    changes: list[dict[str, Any]] = [
        {"inputs": {}}, {"inputs": []}, {"inputs": None}, {"inputs": [[]]}, {"inputs": [1]}, {"inputs": "image"},
        {"outputs": {}}, {"outputs": [None]}, {"outputs": [{"name": None}]}, {"outputs": [{"name": ["mesh"]}]},
        {"outputs": [{"name": "mesh", "parameters": []}]}, {"instances": [{"b64": "AAAA"}]}, {"signature_name": "x"},
        {"parameters": []}, {"id": 5}, {"id": None}, {"id": "x" * 5000}, {"model_name": "align"}, {"b64": "AAAA"},
        {"inputs": [{"name": "image"}] * 5000}, {"outputs": [{"name": "mesh"}] * 1000},
        {"parameters": {f"p{index}": 1 for index in range(3000)}},
    ]  # fmt: skip
    return body(json.dumps(tree(picture, **random.choice(changes))).encode(), picture)


@_kind
def classification_anywhere(picture: bytes, random: Random) -> Body:
    """What ends Triton 2.51: beside an output, for the request, in capitals, escaped, nested, as text."""
    key = random.choice(["classification", "CLASSIFICATION", r"\u0063lassification", "classification ", "class"])
    value: Any = random.choice([1, 0, -1, "1", True, 2**31, 1.0, [1], {"classification": 1}, None, 2**64])
    name = random.choice(["mesh", "texture", "warnings", "coefficients"])
    binary = random.choice([{}, {"binary_data": True}, {"binary_data": False}])
    made = tree(picture, outputs=[{"name": name, "parameters": {"@@": value, **binary}}])
    match random.randrange(4):
        case 0:
            made["parameters"] = {"@@": value}
        case 1:
            made["outputs"] = [{"name": name, "@@": value}]
        case 2:
            made["outputs"] = [{"name": name, "parameters": {"parameters": {"@@": value}}}]
    return body(json.dumps(made).replace("@@", key).encode(), picture)


@_kind
def sizes_that_lie(picture: bytes, random: Random) -> Body:
    """A length of the JSON or of a tensor that is not theirs."""
    text = json.dumps(tree(picture)).encode()
    lie = random.choice(
        ["0", "1", "-1", str(len(text) + 1), str(len(text) - 1), "9" * 30, "", " 5", "5 ", "0x5", "\u0665"]
    )
    if random.random() < 0.5:
        return body(text, picture, **{LENGTH: lie.encode("utf-8").decode("latin-1")})
    made = tree(picture)
    made["inputs"][0]["parameters"]["binary_data_size"] = random.choice([0, 1, -1, 2**31, 2**63, len(picture), 10**30])
    return body(json.dumps(made).encode(), picture)


@_kind
def picture_as_json(picture: bytes, random: Random) -> Body:
    """The picture as text, as numbers, as base64, in lists."""
    data: Any = random.choice(
        [["AAAA"], [{"b64": "AAAA"}], list(picture[:300]), [[1, 2], [3]], "AAAA", [None], [[[[[[[[[[1]]]]]]]]]], []]
    )
    image = {"name": "image", "datatype": random.choice(["BYTES", "UINT8", "FP32"]), "shape": [1, 1], "data": data}
    return json.dumps(tree(picture, inputs=[image])).encode(), {"Content-Type": "application/json"}


@functools.cache
def _bomb() -> bytes:
    """10 MiB of zeros in 10 KiB."""
    return gzip.compress(bytes(10 << 20))


@_kind
def no_json_at_all(picture: bytes, random: Random) -> Body:
    """A bare picture, forms, compressed bodies, nothing, noise."""
    form = b'--x\r\nContent-Disposition: form-data; name="image"\r\n\r\n' + picture + b"\r\n--x--\r\n"
    choices: list[Body] = [
        (picture, {}),
        (form, {"Content-Type": "multipart/form-data; boundary=x"}),
        (b"image=AAAA", {"Content-Type": "application/x-www-form-urlencoded"}),
        (_bomb(), {"Content-Encoding": random.choice(["gzip", "GZIP", "identity, gzip", "br"])}),
        (b"", {}),
        (random.randbytes(300), {LENGTH: "0"}),
        (random.randbytes(300), {}),
        (b"", {LENGTH: "0"}),
        (b"<?xml version='1.0'?><x/>", {"Content-Type": "text/xml"}),
    ]
    return random.choice(choices)


def odd_bodies(picture: bytes, count: int, seed: int) -> Iterator[tuple[str, Body]]:
    """The same ``count`` names of kinds and bodies for the same seed, every kind in turn."""
    random, names = Random(seed), list(KINDS)
    for name in islice(cycle(names), count):
        yield name, KINDS[name](picture, random)
