"""What is refused of a request, without a server."""

from __future__ import annotations

import dataclasses
import struct
from typing import Any

import pytest

from server.gateway.checks import check, find_model
from server.gateway.description import InferRequest, InputTensor, PublicModel, RequestedOutput, public_model
from server.gateway.refusal import Refused, shown

MODEL = public_model(
    {
        "name": "face3d",
        "max_batch_size": 4,
        "input": [
            {"name": "image", "data_type": "TYPE_STRING", "dims": ["1"]},
            {"name": "choice", "data_type": "TYPE_FP32", "dims": ["15"], "optional": True},
        ],
        "output": [
            {"name": "mesh", "data_type": "TYPE_STRING", "dims": [1]},
            {"name": "warnings", "data_type": "TYPE_STRING", "dims": [-1]},
            {"name": "coefficients", "data_type": "TYPE_FP32", "dims": [257]},
        ],
    },
    ("1", "3"),
)


def element(data: bytes) -> bytes:
    return struct.pack("<I", len(data)) + data


IMAGE = InputTensor("image", "BYTES", (1, 1), element(b"picture"))
CHOICE = InputTensor("choice", "FP32", (1, 15), bytes(60))
GOOD = InferRequest("face3d", inputs=(IMAGE,))


def refusal(request: InferRequest = GOOD, model: PublicModel = MODEL, **changes: Any) -> str | None:
    try:
        check(dataclasses.replace(request, **changes), model)
    except Refused as error:
        return str(error)
    return None


def image(**changes: Any) -> tuple[InputTensor, ...]:
    return (dataclasses.replace(IMAGE, **changes),)


def test_an_ensemble_that_is_off_is_named_with_the_switch() -> None:
    with pytest.raises(Refused) as caught:
        find_model("fuse", "", {}, ["face3d"])
    assert (caught.value.tag, caught.value.kind.http) == ("NotServed", 404)
    assert "--fusion" in str(caught.value)


def test_a_right_request_passes() -> None:
    assert refusal() is None
    assert refusal(id="3f1c-77", outputs=(RequestedOutput("mesh"), RequestedOutput("coefficients"))) is None
    assert refusal(inputs=(IMAGE, CHOICE)) is None
    assert refusal(inputs=image(shape=(3, 1), raw=element(b"a") + element(b"") + element(b"ccc"))) is None
    assert refusal(inputs=(IMAGE, dataclasses.replace(CHOICE, raw=None, count=15))) is None


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ((), "needs the input `image` (BYTES [1 to 4, 1])"),
        (image(name="imag"), "did you mean `image`?"),
        (image(name="\x1b[31m"), "no input `?[31m`"),
        ((IMAGE, IMAGE), "given twice"),
        (image(datatype="UINT8"), "is UINT8: send BYTES"),
        (image(datatype=""), "is of no type"),
        (image(shape=(0, 1)), "batch of `image` is 0"),
        (image(shape=(5, 1)), "batch of `image` is 5"),
        (image(shape=(2**32 + 1, 1)), "batch of `image` is 4294967297"),
        (image(shape=(-1, 1)), "batch of `image` is -1"),
        (image(shape=()), "batch of `image` is missing"),
        (image(shape=(1,)), "shape of `image` is [1]"),
        (image(shape=(1, 2)), "shape of `image` is [1, 2]"),
        (image(shape=(1, 1, 1)), "shape of `image` is [1, 1, 1]"),
        (image(shape=(1,) * 9), "9 dimensions"),
        (image(raw=b""), "ends before element 0"),
        (image(raw=b"\x05\0\0"), "ends before element 0"),
        (image(raw=b"\x05\0\0\0abc"), "said to have 5 bytes"),
        (image(raw=b"\xff\xff\xff\xffabc"), "said to have 4294967295 bytes"),
        (image(raw=element(b"a") + b"x"), "1 bytes after its last element"),
        (image(shape=(2, 1)), "ends before element 1"),
        (image(raw=None, count=2), "has 2 values: its shape has 1"),
        (image(parameters={"shared_memory_region": "x"}), "shared memory is not served"),
        (image(parameters={"binary": 1}), "has no parameter `binary`"),
        ((IMAGE, dataclasses.replace(CHOICE, raw=bytes(59))), "has 59 bytes: its shape has 60"),
        ((IMAGE, dataclasses.replace(CHOICE, shape=(2, 15), raw=bytes(120))), "differ in their first dimension"),
        ((IMAGE, dataclasses.replace(CHOICE, shape=(2**48 - 1,) * 2, raw=None, count=1)), "is 281474976710655: send 1"),
        ((IMAGE, dataclasses.replace(CHOICE, shape=(1, 2**63 - 1), raw=None, count=1)), "[1, 9223372036854775807]"),
        ((IMAGE,) * 17, "17 inputs"),
    ],
)
def test_a_wrong_input_is_refused(tensors: tuple[InputTensor, ...], words: str) -> None:
    sentence = refusal(inputs=tensors)
    assert sentence is not None
    assert words in sentence
    assert sentence.startswith(("[BadRequest] ", "[BadOption] "))
    assert sentence.isprintable()


