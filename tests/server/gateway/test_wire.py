"""Messages of gRPC are looked at before they are parsed."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from tritonclient.grpc import service_pb2 as pb

from server.gateway import limits
from server.gateway.refusal import Refused
from server.gateway.wire import check_size
from tests.attack import protobuf
from tests.server.gateway.conftest import element, message


@pytest.mark.parametrize("kind", protobuf.FLOODS)
def test_a_message_of_many_parts_is_refused_unparsed(kind: str) -> None:
    data = protobuf.FLOODS[kind](1 << 20)
    with pytest.raises(Refused, match=r"more than|no ModelInferRequest"):
        check_size(data)


def test_real_messages_pass(small_picture: bytes) -> None:
    parameters: dict[str, Any] = {f"p{index}": index for index in range(limits.MAX_PARAMETERS)}
    for data in (small_picture, bytes(32 << 20)):
        check_size(message(data, **parameters).SerializeToString())
    typed = pb.ModelInferRequest(model_name="reconstruct")
    image = typed.inputs.add(name="image", datatype="BYTES", shape=[1, 1])
    image.contents.bytes_contents.append(bytes(20 << 20))
    typed.inputs.add(name="choice", datatype="FP32", shape=[1, 15]).contents.fp32_contents.extend(range(15))
    check_size(typed.SerializeToString())


def test_the_parts_are_counted_inside_of_others_too() -> None:
    request = pb.ModelInferRequest(model_name="detect")
    for _ in range(16):
        tensor = request.inputs.add(name="image", datatype="BYTES", shape=[1, 1])
        for index in range(300):
            tensor.parameters[f"p{index}"].int64_param = index
    with pytest.raises(Refused, match="fields"):
        check_size(request.SerializeToString())


def test_no_bytes_raise_anything_else(small_picture: bytes) -> None:
    good, random = message(small_picture).SerializeToString(), Random(3)
    refused: list[str] = []
    for make in protobuf.KINDS.values():
        for _ in range(60):
            try:
                check_size(make(good, random))
            except Refused as error:
                refused.append(str(error))
    assert all(sentence.startswith("[BadRequest] ") for sentence in refused)
    assert len(refused) > 100
    check_size(b"")
    check_size(pb.ModelInferRequest(raw_input_contents=[element(b"x")]).SerializeToString())
