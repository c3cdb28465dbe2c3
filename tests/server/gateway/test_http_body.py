"""HTTP bodies: what is understood, what is written in its place, and what is told to whoever sent something else."""

from __future__ import annotations

import base64
import contextlib
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.gateway import limits
from server.gateway.http_body import Parsed, parse_body
from server.gateway.refusal import Refused

PICTURE = b"\xff\xd8\xff\xe0" + bytes(range(256)) * 8
IMAGE = {"name": "image", "datatype": "BYTES", "shape": [1, 1], "parameters": {"binary_data_size": 8}}
TENSOR = b"\x04\0\0\0abcd"


def parse(tree: Any, binary: bytes = b"", **kwargs: Any) -> Parsed:
    header = tree if isinstance(tree, bytes) else json.dumps(tree).encode()
    return parse_body("face3d", "", header + binary, str(len(header)), kwargs.get("media", ""))


def refusal(body: bytes, length: str | None = None, media: str = "") -> str:
    with pytest.raises(Refused) as caught:
        parse_body("face3d", "", body, length, media)
    assert 400 <= caught.value.kind.http < 500
    sentence = str(caught.value)
    assert sentence.isprintable()
    return sentence


def test_a_binary_request_is_written_anew() -> None:
    parsed = parse(
        {
            "id": "7",
            "inputs": [IMAGE],
            "outputs": [{"name": "mesh", "parameters": {"binary_data": True}}, {"name": "warnings"}],
            "parameters": {"score_threshold": 0.5, "face": 1, "white_balance": True, "pose": "head"},
        },
        TENSOR,
    )
    assert json.loads(parsed.header) == {
        "id": "7",
        "inputs": [IMAGE],
        "outputs": [
            {"name": "mesh", "parameters": {"binary_data": True}},
            {"name": "warnings", "parameters": {"binary_data": False}},
        ],
        "parameters": {"score_threshold": "0.5", "face": 1, "white_balance": True, "pose": "head"},
    }
    assert bytes(parsed.binary) == TENSOR
    assert parsed.request.inputs[0].raw == TENSOR


def test_values_in_json_come_flat() -> None:
    choice = {"name": "choice", "datatype": "FP32", "shape": [1, 3], "data": [[1, 2.5, -3]]}
    parsed = parse({"inputs": [IMAGE, choice]}, TENSOR)
    assert parsed.request.inputs[1].count == 3
    assert json.loads(parsed.header)["inputs"][1]["data"] == [1, 2.5, -3]


def test_a_body_that_is_one_tensor_is_a_picture_and_wants_bytes_back() -> None:
    parsed = parse_body("face3d", "", PICTURE, "0", "application/octet-stream")
    assert bytes(parsed.binary)[4:] == PICTURE
    assert not parsed.request.text_by_default
    assert json.loads(parsed.header)["parameters"] == {"binary_data_output": True}


BASE64 = base64.b64encode(PICTURE).decode()
IN_JSON: list[Any] = [BASE64, [BASE64], [[BASE64]], {"b64": BASE64}, [{"b64": BASE64}], list(PICTURE), [list(PICTURE)]]


@pytest.mark.parametrize("data", IN_JSON)
@pytest.mark.parametrize("datatype", ["BYTES", "UINT8"])
def test_a_picture_in_json_is_told_the_right_call(data: Any, datatype: str) -> None:
    tree = {"inputs": [{"name": "image", "datatype": datatype, "shape": [1, 1], "data": data}]}
    sentence = refusal(json.dumps(tree).encode())
    assert sentence.startswith("[BadImage] the input `image` came as ")
    assert "curl -H 'Inference-Header-Content-Length: 0' --data-binary @photo.jpg" in sentence


