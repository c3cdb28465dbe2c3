"""Requests by gRPC that are wrong in every way their messages allow, on a real server with tiny models.

NVIDIA's client would not send most of them, so they are built from the protocol's own messages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import grpc
import numpy as np
import psutil
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2 as messages

from server.embedded import EmbeddedServer, ServerOptions, on_free_ports
from tests.server.calls import every_process_stays, infer, raw, rows
from tests.server.repositories import ECHO, arithmetic, ensemble, lookup, python_model
from tests.servers import serving

# What Triton answers to nonsense. Not among them: UNKNOWN, and what a client says for itself when nobody answers.
TYPED = {"INVALID_ARGUMENT", "NOT_FOUND", "UNAVAILABLE", "INTERNAL", "UNIMPLEMENTED", "ALREADY_EXISTS", "OUT_OF_RANGE"}
ANSWER_WITHIN = 20.0

NUMBERS = st.integers(-(2**63), 2**63 - 1) | st.integers(-2, 9) | st.sampled_from([2**31, 2**32, 2**62, 2**63 - 1])
NAMES = st.sampled_from(["x", "y", "twice", "square", "index", "value", "", "\0", "x" * 5000]) | st.text(max_size=8)
MODELS = st.sampled_from(["chain", "arithmetic", "lookup", "echo", "nobody", "", "../chain", "\0", "chain" * 999])
VERSIONS = st.sampled_from(["", "1", "2", "-1", "one", "99999999999999999999", "\0"])
TYPES = st.sampled_from(["FP32", "FP64", "FP16", "BF16", "INT64", "UINT8", "BOOL", "BYTES", "", "FP99", "fp32"])
KEYS = st.sampled_from(
    [
        "priority", "timeout", "sequence_id", "sequence_start", "sequence_end", "binary_data", "binary_data_size",
        "classification", "shared_memory_region", "shared_memory_byte_size", "shared_memory_offset",
        "triton_enable_empty_final_response", "triton_final_response", "headers", "", "x",
    ]
)  # fmt: skip


@st.composite
def parameters(draw: st.DrawFn) -> dict[str, Any]:
    """A few parameters, each a message of any kind: also one without a value, or of the wrong kind for its key."""
    kinds: dict[str, st.SearchStrategy[Any]] = {
        "bool_param": st.booleans(),
        "int64_param": NUMBERS,
        "uint64_param": st.integers(0, 2**64 - 1),
        "double_param": st.floats(),
        "string_param": st.text(max_size=20),
    }
    found = {}
    for key in draw(st.lists(KEYS, max_size=3, unique=True)):
        kind = draw(st.sampled_from([*kinds, ""]))
        found[key] = messages.InferParameter(**({kind: draw(kinds[kind])} if kind else {}))
    return found


@st.composite
def contents(draw: st.DrawFn) -> Any:
    """Values inside the message, of one kind, of several, of none; the number as it falls."""
    kinds: dict[str, st.SearchStrategy[Any]] = {
        "bool_contents": st.lists(st.booleans(), max_size=9),
        "int_contents": st.lists(st.integers(-(2**31), 2**31 - 1), max_size=9),
        "int64_contents": st.lists(st.integers(-(2**63), 2**63 - 1), max_size=9),
        "uint_contents": st.lists(st.integers(0, 2**32 - 1), max_size=9),
        "uint64_contents": st.lists(st.integers(0, 2**64 - 1), max_size=9),
        "fp32_contents": st.lists(st.floats(width=32), max_size=9),
        "fp64_contents": st.lists(st.floats(), max_size=9),
        "bytes_contents": st.lists(st.binary(max_size=9), max_size=9),
    }
    chosen = draw(st.lists(st.sampled_from(list(kinds)), max_size=2, unique=True))
    return messages.InferTensorContents(**{kind: draw(kinds[kind]) for kind in chosen})


SHAPES = st.lists(NUMBERS, max_size=6) | st.sampled_from([[1, 4], [2, 4], [1, 1], [8, 4], [1, 2**62], [2**32, 2**32]])
INPUTS = st.builds(
    messages.ModelInferRequest.InferInputTensor,
    name=NAMES | st.just("x"),
    datatype=TYPES | st.just("FP32"),
    shape=SHAPES | st.just([1, 4]),
    parameters=parameters(),
    contents=st.none() | contents(),
)
OUTPUTS = st.builds(
    messages.ModelInferRequest.InferRequestedOutputTensor, name=NAMES | st.just("y"), parameters=parameters()
)
RAW = st.binary(max_size=40) | st.sampled_from([rows(1).tobytes(), rows(1).tobytes()[:-1], bytes(3), bytes(16)])
REQUESTS = st.builds(
    messages.ModelInferRequest,
    model_name=MODELS | st.just("chain"),
    model_version=VERSIONS | st.just(""),
    id=st.text(max_size=20),
    parameters=parameters(),
    inputs=st.lists(INPUTS, max_size=3),
    outputs=st.lists(OUTPUTS, max_size=3),
    raw_input_contents=st.lists(RAW, max_size=3),
)


@st.composite
def nearly_right(draw: st.DrawFn) -> Any:
    """A request that `chain` would answer, but for one thing."""
    request = good_request()
    tensor = request.inputs[0]
    match draw(st.integers(0, 9)):
        case 0:
            tensor.shape[:] = draw(SHAPES)
        case 1:
            tensor.datatype = draw(TYPES)
        case 2:
            tensor.name = draw(NAMES)
        case 3:
            request.raw_input_contents[:] = draw(st.lists(RAW, max_size=3))
        case 4:
            request.raw_input_contents[:] = []
            tensor.contents.CopyFrom(draw(contents()))
        case 5:
            tensor.contents.CopyFrom(draw(contents()))  # beside the raw ones
        case 6:
            request.inputs.extend(draw(st.lists(INPUTS, min_size=1, max_size=9)))
        case 7:
            request.outputs.extend(draw(st.lists(OUTPUTS, min_size=1, max_size=9)))
        case 8:
            for key, value in draw(parameters()).items():
                request.parameters[key].CopyFrom(value)
        case _:
            for key, value in draw(parameters()).items():
                tensor.parameters[key].CopyFrom(value)
    return request


def good_request() -> Any:
    """One that `chain` answers with twice what it got."""
    tensor = messages.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=[1, 4])
    return messages.ModelInferRequest(model_name="chain", inputs=[tensor], raw_input_contents=[rows(3).tobytes()])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    repository = tmp_path_factory.mktemp("repository")
    arithmetic(repository, config="dynamic_batching {}\n")
    lookup(repository)
    python_model(repository, "echo", ECHO)
    ensemble(repository, "chain", ["arithmetic"])
    options = ServerOptions(repository=repository, model_control_mode="explicit", admin_key="sesame", exit_timeout=10)
    with serving(on_free_ports(options)) as running:
        yield running


@pytest.fixture(scope="module")
def stub(server: EmbeddedServer) -> Iterator[Any]:
    with raw(server) as service:
        yield service


@pytest.fixture(autouse=True)
def _healthy_afterwards(server: EmbeddedServer) -> Iterator[None]:
    with every_process_stays(server):
        yield
    assert infer(server, "chain", x=rows(2))["y"].tolist() == rows(4).tolist()
    assert infer(server, "echo", x=rows(2))["y"].tolist() == rows(2).tolist()
    assert infer(server, "lookup", index=np.array([[3]], np.int64))["value"].tolist() == [[30.0]]


def answer(server: EmbeddedServer, call: Callable[[], object]) -> str:
    """Make a call; 'OK' or the name of the error's code, which must be one of `TYPED` and come with a sentence."""
    error: Any = None
    try:
        call()
    except grpc.RpcError as raised:
        error = raised
    assert server.poll() is None, server.log()[-2000:]
    if error is None:
        return "OK"
    code = str(error.code().name)
    assert code in TYPED, (code, error.details())
    assert error.details()
    return code


