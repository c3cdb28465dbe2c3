"""Damaged pictures, wrong tensors and cancelled requests at the real ensembles: each is answered, the service stays."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm
from tritonclient.grpc import model_config_pb2, service_pb2_grpc
from tritonclient.grpc import service_pb2 as messages

from server.control import Control
from server.embedded import EmbeddedServer
from server.repository import DEFAULT_REPOSITORY, read_repository
from tests.model_repository.picture_fuzz import mutations
from tests.server.calls import every_process_stays
from tests.server.odd_answers import TRITON_S_OWN
from tests.service import Refusal, Service, file_of

# What may be said of a damaged picture: it cannot be read, is too large, or shows no face that could be used.
NAMED = {"BadImage", "ImageTooLarge", "NoFace", "BadFace"}
FUZZ = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@pytest.fixture(autouse=True)
def _healthy_afterwards(server: EmbeddedServer, portrait_jpeg: bytes) -> Iterator[None]:
    with every_process_stays(server):
        yield
    assert all(Control(server.http).is_ready(name) for name in ("face3d", "detect", "reconstruct"))
    assert Service(server.grpc).ask(portrait_jpeg, outputs=("face",))["face"][4] > 0.9


@pytest.mark.parametrize("files", [88, pytest.param(2000, marks=pytest.mark.soak)])
def test_damaged_pictures_get_a_result_or_an_error_with_a_name(
    server: EmbeddedServer, files: int, capsys: pytest.CaptureFixture[str]
) -> None:
    service = Service(server.grpc)

    def ask(numbered: tuple[int, bytes]) -> str:
        number, data = numbered
        model, outputs = (("detect", ("faces",)), ("face3d", ("coefficients",)))[number % 2]
        try:
            result = service.ask(data, model=model, outputs=outputs)
        except Refusal as error:
            return error.tag if error.code == "INVALID_ARGUMENT" else f"{error.code} {error}"
        return "result" if all(np.isfinite(array).all() for array in result.values()) else "not finite"

    with capsys.disabled(), ThreadPoolExecutor(8) as pool:
        answers = pool.map(ask, enumerate(mutations(files, seed=3)))
        counts = Counter(tqdm(answers, total=files, desc="damaged pictures", disable=files < 1000, mininterval=10))
    print(f"\n{dict(counts)}")
    assert set(counts) <= {"result", *NAMED}
    assert min(counts["result"], counts["BadImage"]) > files / 10


SMALL = file_of(Image.new("RGB", (40, 30), (120, 160, 90)))
IMAGES = st.sampled_from([SMALL, SMALL[:50], b"", b"no picture"]) | st.binary(max_size=60)
MODELS = read_repository(DEFAULT_REPOSITORY)
FILLS = st.sampled_from([0.0, 1.0, -1.0, 0.5, 200.0, 1e30, -1e30, float("nan"), float("inf")])
NUMPY = {"TYPE_BOOL": np.bool_, "TYPE_UINT8": np.uint8, "TYPE_FP32": np.float32, "TYPE_INT64": np.int64}


def bytes_tensor(values: list[bytes]) -> bytes:
    return b"".join(len(value).to_bytes(4, "little") + value for value in values)


@st.composite
def parameters(draw: st.DrawFn) -> Any:
    """One option of the service, of any kind of parameter and any value."""
    kind, values = draw(
        st.sampled_from(
            [
                ("string_param", st.text(max_size=8) | st.sampled_from(["0,0,9,9", "nan", "png", "0.5"])),
                ("int64_param", st.integers(-(2**63), 2**63 - 1) | st.integers(-1, 3)),
                ("double_param", st.floats()),
                ("bool_param", st.booleans()),
            ]
        )
    )
    return messages.InferParameter(**{kind: draw(values)})


@dataclass(frozen=True)
class Attempt:
    """A request, and in short what it holds."""

    request: Any = field(repr=False)
    holds: str


@st.composite
def attempts(draw: st.DrawFn) -> Attempt:
    """Requests that fit a model's configuration, with values that no step before it would give; some do not fit."""
    model = draw(st.sampled_from(list(MODELS)))
    request = messages.ModelInferRequest(model_name=model)
    batch = draw(st.sampled_from([1, 1, 1, 2]))
    spoilt = draw(st.sampled_from(["nothing", "nothing", "nothing", "shape", "length", "missing", "type"]))
    holds = [f"{model}, {spoilt} spoilt"]
    entries = list(MODELS[model].config.input)
    victim = draw(st.sampled_from([entry.name for entry in entries]))
    for entry in entries:
        if (entry.name == victim and spoilt == "missing") or (entry.optional and draw(st.booleans())):
            continue
        kind = model_config_pb2.DataType.Name(entry.data_type)
        rows = [batch] if MODELS[model].config.max_batch_size else []
        shape = [*rows, *(dim if dim > 0 else draw(st.integers(0, 7)) for dim in entry.dims)]
        if kind == "TYPE_STRING":
            raw, fill, step = bytes_tensor([draw(IMAGES) for _ in range(math.prod(shape))]), 0.0, 1
        else:
            values, fill, step = np.full(shape, 0, np.float32), draw(FILLS), draw(st.integers(1, 9))
            values.reshape(-1)[::step] = fill
            with np.errstate(invalid="ignore"):
                raw = values.astype(NUMPY[kind]).tobytes()
        if entry.name == victim and spoilt == "shape":
            shape[draw(st.integers(0, len(shape) - 1))] = draw(st.sampled_from([0, 1, 2, 9, -1, 2**32, 2**40]))
        if entry.name == victim and spoilt == "length":
            raw = raw[: draw(st.integers(0, len(raw)))]
        datatype = kind.removeprefix("TYPE_").replace("STRING", "BYTES")
        if entry.name == victim and spoilt == "type":
            datatype = draw(st.sampled_from(["FP32", "UINT8", "INT64", "BYTES", "FP99"]))
        request.inputs.add(name=entry.name, datatype=datatype, shape=shape)
        request.raw_input_contents.append(raw)
        holds.append(f"{entry.name} {datatype} {shape} of {len(raw)} bytes, {fill} in each {step}.")
    options = ["face", "box", "pose", "score_threshold", "texture_size", "texture_format", "sharpen", "white_balance"]
    for key in draw(st.lists(st.sampled_from(options), max_size=2)):
        request.parameters[key].CopyFrom(draw(parameters()))
    return Attempt(request, f"{'; '.join(holds)}; {dict(request.parameters)}")