@pytest.mark.parametrize(
    ("outputs", "words"),
    [
        ([RequestedOutput("mehs")], "did you mean `mesh`?"),
        ([RequestedOutput("zzz")], "there are `mesh`, `warnings`, `coefficients`."),
        ([RequestedOutput("mesh"), RequestedOutput("mesh")], "named twice"),
        ([RequestedOutput("mesh", parameters={"classification": 1})], "`classification` is not taken"),
        ([RequestedOutput("coefficients", parameters={"classification": 0})], "`classification` is not taken"),
        ([RequestedOutput("mesh", parameters={"shared_memory_offset": 1})], "shared memory is not served"),
        ([RequestedOutput("mesh", as_text=True)], '"binary_data": true'),
        ([RequestedOutput(f"o{i}") for i in range(65)], "65 outputs"),
    ],
)
def test_a_wrong_output_is_refused(outputs: list[RequestedOutput], words: str) -> None:
    sentence = refusal(outputs=tuple(outputs))
    assert sentence is not None
    assert sentence.startswith("[BadOption] ")
    assert words in sentence


def test_text_may_be_asked_for_in_json_and_files_may_not() -> None:
    assert refusal(outputs=(RequestedOutput("warnings", as_text=True), RequestedOutput("coefficients", True))) is None
    assert refusal(text_by_default=True) is not None  # all outputs, the mesh among them
    assert refusal(text_by_default=True, outputs=(RequestedOutput("mesh"),)) is None


@pytest.mark.parametrize("text", ["x" * 129, "a\nb", "\x1b[31m", "ü", "\0"])
def test_an_odd_id_is_refused(text: str) -> None:
    assert (refusal(id=text) or "").startswith("[BadRequest] the request's id has ")


@pytest.mark.parametrize(
    ("name", "version", "tag", "words"),
    [
        ("face3dd", "", "BadRequest", "did you mean `face3d`?"),
        ("align", "", "BadRequest", "no model `align`"),
        ("", "", "BadRequest", "there are `face3d`, `detect`."),
        ("detect", "", "ServerUnavailable", "not loaded"),
        ("face3d", "2", "BadRequest", "version 2 of `face3d` is not served"),
        ("face3d", "01", "BadRequest", "is no version"),
        ("face3d", "-1", "BadRequest", "is no version"),
        ("face3d", "9" * 30, "BadRequest", "is no version"),
        ("face3d", "1/../../x", "BadRequest", "is no version"),
    ],
)
def test_a_model_that_is_not_served_is_refused(name: str, version: str, tag: str, words: str) -> None:
    with pytest.raises(Refused) as caught:
        find_model(name, version, {"face3d": MODEL}, ("face3d", "detect"))
    assert caught.value.tag == tag
    assert words in str(caught.value)


def test_a_served_version_is_found() -> None:
    for version in ("", "1", "3"):
        assert find_model("face3d", version, {"face3d": MODEL}, ("face3d",)) is MODEL


def test_a_model_without_batches_has_no_batch_dimension() -> None:
    model = dataclasses.replace(MODEL, max_batch=0)
    assert refusal(model=model, inputs=image(shape=(1,))) is None
    assert refusal(model=model) is not None


def test_what_a_client_wrote_is_shown_on_one_line() -> None:
    assert shown("a\nb\x1b[2J\u202ec") == "a?b?[2J?c"
    assert len(shown("x" * 10_000)) == 40
