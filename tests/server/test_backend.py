"""The onnxruntime backend inside a real Triton server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
from tritonclient.utils import InferenceServerException

from server.embedded import EmbeddedServer, ServerOptions, on_free_ports
from tests.server.calls import at_once, infer, rows, settled_counter
from tests.server.repositories import arithmetic, lookup, write_arithmetic_version
from tests.servers import serving

# Long enough for requests sent at the same time to meet in one batch, even on a busy machine.
PATIENT = "dynamic_batching { max_queue_delay_microseconds: 500000 preferred_batch_size: 8 }\n"

# Name -> what to replace in the configuration of `arithmetic`, by what, and what the backend says of it.
BROKEN = {
    "output": ('"twice"', '"thrice"', "output 'thrice' is in the configuration but the model has only"),
    "type": ('"x" data_type: TYPE_FP32', '"x" data_type: TYPE_FP16', "input 'x' is TYPE_FP16"),
    "dims": ("dims: [4] }, {", "dims: [-1] }, {", "'twice' has shape"),
    "text": ('"x" data_type: TYPE_FP32', '"x" data_type: TYPE_STRING', "TYPE_STRING, which the Python"),
    "unknown-parameter": ("intra_op_thread_count", "intra_op_threads", "'intra_op_threads' is not supported"),
    "bad-parameter": ('string_value: "1"', 'string_value: "many"', "'intra_op_thread_count' must be a whole number"),
}


def warm_up(name: str, dtype: str, length: int) -> str:
    """Return the part of a configuration that has Triton run the model on random values before it is ready."""
    return (
        f'model_warmup [ {{ name: "sample" batch_size: 1 inputs {{ key: "{name}" value '
        f"{{ data_type: TYPE_{dtype} dims: [{length}] random_data: true }} }} }} ]\n"
    )


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """A server with a few tiny models; only the good ones are loaded."""
    repository = tmp_path_factory.mktemp("repository")
    arithmetic(repository, config=PATIENT + warm_up("x", "FP32", 4))
    arithmetic(repository, "versions", config="version_policy { latest { num_versions: 2 } }\n", factor=2)
    write_arithmetic_version(repository / "versions" / "7", factor=7)
    lookup(repository, config=PATIENT)
    for name, (old, new, _) in BROKEN.items():
        path = arithmetic(repository, name) / "config.pbtxt"
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))
    good = ("arithmetic", "versions", "lookup")
    options = ServerOptions(repository=repository, model_control_mode="explicit", load_models=good)
    with serving(on_free_ports(options)) as server:
        yield server


def test_answers_with_what_onnx_runtime_computes(tiny: EmbeddedServer) -> None:
    result = infer(tiny, "arithmetic", x=rows(1, 3))
    assert result["twice"].tolist() == rows(2, 6).tolist()
    assert result["square"].tolist() == rows(1, 9).tolist()


def test_returns_only_the_outputs_that_were_asked_for(tiny: EmbeddedServer) -> None:
    assert list(infer(tiny, "arithmetic", ["square"], x=rows(3))) == ["square"]


def test_puts_requests_that_come_together_into_one_batch(tiny: EmbeddedServer) -> None:
    done, runs = (settled_counter(tiny, f"nv_inference_{name}", "arithmetic") for name in ("count", "exec_count"))
    results = at_once(8, lambda i: infer(tiny, "arithmetic", x=rows(i)))
    assert [result["twice"].tolist() for result in results] == [rows(2 * i).tolist() for i in range(8)]
    done = settled_counter(tiny, "nv_inference_count", "arithmetic") - done
    runs = settled_counter(tiny, "nv_inference_exec_count", "arithmetic") - runs
    assert done == 8
    assert runs < 8, "expected requests sent at the same time to share a run"


def test_answers_neighbours_that_ask_for_different_outputs(tiny: EmbeddedServer) -> None:
    names = ["twice", "square"]
    results = at_once(8, lambda i: infer(tiny, "arithmetic", [names[i % 2]], x=rows(i)))
    assert [list(result) for result in results] == [[names[i % 2]] for i in range(8)]
    assert [float(next(iter(r.values()))[0, 0]) for r in results] == [i * i if i % 2 else 2 * i for i in range(8)]


def test_fails_only_the_bad_request_of_a_batch(tiny: EmbeddedServer) -> None:
    asked = [1, 2, 99, 3, 0, 1, 2, 3]
    results = at_once(8, lambda i: infer(tiny, "lookup", index=np.array([[asked[i]]], np.int64)))
    for value, result in zip(asked, results, strict=True):
        if value == 99:
            assert isinstance(result, InferenceServerException)
            assert result.status() == "StatusCode.INVALID_ARGUMENT"
            assert "[BadTensor] the model failed on these values" in str(result)
        else:
            assert result["value"].tolist() == [[10.0 * value]]


def test_keeps_a_nan_to_itself(tiny: EmbeddedServer) -> None:
    results = at_once(8, lambda i: infer(tiny, "arithmetic", x=rows(np.nan if i == 3 else i)))
    assert [bool(np.isnan(result["twice"]).any()) for result in results] == [i == 3 for i in range(8)]


@pytest.mark.parametrize(
    "x", [np.ones((1, 5), np.float32), np.ones((1, 4), np.float64), np.ones(4, np.float32), np.ones((9, 4), np.float32)]
)
def test_refuses_tensors_that_do_not_fit_and_goes_on(tiny: EmbeddedServer, x: np.ndarray) -> None:  # type: ignore[type-arg]
    with pytest.raises(InferenceServerException) as caught:
        infer(tiny, "arithmetic", x=x)
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"
    assert infer(tiny, "arithmetic", x=rows(1))["twice"].tolist() == rows(2).tolist()


def test_serves_the_model_of_each_version_folder(tiny: EmbeddedServer) -> None:
    tensor = triton_grpc.InferInput("x", [1, 4], "FP32")
    tensor.set_data_from_numpy(rows(1))
    with triton_grpc.InferenceServerClient(tiny.grpc) as client:
        factors = {
            v: client.infer("versions", [tensor], model_version=v).as_numpy("twice")[0, 0] for v in ("1", "7", "")
        }
    assert factors == {"1": 2.0, "7": 7.0, "": 7.0}


def test_runs_the_warm_up_before_it_is_ready(tmp_path: Path) -> None:
    # The sample holds an index out of range: had it not been run, the model would have loaded. The server is the
    # test's own, because tritonserver 2.51 frees what a failed warm-up still uses, and on a busy machine ends by it.
    lookup(tmp_path, config=PATIENT)
    lookup(tmp_path, "cold", config=warm_up("index", "INT64", 1))
    options = ServerOptions(repository=tmp_path, model_control_mode="explicit", load_models=("lookup",))
    with serving(on_free_ports(options)) as server, triton_grpc.InferenceServerClient(server.grpc) as client:
        with pytest.raises(InferenceServerException) as caught:
            client.load_model("cold")
        if "failed to run warmup sample 'sample': [BadTensor] the model failed" not in str(caught.value):
            assert server.wait(timeout=20) != 0
            assert "indices element out of data bounds" in server.log()


@pytest.mark.parametrize("name", BROKEN)
def test_says_at_load_what_does_not_fit(tiny: EmbeddedServer, name: str) -> None:
    with (
        triton_grpc.InferenceServerClient(tiny.grpc) as client,
        pytest.raises(InferenceServerException, match=f"model '{name}': .*{BROKEN[name][2]}"),
    ):
        client.load_model(name)
    assert tiny.is_ready("arithmetic")


def test_takes_a_new_version_while_it_serves(tmp_path: Path, tiny: EmbeddedServer) -> None:
    version = tiny.options.repository / "versions" / "9"
    write_arithmetic_version(tmp_path / "9", factor=9)
    (tmp_path / "9").rename(version)
    with triton_grpc.InferenceServerClient(tiny.grpc) as client:
        client.load_model("versions")
    assert infer(tiny, "versions", x=rows(1))["twice"].tolist() == rows(9).tolist()