@pytest.mark.parametrize(
    ("body", "media", "words"),
    [
        (PICTURE, "image/jpeg", "a JPEG file"),
        (PICTURE, "application/x-www-form-urlencoded", "a JPEG file"),
        (b"\x89PNG\r\n\x1a\n", "", "a PNG file"),
        (b"RIFF\0\0\0\0WEBP", "", "a WebP file"),
        (b"--x\r\n\r\n", "multipart/form-data; boundary=x", "multipart/form-data"),
        (b"--x\r\nContent-Disposition: form-data\r\n", "", "multipart/form-data"),
        (b"image=abc&x=1", "application/x-www-form-urlencoded", "x-www-form-urlencoded"),
        (BASE64.encode(), "", "base64 text"),
        (b"data:image/jpeg;base64,abc", "", "base64 text"),
        (b"", "", "empty"),
        (b"hello", "", "no JSON"),
        (b"[1,2]", "", "no JSON"),
        (b'{"instances": [{"b64": "abc"}]}', "", "no `inputs`"),
        (b'{"b64": "abc"}', "", "no `inputs`"),
        (b"{", "", "no valid JSON"),
        (b'{"inputs": "\xff"}', "", "not UTF-8"),
        (b'{"inputs": [' + b" " * limits.MAX_JSON_BODY + b"]}", "", "does not belong into it"),
    ],
)
def test_a_body_that_is_no_request_is_told_the_right_call(body: bytes, media: str, words: str) -> None:
    sentence = refusal(body, media=media)
    assert words in sentence
    assert "/v2/models/face3d/infer" in sentence


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        ({"inputs": [IMAGE], "inputz": 1}, "did you mean `inputs`?"),
        ({"inputs": [IMAGE | {"dtype": 1}]}, "did you mean `datatype`?"),
        ({"inputs": [IMAGE], "outputs": [{"name": "mesh", "x": 1}]}, "no field `x`"),
        ({"inputs": {}}, "list of objects"),
        ({"inputs": [1]}, "list of objects"),
        ({"inputs": [IMAGE] * 17}, "17 entries"),
        ({"inputs": [IMAGE], "outputs": [{"name": "a"}] * 65}, "65 entries"),
        ({"inputs": [IMAGE], "id": 7}, "`id` is a text"),
        ({"inputs": [IMAGE], "parameters": []}, "is an object"),
        ({"inputs": [IMAGE], "parameters": {"box": [1, 2, 3, 4]}}, "`box` is a list"),
        ({"inputs": [IMAGE], "parameters": {"face": None}}, "`face` is null"),
        ({"inputs": [IMAGE], "parameters": {"face": 2**63}}, "too large"),
        ({"inputs": [IMAGE], "parameters": {"binary_data_output": 1}}, "true or false"),
        ({"inputs": [IMAGE], "outputs": [{"name": "mesh", "parameters": {"binary_data": 1}}]}, "true or false"),
        ({"inputs": [IMAGE], "outputs": [{}]}, "needs a `name`"),
        ({"inputs": [IMAGE | {"shape": "1,1"}]}, "whole numbers"),
        ({"inputs": [IMAGE | {"shape": [True, 1]}]}, "whole numbers"),
        ({"inputs": [IMAGE | {"shape": [1.0, 1]}]}, "whole numbers"),
        ({"inputs": [IMAGE | {"shape": [1] * 9}]}, "9 dimensions"),
        ({"inputs": [IMAGE | {"parameters": {"binary_data_size": 9}}]}, "8 bytes are left"),
        ({"inputs": [IMAGE | {"parameters": {"binary_data_size": -1}}]}, "8 bytes are left"),
        ({"inputs": [IMAGE | {"parameters": {"binary_data_size": 7}}]}, "1 bytes follow the last tensor"),
        ({"inputs": [IMAGE | {"data": ["x"]}]}, "both `data` and `binary_data_size`"),
        ({"inputs": [IMAGE | {"parameters": {"shared_memory_region": "x"}}]}, "shared memory is not served"),
        ({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": ["a"]}]}, "no FP32"),
        ({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [True]}]}, "no FP32"),
        ({"inputs": [{"name": "x", "datatype": "UINT8", "shape": [1], "data": [256]}]}, "no UINT8"),
        ({"inputs": [{"name": "x", "datatype": "INT64", "shape": [1], "data": [1.5]}]}, "no INT64"),
        ({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1]}]}, "has no `data`"),
    ],
)
def test_wrong_json_is_named(tree: Any, words: str) -> None:
    header = json.dumps(tree).encode()
    assert words in refusal(header + TENSOR, str(len(header)))


@pytest.mark.parametrize("text", ['{"inputs": [], "inputs": []}', '{"inputs": [{"name": "a", "name": "b"}]}'])
def test_a_name_that_stands_twice_is_refused_since_readers_differ(text: str) -> None:
    assert "stands twice" in refusal(text.encode())


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e999", "9" * 5000])
def test_numbers_that_are_none_are_refused(text: str) -> None:
    refusal(b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [%b]}]}' % text.encode())


def test_deep_json_is_refused() -> None:
    assert "too deeply" in refusal(b'{"inputs": ' + b"[" * 100_000 + b"]" * 100_000 + b"}")
    shallow = b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": ' + b"[" * 900 + b"]" * 900 + b"}]}"
    assert "nested in more than" in refusal(shallow)


@pytest.mark.parametrize("length", ["", "-1", "+1", "1.0", "x", "99999", "1" * 40, "0x1", " 1"])
def test_a_wrong_header_length_is_refused(length: str) -> None:
    assert "Inference-Header-Content-Length is" in refusal(b"{}", length)


def test_a_json_header_beyond_its_bound_is_refused() -> None:
    body = b"{" + b" " * limits.MAX_JSON_HEADER + b"}"
    assert f"{limits.MAX_JSON_HEADER} are allowed" in refusal(body, str(len(body)))


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["inputs", "outputs", "name", "datatype", "shape", "data", "parameters", "id"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(["inputs", "outputs", "parameters", "id"]), _JSON), st.binary(max_size=20))
def test_any_json_is_understood_or_refused(tree: dict[str, Any], binary: bytes) -> None:
    header = json.dumps(tree).encode()
    with contextlib.suppress(Refused):
        json.loads(parse_body("face3d", "", header + binary, str(len(header)), "").header)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.binary(max_size=200), st.none() | st.sampled_from(["0", "1", "5", "200"]), st.text(max_size=20))
def test_any_bytes_are_understood_or_refused(body: bytes, length: str | None, media: str) -> None:
    with contextlib.suppress(Refused):
        json.loads(parse_body("face3d", "", body, length, media).header)
