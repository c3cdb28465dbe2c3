"""Messages of gRPC are looked at before they are parsed."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from tritonclient.grpc import service_pb2 as pb

from server.gateway import limits
from server.gateway.grpc_message import parse, to_triton
from server.gateway.refusal import Refused
from server.gateway.wire import split
from tests.attack import protobuf
from tests.server.gateway.conftest import element, message


@pytest.mark.parametrize("kind", protobuf.FLOODS)
def test_a_message_of_many_parts_is_refused_unparsed(kind: str) -> None:
    data = protobuf.FLOODS[kind](1 << 20)
    with pytest.raises(Refused, match=r"more than|no ModelInferRequest"):
        split(data)


def test_real_messages_pass(small_picture: bytes) -> None:
    parameters: dict[str, Any] = {f"p{index}": index for index in range(limits.MAX_PARAMETERS)}
    for data in (small_picture, bytes(32 << 20)):
        split(message(data, **parameters).SerializeToString())
    typed = pb.ModelInferRequest(model_name="reconstruct")
    image = typed.inputs.add(name="image", datatype="BYTES", shape=[1, 1])
    image.contents.bytes_contents.append(bytes(20 << 20))
    typed.inputs.add(name="choice", datatype="FP32", shape=[1, 15]).contents.fp32_contents.extend(range(15))
    split(typed.SerializeToString())


def test_the_parts_are_counted_inside_of_others_too() -> None:
    request = pb.ModelInferRequest(model_name="detect")
    for _ in range(16):
        tensor = request.inputs.add(name="image", datatype="BYTES", shape=[1, 1])
        for index in range(300):
            tensor.parameters[f"p{index}"].int64_param = index
    with pytest.raises(Refused, match="fields"):
        split(request.SerializeToString())


def test_no_bytes_raise_anything_else(small_picture: bytes) -> None:
    good, random = message(small_picture).SerializeToString(), Random(3)
    refused: list[str] = []
    for make in protobuf.KINDS.values():
        for _ in range(60):
            try:
                split(make(good, random))
            except Refused as error:
                refused.append(str(error))
    assert all(sentence.startswith("[BadRequest] ") for sentence in refused)
    assert len(refused) > 100
    assert split(b"").tensors == ()
    split(pb.ModelInferRequest(raw_input_contents=[element(b"x")]).SerializeToString())


def test_what_is_written_is_what_a_library_would_write_of_the_whole(small_picture: bytes) -> None:
    random, passed, refused = Random(4), 0, 0
    good = message(small_picture, texture_size=1024).SerializeToString()
    for make in protobuf.KINDS.values():
        for _ in range(60):
            data = make(good, random)
            try:
                parts = split(data)
                written = pb.ModelInferRequest.FromString(
                    parts.with_rest(to_triton(parse(pb.ModelInferRequest, parts.rest)))
                )
            except Refused:
                refused += 1
                continue
            passed += 1
            whole = parse(pb.ModelInferRequest, data)  # a library takes it, too
            assert list(parts.tensors) == list(whole.raw_input_contents)
            assert written == pb.ModelInferRequest.FromString(to_triton(whole))
    assert passed > 500
    assert refused > 100


def test_a_message_as_a_library_writes_it_is_not_copied() -> None:
    data = message(bytes(1 << 20)).SerializeToString()
    parts = split(data)
    assert parts.with_rest(to_triton(parse(pb.ModelInferRequest, parts.rest))) is data
    unknown = data[: parts.first] + protobuf.field(99, 0, b"\1") + data[parts.first :]
    for odd in (unknown, data[parts.first :] + data[: parts.first], _long_length(data, parts.first)):
        parts = split(odd)
        assert parts.with_rest(to_triton(parse(pb.ModelInferRequest, parts.rest))) == data


def test_tensors_between_other_fields_keep_their_order() -> None:
    tensors = [b"a" * 10, b"", b"c" * 70_000]
    request = pb.ModelInferRequest(model_name="reconstruct", id="x")
    rest = request.SerializeToString()
    data = b"".join(protobuf.text(7, tensor) + (rest if index == 1 else b"") for index, tensor in enumerate(tensors))
    parts = split(data)
    request.raw_input_contents.extend(tensors)
    assert parts.rest == rest
    assert [bytes(tensor) for tensor in parts.tensors] == tensors
    assert parts.with_rest(rest) == request.SerializeToString()


def _long_length(data: bytes, first: int) -> bytes:
    """The length of the field at ``first``, of three bytes, written in five."""
    return data[: first + 3] + bytes([data[first + 3] | 128, 128, 0]) + data[first + 4 :]