def ask(server: EmbeddedServer, stub: Any, request: Any) -> str:
    """What comes of an inference."""
    return answer(server, lambda: stub.ModelInfer(request, timeout=ANSWER_WITHIN))


FUZZ = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@settings(FUZZ, max_examples=300)
@given(request=REQUESTS)
def test_any_request_gets_a_typed_answer(server: EmbeddedServer, stub: Any, request: Any) -> None:
    event(ask(server, stub, request))


@settings(FUZZ, max_examples=300)
@given(request=nearly_right())
def test_a_request_that_is_wrong_in_one_thing_gets_a_typed_answer(
    server: EmbeddedServer, stub: Any, request: Any
) -> None:
    event(ask(server, stub, request))


@pytest.mark.soak
@settings(FUZZ, max_examples=10_000)
@given(request=REQUESTS | nearly_right())
def test_any_request_gets_a_typed_answer_for_long(server: EmbeddedServer, stub: Any, request: Any) -> None:
    event(ask(server, stub, request))


@settings(FUZZ, max_examples=60)
@given(requests=st.lists(REQUESTS | nearly_right(), max_size=4))
def test_a_stream_answers_each_request_or_ends_with_a_typed_error(
    server: EmbeddedServer, stub: Any, requests: list[Any]
) -> None:
    def call() -> None:
        answers = list(stub.ModelStreamInfer(iter([*requests, good_request()]), timeout=ANSWER_WITHIN))
        assert all(answer.error_message or answer.infer_response.model_name for answer in answers)

    answer(server, call)


