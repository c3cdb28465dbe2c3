"""Models whose graph is loaded when somebody first asks, without Triton."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from server.runtime import OWN_BACKENDS
from tests.server.repositories import write_arithmetic_version
from tests.server.test_onnx_session import config, parameters

BACKEND = OWN_BACKENDS / "onnxruntime"
GOOD = {"x": np.ones((1, 4), np.float32)}
LATE = config(**parameters(load_on_first_use="1"))


@pytest.fixture(scope="module")
def late() -> ModuleType:
    """The module as the stub imports it: its folder is on the path."""
    if str(BACKEND) not in sys.path:
        sys.path.append(str(BACKEND))
    return importlib.import_module("late_model")


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    return write_arithmetic_version(tmp_path)


def answers(model: Any, requests: list[dict[str, Any]]) -> list[Any]:
    found = dict(model.run(requests, [["twice"]] * len(requests)))
    return [found[index] for index in range(len(requests))]


class TestLateModel:
    def test_opens_for_the_first_request_and_only_once(self, late: ModuleType, graph: Path) -> None:
        opened: list[Path] = []

        def open_model() -> Any:
            opened.append(graph)
            return late.OnnxModel(graph, LATE)

        model = late.LateModel(open_model)
        assert answers(model, []) == []
        assert opened == []
        for _ in range(2):
            (result,) = answers(model, [GOOD])
            assert result["twice"].tolist() == [[2.0] * 4]
        assert opened == [graph]

    def test_where_opening_fails_who_waits_is_told_so_and_the_next_call_tries_again(
        self, late: ModuleType, graph: Path
    ) -> None:
        failures = [late.ConfigError("no memory for the session")]

        def open_model() -> Any:
            if failures:
                raise failures.pop()
            return late.OnnxModel(graph, LATE)

        model = late.LateModel(open_model)
        for failed in answers(model, [GOOD, {}]):
            assert isinstance(failed, late.ConfigError)
        good, refused = answers(model, [GOOD, {}])
        assert good["twice"].tolist() == [[2.0] * 4]
        assert "is missing" in str(refused)

    def test_its_process_holds_no_onnxruntime_before_that(self) -> None:
        code = "import sys, integer_products, late_model, onnx_session; sys.exit('onnxruntime' in sys.modules)"
        subprocess.run([sys.executable, "-c", code], cwd=BACKEND, check=True)


class TestCheckApart:
    def test_lets_a_graph_pass_that_is_what_its_configuration_says(self, late: ModuleType, graph: Path) -> None:
        late.check_apart(graph / "model.onnx" if graph.is_dir() else graph, LATE)

    @pytest.mark.parametrize(
        ("content", "changes", "said"),
        [
            (b"damaged", {}, "not a model that ONNX Runtime can load"),
            (None, {}, "make export"),
            (b"", {"max_batch_size": 8, "instance_group": [{"kind": "KIND_GPU"}]}, "KIND_GPU"),
            (b"", {"parameters": {"execution_mode": {"string_value": "2"}}}, "execution_mode"),
        ],
    )
    def test_says_in_one_sentence_what_does_not_fit(
        self, late: ModuleType, tmp_path: Path, content: bytes | None, changes: dict[str, Any], said: str
    ) -> None:
        path = tmp_path / "model.onnx"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(late.ConfigError, match=said):
            late.check_apart(path, {**LATE, **changes})

    def test_says_that_a_tensor_differs_from_the_configuration(self, late: ModuleType, graph: Path) -> None:
        other = {**LATE, "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": [5]}]}
        with pytest.raises(late.ConfigError, match=r"\[-1, 5\]"):
            late.check_apart(graph, other)

    def test_a_check_that_ends_by_itself_is_told_apart_from_a_refusal(
        self, late: ModuleType, graph: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        broken = tmp_path / "check_graph.py"
        broken.write_text("raise RuntimeError('a library is missing')")
        monkeypatch.setattr(late, "PROGRAM", broken)
        with pytest.raises(late.ConfigError, match=r"could not be checked.*a library is missing"):
            late.check_apart(graph, LATE)
