"""The gateway in front of the real ensembles, over gRPC."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from face3d_client import Face3DClient, ImageTooLarge
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from server.embedded import EmbeddedServer
from server.gateway import limits
from server.gateway.process import GatewayProcess
from tests.server.gateway import http2
from tests.server.gateway.conftest import ask, message

INVALID = grpc.StatusCode.INVALID_ARGUMENT


@pytest.fixture(autouse=True)
def still_serving(gateway: GatewayProcess, server: EmbeddedServer) -> Iterator[None]:
    yield
    assert server.poll() is None
    assert ask(gateway.http, "GET", "/healthz").status == 200


def failure(call: Callable[..., Any], request: Any, **kwargs: Any) -> tuple[grpc.StatusCode, str]:
    """Status and sentence of a call that must fail."""
    with pytest.raises(grpc.RpcError) as caught:
        call(request, **({"timeout": 60} | kwargs))
    return caught.value.code(), caught.value.details()


def test_the_answer_is_tritons(gateway: GatewayProcess, server: EmbeddedServer, small_picture: bytes) -> None:
    answers = []
    for address in (server.grpc, gateway.grpc):
        options = [("grpc.max_receive_message_length", -1)]
        with grpc.insecure_channel(address, options=options) as channel:
            request = message(small_picture, outputs=())
            answers.append(service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request))
    names = [[output.name for output in answer.outputs] for answer in answers]
    assert names[0] == names[1]
    assert len(names[0]) == 15
    for output, ours, theirs in zip(names[0], *(answer.raw_output_contents for answer in answers), strict=True):
        assert len(ours) == len(theirs), output


def test_the_client_works_through_it(gateway: GatewayProcess, portrait_jpeg: bytes) -> None:
    with Face3DClient(gateway.grpc) as client:
        client.wait_ready()
        assert client.info().extensions == ("binary_tensor_data", "parameters", "model_configuration")
        assert client.reconstruct(
            portrait_jpeg, box=(100, 50, 400, 400), score_threshold=0.6, white_balance=True
        ).mesh.faces.size
        with pytest.raises(ImageTooLarge):
            client.detect(bytes(limits.MAX_MESSAGE))


def change(request: Any, path: str, value: Any) -> None:
    """Set ``outputs.0.parameters.classification=...`` and the like; the last part may be a field or a key."""
    *way, last = path.split(".")
    target = request
    for part in way:
        target = target[int(part)] if part.isdigit() else getattr(target, part)
    if hasattr(target, "keys"):
        target[last].CopyFrom(value)
    elif last.isdigit():
        target[int(last)] = value
    elif isinstance(value, list):
        del getattr(target, last)[:]
        getattr(target, last).extend(value)
    else:
        setattr(target, last, value)


INT, TEXT = pb.InferParameter(int64_param=1), pb.InferParameter(string_param="x")
WRONG: list[tuple[str, Any, str]] = [
    ("outputs.0.parameters.classification", INT, "`classification` is not taken"),
    ("outputs.0.parameters.classification", pb.InferParameter(int64_param=0), "`classification` is not taken"),
    ("outputs.0.parameters.shared_memory_region", TEXT, "shared memory is not served"),
    ("outputs.0.parameters.whatever", INT, "no parameter `whatever`"),
    ("outputs.0.name", "mehs", "did you mean `mesh`?"),
    ("inputs.0.parameters.shared_memory_region", TEXT, "shared memory is not served"),
    ("inputs.0.parameters.binary_data_size", INT, "belongs to a tensor of an HTTP request"),
    ("inputs.0.name", "imag", "did you mean `image`?"),
    ("inputs.0.datatype", "FP32", "send BYTES"),
    ("inputs.0.shape", [1], "the shape of `image` is [1]"),
    ("inputs.0.shape", [2**32 + 1, 1], "the batch of `image` is 4294967297"),
    ("inputs.0.shape", [-1, -1], "the batch of `image` is -1"),
    ("raw_input_contents", [], "has 0 values"),
    ("raw_input_contents", [b"\0\0\0\0", b""], "1 inputs and 2 raw contents"),
    ("raw_input_contents", [b"abc"], "ends before element 0"),
    ("parameters.score_treshold", INT, "did you mean `score_threshold`?"),
    ("parameters.score_threshold", pb.InferParameter(double_param=float("nan")), "give a finite number"),
    ("parameters.score_threshold", pb.InferParameter(), "has no value"),
    ("parameters.face", pb.InferParameter(uint64_param=2**63), "too large"),
    ("parameters.priority", INT, "`priority` is not taken"),
    ("parameters.sequence_id", INT, "`sequence_id` is not taken"),
    ("parameters.triton_enable_empty_final_response", INT, "is not taken"),
    ("parameters.binary_data_output", INT, "it belongs to HTTP"),
    ("id", "x" * 3000, "3000 characters"),
    ("id", "\n[E] fake log line", "printable"),
]


@pytest.mark.parametrize(("path", "value", "words"), WRONG)
def test_a_wrong_request_is_refused(stub: Any, small_picture: bytes, path: str, value: Any, words: str) -> None:
    request = message(small_picture, outputs=("mesh",))
    change(request, path, value)
    code, sentence = failure(stub.ModelInfer, request)
    assert code is INVALID
    assert words in sentence
    assert sentence.startswith(("[BadOption] ", "[BadRequest] "))


@pytest.mark.parametrize("output", ["mesh", "texture", "preview", "warnings"])
def test_classification_never_reaches_triton(stub: Any, small_picture: bytes, output: str) -> None:
    for kind in ("int64_param", "uint64_param", "string_param", "bool_param", "double_param"):
        request = message(small_picture, outputs=(output,))
        setattr(request.outputs[0].parameters["classification"], kind, "1" if kind == "string_param" else 1)
        assert failure(stub.ModelInfer, request)[0] is INVALID


def test_models_and_versions_that_are_not_served_are_not_found(stub: Any, small_picture: bytes) -> None:
    for model in ("align", "detector", "", "face3d\0", "../face3d", "x" * 5000):
        assert failure(stub.ModelInfer, message(small_picture, model=model))[0] is grpc.StatusCode.NOT_FOUND
        assert failure(stub.ModelMetadata, pb.ModelMetadataRequest(name=model))[0] is grpc.StatusCode.NOT_FOUND
        assert failure(stub.ModelConfig, pb.ModelConfigRequest(name=model))[0] is grpc.StatusCode.NOT_FOUND
        assert failure(stub.ModelReady, pb.ModelReadyRequest(name=model))[0] is grpc.StatusCode.NOT_FOUND
    request = message(small_picture)
    request.model_version = "7"
    code, sentence = failure(stub.ModelInfer, request)
    assert code is grpc.StatusCode.NOT_FOUND
    assert "version 7 of `face3d` is not served" in sentence


def test_what_is_served_about_a_model_is_there(stub: Any) -> None:
    assert stub.ServerLive(pb.ServerLiveRequest()).live
    assert stub.ServerReady(pb.ServerReadyRequest()).ready
    assert stub.ModelReady(pb.ModelReadyRequest(name="face3d", version="1")).ready
    assert not stub.ModelReady(pb.ModelReadyRequest(name="face3d", version="7")).ready
    assert stub.ModelMetadata(pb.ModelMetadataRequest(name="detect")).outputs[0].name == "faces"
    assert stub.ModelConfig(pb.ModelConfigRequest(name="face3d")).config.max_batch_size == 4


def test_what_is_not_served_is_unimplemented(gateway: GatewayProcess, stub: Any, small_picture: bytes) -> None:
    for call, request in (
        (stub.RepositoryIndex, pb.RepositoryIndexRequest()),
        (stub.RepositoryModelUnload, pb.RepositoryModelUnloadRequest(model_name="face3d")),
        (stub.ModelStatistics, pb.ModelStatisticsRequest()),
        (stub.SystemSharedMemoryStatus, pb.SystemSharedMemoryStatusRequest()),
        (stub.SystemSharedMemoryRegister, pb.SystemSharedMemoryRegisterRequest(name="x", key="/x", byte_size=1)),
        (stub.CudaSharedMemoryStatus, pb.CudaSharedMemoryStatusRequest()),
        (stub.TraceSetting, pb.TraceSettingRequest()),
        (stub.LogSettings, pb.LogSettingsRequest()),
    ):
        code, sentence = failure(call, request, metadata=[("triton-grpc-protocol-admin-key", "x")])
        assert code is grpc.StatusCode.UNIMPLEMENTED
        assert sentence.startswith("[BadRequest] this method is not served here")
    with pytest.raises(grpc.RpcError) as caught:
        list(stub.ModelStreamInfer(iter([message(small_picture)])))
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert http2.call(gateway.grpc, [], b"", 0, method="/x/y").status == 12
    assert http2.call(gateway.grpc, [], b"", 0, method="/grpc.health.v1.Health/Watch").status == 12


def test_health_is_truthful(gateway: GatewayProcess) -> None:
    def check(service: str) -> bytes:
        name = service.encode()
        with grpc.insecure_channel(gateway.grpc) as channel:
            answer = channel.unary_unary("/grpc.health.v1.Health/Check")(b"\n" + bytes([len(name)]) + name, timeout=10)
        return bytes(answer)

    assert check("") == check("inference.GRPCInferenceService") == b"\x08\x01"
    for unknown in ("face3d", "x", "inference.GRPCInferenceServicE"):
        with pytest.raises(grpc.RpcError) as caught:
            check(unknown)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_typed_contents_are_taken(stub: Any, small_picture: bytes) -> None:
    request = message(small_picture)
    del request.raw_input_contents[:]
    request.inputs[0].contents.bytes_contents.append(small_picture)
    assert stub.ModelInfer(request).outputs[0].name == "coefficients"
    request.inputs[0].contents.fp32_contents.append(1.0)
    assert failure(stub.ModelInfer, request)[0] is INVALID


def test_errors_of_the_models_come_unchanged(gateway: GatewayProcess, server: EmbeddedServer) -> None:
    answers = []
    for address in (server.grpc, gateway.grpc):
        with grpc.insecure_channel(address) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            answers.append(failure(stub.ModelInfer, message(b"no picture", score_threshold="0.5")))
    assert answers[0] == answers[1]
    assert "[BadImage]" in answers[1][1]


# --- bounds ---------------------------------------------------------------------------------------------------------
def test_a_message_beyond_the_bound_is_refused(stub: Any) -> None:
    code, sentence = failure(stub.ModelInfer, message(bytes(limits.MAX_MESSAGE)))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "message larger than max" in sentence  # gRPC's own words, which the client knows as ImageTooLarge


def test_metadata_beyond_the_bound_is_refused(stub: Any) -> None:
    code, _ = failure(stub.ServerLive, pb.ServerLiveRequest(), metadata=[("x", "y" * limits.MAX_METADATA)])
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_deadline_holds_and_a_cancelled_call_leaves_its_place(
    gateway: GatewayProcess, stub: Any, portrait_bytes: bytes
) -> None:
    assert failure(stub.ModelInfer, message(portrait_bytes, outputs=()), timeout=0.02)[0] is (
        grpc.StatusCode.DEADLINE_EXCEEDED
    )
    calls = [stub.ModelInfer.future(message(portrait_bytes, outputs=())) for _ in range(8)]
    time.sleep(0.1)
    for call in calls:
        call.cancel()
    assert gateway.status
    deadline = time.monotonic() + 30
    while b"face3d_gateway_in_flight 0.0\n" not in ask(gateway.status, "GET", "/metrics").body:
        assert time.monotonic() < deadline, "cancelled calls are still inside"
        time.sleep(0.1)
    assert b"face3d_gateway_held_bytes 0.0\n" in ask(gateway.status, "GET", "/metrics").body


def test_more_calls_than_there_is_room_for_are_refused_at_once(gateway: GatewayProcess, small_picture: bytes) -> None:
    request = message(small_picture)

    def work(index: int) -> tuple[Any, str]:
        # A connection holds MAX_STREAMS calls: what comes on top waits in its client.
        options = [("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(gateway.grpc, options=options) as channel:
            try:
                service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=120)
            except grpc.RpcError as error:
                return error.code(), error.details()
        return None, ""

    with ThreadPoolExecutor(limits.MAX_IN_FLIGHT + 40) as pool:
        answers = list(pool.map(work, range(limits.MAX_IN_FLIGHT + 40)))
    assert {code for code, _ in answers} <= {None, grpc.StatusCode.UNAVAILABLE}
    assert any(code is None for code, _ in answers)


def test_calls_that_send_no_message_do_not_keep_others_out(
    gateway: GatewayProcess, stub: Any, small_picture: bytes
) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(limits.MAX_READING + 20):
            stack.enter_context(http2.begin(gateway.grpc))
        time.sleep(0.5)
        assert stub.ModelInfer(message(small_picture), timeout=60).outputs[0].name == "coefficients"


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.binary(max_size=300), st.integers(0, 255))
def test_any_bytes_are_answered(gateway: GatewayProcess, data: bytes, flag: int) -> None:
    answer = http2.call(gateway.grpc, [], data, flag)
    assert answer.status in (3, 5, 12, 13)