# Every other call of the protocol: what it takes, and what of it is filled with anything.
NAMED = st.fixed_dictionaries({"name": MODELS, "version": VERSIONS})
OTHERS: dict[str, st.SearchStrategy[Any]] = {
    "ModelReady": NAMED.map(lambda v: messages.ModelReadyRequest(**v)),
    "ModelMetadata": NAMED.map(lambda v: messages.ModelMetadataRequest(**v)),
    "ModelConfig": NAMED.map(lambda v: messages.ModelConfigRequest(**v)),
    "ModelStatistics": NAMED.map(lambda v: messages.ModelStatisticsRequest(**v)),
    "RepositoryIndex": st.builds(messages.RepositoryIndexRequest, repository_name=NAMES, ready=st.booleans()),
    "RepositoryModelLoad": st.builds(messages.RepositoryModelLoadRequest, model_name=MODELS),
    "RepositoryModelUnload": st.builds(messages.RepositoryModelUnloadRequest, model_name=MODELS),
    "SystemSharedMemoryRegister": st.builds(
        messages.SystemSharedMemoryRegisterRequest,
        name=NAMES,
        key=NAMES,
        offset=st.integers(0, 2**64 - 1),
        byte_size=st.integers(0, 2**64 - 1),
    ),
    "SystemSharedMemoryUnregister": st.builds(messages.SystemSharedMemoryUnregisterRequest, name=NAMES),
    "CudaSharedMemoryRegister": st.builds(messages.CudaSharedMemoryRegisterRequest, name=NAMES, raw_handle=RAW),
    "TraceSetting": st.builds(messages.TraceSettingRequest, model_name=MODELS),
    "LogSettings": st.just(messages.LogSettingsRequest()),
}
# By the admin key only (deploy/serving.env, server/embedded.py): without it the answer is a refusal.
CLOSED = {name for name in OTHERS if not name.startswith("Model")}


@pytest.mark.parametrize("name", OTHERS)
@settings(FUZZ, max_examples=25)
@given(data=st.data())
def test_every_other_call_gets_a_typed_answer(
    server: EmbeddedServer, stub: Any, name: str, data: st.DataObject
) -> None:
    request = data.draw(OTHERS[name])
    code = answer(server, lambda: getattr(stub, name)(request, timeout=ANSWER_WITHIN))
    assert name not in CLOSED or code in ("UNAVAILABLE", "INVALID_ARGUMENT")


@pytest.mark.parametrize(
    "shape", [[1, 2**40], [2**20, 2**20, 4], [2**31, 4], [2**33 + 2, 4], [-1, 4], [1, -4], [2**63 - 1], [1] * 100, []]
)
@pytest.mark.parametrize("model", ["chain", "arithmetic", "echo"])
def test_a_shape_that_is_not_the_model_s_is_refused_before_memory_is_taken_for_it(
    server: EmbeddedServer, stub: Any, model: str, shape: list[int]
) -> None:
    request = good_request()
    request.model_name, request.inputs[0].shape[:] = model, shape
    before = psutil.Process(server.pid).memory_info().rss
    assert ask(server, stub, request) == "INVALID_ARGUMENT"
    assert psutil.Process(server.pid).memory_info().rss < before + (64 << 20)


@pytest.mark.parametrize("batch", [0, 2**32, 2**62, 2**32 + 1, 2**60 + 1])
def test_what_triton_makes_of_a_batch_beyond_32_bits_stays_within_the_bytes_that_came(
    server: EmbeddedServer, stub: Any, batch: int
) -> None:
    # It counts modulo 2^32, and takes 0 for a request without a batch dimension: models get what is left.
    request = good_request()
    request.model_name, request.inputs[0].shape[:] = "echo", [batch, 4]
    result = stub.ModelInfer(request, timeout=ANSWER_WITHIN)
    assert list(result.outputs[0].shape) == ([1, 4] if batch % 2**32 else [4])
    assert result.raw_output_contents[0] == request.raw_input_contents[0]


def test_contents_that_belong_to_no_input_change_nothing(server: EmbeddedServer, stub: Any) -> None:
    request = good_request()
    request.raw_input_contents.append(bytes(16))
    result = stub.ModelInfer(request, timeout=ANSWER_WITHIN)
    assert result.raw_output_contents[0] == rows(6).tobytes()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda r: r.raw_input_contents.pop(),
        lambda r: r.inputs.append(r.inputs[0]),
        lambda r: r.inputs.pop(),
        lambda r: r.inputs[0].contents.fp32_contents.extend([1.0] * 4),
        lambda r: r.outputs.add(name="nothing"),
        lambda r: r.inputs[0].parameters["shared_memory_region"].CopyFrom(messages.InferParameter(string_param="a")),
        lambda r: r.inputs[0].parameters["shared_memory_region"].CopyFrom(messages.InferParameter(bool_param=True)),
        lambda r: r.parameters["priority"].CopyFrom(messages.InferParameter(string_param="high")),
        lambda r: r.parameters["timeout"].CopyFrom(messages.InferParameter(double_param=float("nan"))),
        lambda r: r.parameters["sequence_id"].CopyFrom(messages.InferParameter()),
    ],
)
def test_one_thing_that_is_wrong_is_an_invalid_argument(
    server: EmbeddedServer, stub: Any, spoil: Callable[[Any], object]
) -> None:
    request = good_request()
    assert ask(server, stub, request) == "OK"
    spoil(request)
    assert ask(server, stub, request) in ("INVALID_ARGUMENT", "NOT_FOUND")