def answered(server: EmbeddedServer, request: Any) -> str:
    with grpc.insecure_channel(server.grpc, options=[("grpc.max_receive_message_length", -1)]) as channel:
        try:
            service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=30)
        except grpc.RpcError as error:
            return f"{error.code().name}: {error.details()}"
    return "OK"


# What Triton says when a model raises: then every request of the batch is lost, whoever sent the others.
WHOLE_BATCH = "Failed to process the request(s)"


def typed(answer: str) -> bool:
    """Whether it is a result or says that the request was wrong."""
    if TRITON_S_OWN.fullmatch(answer):
        return True
    return answer.partition(":")[0] in ("OK", "INVALID_ARGUMENT", "NOT_FOUND") and WHOLE_BATCH not in answer


def judge(server: EmbeddedServer, attempt: Attempt) -> None:
    answer = answered(server, attempt.request)
    event(f"{attempt.request.model_name}: {answer[:70]}")
    assert typed(answer), answer


def test_an_optional_input_does_not_stand_for_the_one_that_is_needed(server: EmbeddedServer) -> None:
    request = messages.ModelInferRequest(model_name="preprocess", raw_input_contents=[b"\0"])
    request.inputs.add(name="whole", datatype="BOOL", shape=[1, 1])
    answer = answered(server, request)
    assert answer.startswith("INVALID_ARGUMENT: [BadImage] the request has no `image`"), answer
    assert typed(answer)


@settings(FUZZ, max_examples=150)
@given(attempt=attempts())
def test_wrong_tensors_are_the_fault_of_the_request(server: EmbeddedServer, attempt: Attempt) -> None:
    judge(server, attempt)


