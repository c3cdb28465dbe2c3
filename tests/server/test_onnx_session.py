"""The numerics of the onnxruntime backend, without Triton."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from onnx import helper

from server.backends.onnxruntime import onnx_session
from server.backends.onnxruntime.onnx_session import (
    ConfigError,
    OnnxModel,
    RequestError,
    Session,
    default_threads,
    plain_session,
    session_options,
    usable_cores,
)
from tests.server.repositories import FLOAT, INT64, save_graph, write_arithmetic_version


def parameters(**values: str) -> dict[str, Any]:
    return {"parameters": {name: {"string_value": value} for name, value in values.items()}}


def config(**changes: Any) -> dict[str, Any]:
    """The configuration of `arithmetic` in the JSON form that Triton hands to a Python model."""
    return {
        "max_batch_size": 8,
        "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": [4]}],
        "output": [
            {"name": "twice", "data_type": "TYPE_FP32", "dims": [4]},
            {"name": "square", "data_type": "TYPE_FP32", "dims": [4]},
        ],
        **changes,
    }


class BothAtOnce:
    """A session that runs nothing before a second run has come."""

    def __init__(self, session: Session) -> None:
        self._session, self._both = session, threading.Barrier(2, timeout=60)
        self.get_inputs, self.get_outputs = session.get_inputs, session.get_outputs

    def run(self, names: Sequence[str] | None, feed: Mapping[str, Any], options: ort.RunOptions) -> list[Any]:
        self._both.wait()
        return self._session.run(names, feed, options)


@pytest.fixture
def arithmetic(tmp_path: Path) -> Path:
    return write_arithmetic_version(tmp_path / "1")


@pytest.fixture
def counting(tmp_path: Path) -> Path:
    """A model whose every row answers how many rows it was run with."""
    nodes = [
        helper.make_node("Sub", ["x", "x"], ["zero"]),
        helper.make_node("Exp", ["zero"], ["ones"]),
        helper.make_node("Cast", ["axis_float"], ["axis"], to=INT64),
        helper.make_node("ReduceSum", ["ones", "axis"], ["count"]),
        helper.make_node("Add", ["zero", "count"], ["y"]),
    ]
    row: list[int | str] = ["batch", 1]
    return save_graph(tmp_path / "m.onnx", nodes, [("x", FLOAT, row)], [("y", FLOAT, row)], axis_float=[0.0])


@pytest.fixture
def lookup(tmp_path: Path) -> OnnxModel:
    """A model ``value`` = table[index] for rows of any length; it fails where an index is out of range."""
    path = save_graph(
        tmp_path / "lookup.onnx",
        [helper.make_node("Gather", ["table", "index"], ["value"])],
        [("index", INT64, ["batch", "n"])],
        [("value", FLOAT, ["batch", "n"])],
        table=[0.0, 10.0, 20.0, 30.0],
    )
    declared = {
        "input": [{"name": "index", "data_type": "TYPE_INT64", "dims": [-1]}],
        "output": [{"name": "value", "data_type": "TYPE_FP32", "dims": [-1]}],
    }
    return OnnxModel(path, config(**declared))


def index(*values: int) -> dict[str, np.ndarray[Any, Any]]:
    return {"index": np.array([values], np.int64)}


def answer(result: dict[str, np.ndarray[Any, Any]] | Exception, name: str = "value") -> list[Any]:
    assert not isinstance(result, Exception), result
    return list(result[name].tolist())


def answers(model: OnnxModel, requests: Sequence[Mapping[str, Any]], wanted: Sequence[list[str]]) -> list[Any]:
    """What each request is answered with, in the order of the requests: each is answered once."""
    found = list(model.run(requests, wanted))
    assert sorted(index for index, _ in found) == list(range(len(requests)))
    return [result for _, result in sorted(found, key=lambda pair: pair[0])]


class TestRun:
    def test_answers_each_request_with_its_own_rows(self, arithmetic: Path) -> None:
        model = OnnxModel(arithmetic, config())
        requests = [{"x": np.full((rows, 4), rows, np.float32)} for rows in (1, 3, 2)]
        results = answers(model, requests, [["twice", "square"]] * 3)
        for rows, result in zip((1, 3, 2), results, strict=True):
            assert answer(result, "twice") == [[2.0 * rows] * 4] * rows
            assert answer(result, "square") == [[1.0 * rows * rows] * 4] * rows

    def test_gives_each_request_only_the_outputs_it_asked_for(self, arithmetic: Path) -> None:
        model = OnnxModel(arithmetic, config())
        requests = [{"x": np.ones((1, 4), np.float32)}] * 3
        results = answers(model, requests, [["twice"], ["square"], []])
        assert [sorted(result) for result in results if isinstance(result, dict)] == [["twice"], ["square"], []]

    def test_runs_requests_of_different_shapes_each_in_its_group(self, lookup: OnnxModel) -> None:
        results = answers(lookup, [index(1), index(2, 3), index(3)], [["value"]] * 3)
        assert [answer(result) for result in results] == [[[10.0]], [[20.0, 30.0]], [[30.0]]]

    def test_lets_only_the_request_fail_that_spoils_the_batch(self, lookup: OnnxModel) -> None:
        results = answers(lookup, [index(1), index(99), index(3)], [["value"]] * 3)
        assert answer(results[0]) == [[10.0]]
        assert answer(results[2]) == [[30.0]]
        assert isinstance(results[1], RequestError)
        assert str(results[1]).startswith("the model failed on these values (indices element out of data bounds")
        assert "/" not in str(results[1])

    def test_keeps_a_nan_in_the_request_that_brought_it(self, arithmetic: Path) -> None:
        model = OnnxModel(arithmetic, config())
        good, bad = np.ones((1, 4), np.float32), np.full((1, 4), np.nan, np.float32)
        results = answers(model, [{"x": good}, {"x": bad}, {"x": good}], [["twice"]] * 3)
        assert answer(results[0], "twice") == answer(results[2], "twice") == [[2.0] * 4]
        assert np.isnan(answer(results[1], "twice")).all()

    @pytest.mark.parametrize(
        ("value", "says"),
        [
            (np.ones((1, 4), np.float64), "input 'x' must be float32, not float64."),
            (np.ones((1, 5), np.float32), r"input 'x' must have shape \[-1, 4\], not \[1, 5\]."),
            (np.ones(4, np.float32), r"input 'x' must have shape \[-1, 4\], not \[4\]."),
        ],
    )
    def test_says_what_is_wrong_with_a_tensor(self, arithmetic: Path, value: np.ndarray[Any, Any], says: str) -> None:
        model = OnnxModel(arithmetic, config())
        bad, good = answers(model, [{"x": value}, {"x": np.ones((1, 4), np.float32)}], [["twice"]] * 2)
        assert answer(good, "twice") == [[2.0] * 4]
        assert isinstance(bad, RequestError)
        with pytest.raises(RequestError, match=says):
            raise bad

    @pytest.mark.parametrize(("rows_per_run", "together"), [("0", 5), ("1", 1), ("2", 2)])
    def test_puts_no_more_rows_into_a_run_than_it_may(self, counting: Path, rows_per_run: str, together: int) -> None:
        x, y = ({"name": name, "data_type": "TYPE_FP32", "dims": [1]} for name in "xy")
        threads = {"intra_op_thread_count": "2", "rows_per_run": rows_per_run}
        model = OnnxModel(counting, config(input=[x], output=[y], **parameters(**threads)))
        first, second = answers(model, [{"x": np.ones((n, 1), np.float32)} for n in (1, 4)], [["y"]] * 2)
        counts = [row[0] for row in answer(first, "y") + answer(second, "y")]
        assert max(counts) == together
        assert len(counts) == 5

    @pytest.mark.parametrize(("most", "together"), [("0", [7, 7, 7]), ("3", [3, 3, 4]), ("1", [1, 2, 4])])
    def test_puts_few_requests_together_where_it_is_told_so(
        self, counting: Path, most: str, together: list[int]
    ) -> None:
        x, y = ({"name": name, "data_type": "TYPE_FP32", "dims": [1]} for name in "xy")
        model = OnnxModel(counting, config(input=[x], output=[y], **parameters(most_rows_together=most)))
        found = answers(model, [{"x": np.ones((n, 1), np.float32)} for n in (1, 2, 4)], [["y"]] * 3)
        assert [answer(one, "y")[0][0] for one in found] == together

    def test_keeps_the_order_of_rows_that_ran_side_by_side(self, arithmetic: Path) -> None:
        threads = {"intra_op_thread_count": "2", "rows_per_run": "1"}
        model = OnnxModel(arithmetic, config(**parameters(**threads)))
        (result,) = answers(model, [{"x": np.arange(32, dtype=np.float32).reshape(8, 4)}], [["twice"]])
        assert answer(result, "twice") == (2 * np.arange(32).reshape(8, 4)).tolist()

    def test_rows_run_side_by_side_on_one_session_where_its_runs_have_one_thread(self, arithmetic: Path) -> None:
        opened: list[Session] = []

        def open_once(path: Path, options: ort.SessionOptions) -> Session:
            assert not opened, "the weights are held twice"
            opened.append(BothAtOnce(plain_session(path, options)))
            return opened[0]

        threads = {"intra_op_thread_count": "1", "rows_per_run": "1", "least_lanes": "2"}
        model = OnnxModel(arithmetic, config(**parameters(**threads)), open_once)
        (result,) = answers(model, [{"x": np.arange(16, dtype=np.float32).reshape(4, 4)}], [["twice"]])
        assert answer(result, "twice") == (2 * np.arange(16).reshape(4, 4)).tolist()

    @pytest.mark.parametrize("rows_per_run", ["0", "1"])
    def test_rows_of_one_request_run_side_by_side_while_a_core_is_idle(
        self, arithmetic: Path, monkeypatch: pytest.MonkeyPatch, rows_per_run: str
    ) -> None:
        monkeypatch.setattr(onnx_session, "every_core_is_wanted", lambda: False)
        threads = {"intra_op_thread_count": "1", "rows_per_run": rows_per_run, "idle_lanes": "2"}

        def opener(path: Path, options: ort.SessionOptions) -> Session:
            return BothAtOnce(plain_session(path, options))

        model = OnnxModel(arithmetic, config(**parameters(**threads)), opener)
        (result,) = answers(model, [{"x": np.arange(16, dtype=np.float32).reshape(4, 4)}], [["twice"]])
        assert answer(result, "twice") == (2 * np.arange(16).reshape(4, 4)).tolist()

    @pytest.mark.parametrize(("busy", "together"), [(True, 3), (False, 2)])
    def test_rows_of_one_request_stay_together_while_others_want_every_core(
        self, counting: Path, monkeypatch: pytest.MonkeyPatch, busy: bool, together: int
    ) -> None:
        monkeypatch.setattr(onnx_session, "every_core_is_wanted", lambda: busy)
        x, y = ({"name": name, "data_type": "TYPE_FP32", "dims": [1]} for name in ("x", "y"))
        threads = {"intra_op_thread_count": "1", "idle_lanes": "2"}
        model = OnnxModel(counting, config(input=[x], output=[y], **parameters(**threads)))
        (result,) = answers(model, [{"x": np.ones((3, 1), np.float32)}], [["y"]])
        assert answer(result, "y")[0][0] == together

    def test_answers_the_first_before_it_runs_the_second(self, arithmetic: Path) -> None:
        model = OnnxModel(arithmetic, config(**parameters(intra_op_thread_count="1", rows_per_run="1")))
        first, second = (np.ones((1, 4), np.float32) for _ in range(2))
        found = model.run([{"x": first}, {"x": second}], [["twice"]] * 2)
        assert answer(next(found)[1], "twice") == [[2.0] * 4]
        second[:] = 5  # too late if it had run with the first
        assert answer(next(found)[1], "twice") == [[10.0] * 4]

    @pytest.mark.parametrize("rows_per_run", ["0", "1"])
    def test_a_request_fails_by_itself_in_a_batch_and_in_parts(self, tmp_path: Path, rows_per_run: str) -> None:
        path = save_graph(
            tmp_path / "lookup.onnx",
            [helper.make_node("Gather", ["table", "index"], ["value"])],
            [("index", INT64, ["batch", "n"])],
            [("value", FLOAT, ["batch", "n"])],
            table=[0.0, 10.0],
        )
        declared = {
            "input": [{"name": "index", "data_type": "TYPE_INT64", "dims": [-1]}],
            "output": [{"name": "value", "data_type": "TYPE_FP32", "dims": [-1]}],
        }
        model = OnnxModel(path, config(**declared, **parameters(rows_per_run=rows_per_run)))
        rows = {"index": np.array([[1], [99], [0]], np.int64)}
        spoilt, good = answers(model, [rows, index(1)], [["value"]] * 2)
        assert isinstance(spoilt, RequestError)
        assert answer(good) == [[10.0]]

    def test_says_which_input_is_missing(self, arithmetic: Path) -> None:
        (result,) = answers(OnnxModel(arithmetic, config()), [{}], [["twice"]])
        assert str(result) == "input 'x' is missing."

    def test_serves_a_model_without_a_batch_dimension(self, tmp_path: Path) -> None:
        path = save_graph(
            tmp_path / "m.onnx", [helper.make_node("Neg", ["x"], ["y"])], [("x", FLOAT, [2])], [("y", FLOAT, [2])]
        )
        x, y = ({"name": name, "data_type": "TYPE_FP32", "dims": [2]} for name in "xy")
        model = OnnxModel(path, config(max_batch_size=0, input=[x], output=[y]))
        results = answers(
            model, [{"x": np.array([1, 2], np.float32)}, {"x": np.array([3, 4], np.float32)}], [["y"]] * 2
        )
        assert [answer(result, "y") for result in results] == [[-1.0, -2.0], [-3.0, -4.0]]


class TestOptions:
    def test_reads_the_parameters_of_the_c_plus_plus_backend(self) -> None:
        options, run_options = session_options(
            parameters(
                intra_op_thread_count="3",
                inter_op_thread_count="2",
                execution_mode="1",
                enable_mem_arena="0",
                enable_mem_pattern="false",
                share_session_between_instances="false",
                **{
                    "memory.enable_memory_arena_shrinkage": "cpu:0",
                    "session.use_device_allocator_for_initializers": "1",
                },
            )
        )
        assert options.intra_op_num_threads == 3
        assert options.inter_op_num_threads == 2
        assert options.execution_mode == ort.ExecutionMode.ORT_PARALLEL
        assert not options.enable_cpu_mem_arena
        assert not options.enable_mem_pattern
        assert options.get_session_config_entry("session.use_device_allocator_for_initializers") == "1"
        assert run_options.get_run_config_entry("memory.enable_memory_arena_shrinkage") == "cpu:0"

    def test_bounds_the_threads_and_never_spins_by_default(self) -> None:
        options, _ = session_options({})
        assert options.intra_op_num_threads == options.inter_op_num_threads == default_threads(usable_cores())
        assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
        assert options.execution_mode == ort.ExecutionMode.ORT_SEQUENTIAL
        assert options.enable_cpu_mem_arena

    @pytest.mark.parametrize(("cores", "threads"), [(1, 1), (2, 1), (3, 3), (8, 8), (64, 8)])
    def test_few_cores_are_left_to_the_steps_of_the_pipeline(self, cores: int, threads: int) -> None:
        assert default_threads(cores) == threads

    @pytest.mark.parametrize(
        ("level", "meaning"),
        [
            (-1, ort.GraphOptimizationLevel.ORT_ENABLE_BASIC),
            (0, ort.GraphOptimizationLevel.ORT_ENABLE_ALL),
            (1, ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED),
            (2, ort.GraphOptimizationLevel.ORT_DISABLE_ALL),
        ],
    )
    def test_reads_the_graph_level(self, level: int, meaning: ort.GraphOptimizationLevel) -> None:
        options, _ = session_options({"optimization": {"graph": {"level": level}}})
        assert options.graph_optimization_level == meaning

    @pytest.mark.parametrize(
        ("given", "says"),
        [
            (parameters(intra_op_thread_count="two"), "'intra_op_thread_count' must be a whole number"),
            (parameters(inter_op_thread_count="-1"), "'inter_op_thread_count' must be a whole number"),
            (parameters(execution_mode="2"), "'execution_mode' must be 0"),
            (parameters(enable_mem_arena="maybe"), "'enable_mem_arena' must be 0 or 1"),
            (parameters(share_session_between_instances="1"), "each instance is its own process"),
            (parameters(gpu_mem_limit="1"), "parameter 'gpu_mem_limit' is not supported"),
            (parameters(intra_op_threads="1", zeal="1"), "parameter 'intra_op_threads', 'zeal' is not supported"),
            ({"optimization": {"graph": {"level": 7}}}, "graph.level must be one of"),
        ],
    )
    def test_refuses_what_it_cannot_do_by_name(self, given: dict[str, Any], says: str) -> None:
        with pytest.raises(ConfigError, match=says):
            session_options(given)


class TestConfiguration:
    @pytest.mark.parametrize(
        ("changes", "says"),
        [
            ({"instance_group": [{"kind": "KIND_GPU"}]}, "KIND_GPU"),
            ({"optimization": {"execution_accelerators": {"gpu_execution_accelerator": [{}]}}}, "execution_accelerat"),
            ({"sequence_batching": {"max_sequence_idle_microseconds": 1}}, "sequence_batching is not supported"),
            ({"batch_input": [{"kind": "BATCH_ELEMENT_COUNT"}]}, "batch_input is not supported"),
            ({"model_transaction_policy": {"decoupled": True}}, "decoupled"),
            (
                {"input": [{"name": "x", "data_type": "TYPE_FP32", "dims": [4], "reshape": {"shape": [2, 2]}}]},
                "'reshape' of tensor 'x'",
            ),
            (
                {"input": [{"name": "x", "data_type": "TYPE_STRING", "dims": [4]}]},
                "input 'x' is TYPE_STRING, which the Python onnxruntime backend does not support",
            ),
            (
                {"input": [{"name": "x", "data_type": "TYPE_FP16", "dims": [4]}]},
                r"input 'x' is TYPE_FP16 in the configuration and tensor\(float\) in the model",
            ),
            (
                {"input": [{"name": "x", "data_type": "TYPE_FP32", "dims": [5]}]},
                r"input 'x' has shape \[-1, 5\] in the configuration \(batch first\) and \[-1, 4\] in the model",
            ),
            (
                {"output": [{"name": "twice", "data_type": "TYPE_FP32", "dims": [-1]}]},
                r"output 'twice' has shape \[-1, -1\] in the configuration \(batch first\) and \[-1, 4\] in the model",
            ),
            (
                {"output": [{"name": "thrice", "data_type": "TYPE_FP32", "dims": [4]}]},
                r"output 'thrice' is in the configuration but the model has only \['square', 'twice'\]",
            ),
            ({"input": []}, r"input \['x'\] of the model is not in the configuration"),
        ],
    )
    def test_is_held_against_the_model(self, arithmetic: Path, changes: dict[str, Any], says: str) -> None:
        with pytest.raises(ConfigError, match=says):
            OnnxModel(arithmetic, config(**changes))

    def test_may_leave_outputs_of_the_model_out(self, arithmetic: Path) -> None:
        model = OnnxModel(arithmetic, config(output=config()["output"][:1]))
        assert [spec.name for spec in model.outputs] == ["twice"]

    def test_needs_an_open_first_dimension_to_batch(self, tmp_path: Path) -> None:
        path = save_graph(
            tmp_path / "m.onnx", [helper.make_node("Neg", ["x"], ["y"])], [("x", FLOAT, [1, 4])], [("y", FLOAT, [1, 4])]
        )
        y = {"name": "y", "data_type": "TYPE_FP32", "dims": [4]}
        with pytest.raises(ConfigError, match="max_batch_size > 0 needs a symbolic first dimension"):
            OnnxModel(path, config(output=[y]))

    def test_names_the_file_that_is_missing_or_broken(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"model.onnx is missing: run `make export`"):
            OnnxModel(tmp_path / "model.onnx", config())
        (tmp_path / "model.onnx").write_bytes(b"not a model")
        with pytest.raises(ConfigError, match=r"model.onnx is not a model that ONNX Runtime can load"):
            OnnxModel(tmp_path / "model.onnx", config())