@pytest.mark.soak
@settings(FUZZ, max_examples=5000)
@given(attempt=attempts())
def test_wrong_tensors_are_the_fault_of_the_request_for_long(server: EmbeddedServer, attempt: Attempt) -> None:
    judge(server, attempt)


@pytest.mark.parametrize("rows_and_columns", [(0, 0), (1, 1), (512, 512)])
@pytest.mark.parametrize("geometry", [0.0, 1.0, -1.0, 1e-30, 1e30, float("nan"), float("inf")])
def test_a_face_in_a_picture_that_no_step_gives_is_answered_by_itself(
    server: EmbeddedServer, portrait_jpeg: bytes, geometry: float, rows_and_columns: tuple[int, int]
) -> None:
    """`align` with a true face, so that it gets as far as cutting it out."""
    tensors: dict[str, tuple[str, NDArray[Any]]] = {
        "picture": ("UINT8", np.zeros((1, *rows_and_columns, 3), np.uint8)),
        "geometry": ("FP32", np.full((1, 6), geometry, np.float32)),
        "choice": ("FP32", Service(server.grpc).detect(portrait_jpeg)[:1]),
    }
    request = messages.ModelInferRequest(model_name="align")
    for name, (datatype, values) in tensors.items():
        request.inputs.add(name=name, datatype=datatype, shape=values.shape)
        request.raw_input_contents.append(values.tobytes())
    answer = answered(server, request)
    assert typed(answer), answer


def test_what_a_model_cannot_do_concerns_no_other_request_of_its_batch(server: EmbeddedServer) -> None:
    """The fuzzer's find: an empty picture went as far as the encoder, and with it went the whole batch."""
    request = messages.ModelInferRequest(model_name="postprocess")
    request.inputs.add(name="thumbnail", datatype="UINT8", shape=[1, 0, 0, 3])
    request.raw_input_contents.append(b"")
    request.outputs.add(name="preview")
    answer = answered(server, request)
    assert answer.startswith("INVALID_ARGUMENT: [BadTensor] `thumbnail` has shape [1, 0, 0, 3]: send [batch, any, any")


@pytest.mark.parametrize("model", ["face3d", "detect", "reconstruct"])
@pytest.mark.parametrize("batch", [0, 2**32, 2**62, 2**32 + 1])
def test_a_batch_that_triton_misreads_is_answered_or_refused(
    server: EmbeddedServer, portrait_jpeg: bytes, model: str, batch: int
) -> None:
    request = messages.ModelInferRequest(model_name=model)
    request.inputs.add(name="image", datatype="BYTES", shape=[batch, 1])
    request.raw_input_contents.append(bytes_tensor([portrait_jpeg]))
    if model == "reconstruct":
        request.inputs.add(name="choice", datatype="FP32", shape=[batch, 15])
        request.raw_input_contents.append(Service(server.grpc).detect(portrait_jpeg)[0].tobytes())
    answer = answered(server, request)
    assert typed(answer), answer


def test_photographs_whose_clients_gave_up_are_not_worked_on_to_the_end(
    server: EmbeddedServer, portrait_jpeg: bytes
) -> None:
    service = Service(server.grpc)
    before = service.counts()["postprocess"][0]
    request = messages.ModelInferRequest(model_name="face3d")
    request.inputs.add(name="image", datatype="BYTES", shape=[1, 1])
    request.raw_input_contents.append(bytes_tensor([portrait_jpeg]))
    request.outputs.add(name="mesh")
    with grpc.insecure_channel(server.grpc, options=[("grpc.max_receive_message_length", -1)]) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        calls = [stub.ModelInfer.future(request) for _ in range(24)]
        for call in calls[:20]:
            call.cancel()
        answers = [call.result() for call in calls[20:]]
    assert all(len(answer.raw_output_contents[0]) > 100_000 for answer in answers)
    made = service.counts()["postprocess"][0] - before
    # Those that were not cancelled, and the few that a step had begun with.
    assert 4 <= made < 20
