"""A graph whose integer products would saturate on this processor is refused or run exactly, never served wrong."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import tritonclient.grpc as triton_grpc
from onnx import TensorProto, helper, numpy_helper
from tritonclient.utils import InferenceServerException

from export.errors import ExportError
from export.reports import without_vnni
from server.backends.onnxruntime.integer_products import (
    ANY_X86,
    INTEGER_PRODUCTS,
    VNNI,
    ProcessorError,
    open_graph,
    products_are_exact,
)
from server.embedded import EmbeddedServer, ServerOptions, on_free_ports
from tests.server.calls import infer
from tests.server.repositories import tensors
from tests.servers import serving

WIDTH = 64
BRIGHT = np.full((1, WIDTH), 255, np.float32)
EXACT = 255.0 * 127 * WIDTH


def _save(path: Path, mark: str | None, weight: int = 127) -> Path:
    """A graph y [4] = x [64] times a matrix of equal signed bytes, marked for a kind of processor or not."""
    nodes = [
        helper.make_node("Cast", ["x"], ["bytes"], to=TensorProto.UINT8),
        helper.make_node("MatMulInteger", ["bytes", "w"], ["sum"]),
        helper.make_node("Cast", ["sum"], ["y"], to=TensorProto.FLOAT),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
        [numpy_helper.from_array(np.full((WIDTH, 4), weight, np.int8), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    if mark is not None:
        helper.set_model_props(model, {INTEGER_PRODUCTS: mark})
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return path


def test_a_graph_that_says_nothing_is_exact_on_this_processor(tmp_path: Path) -> None:
    session = open_graph(_save(tmp_path / "model.onnx", None), ort.SessionOptions())
    assert session.run(None, {"x": BRIGHT})[0].tolist() == [[EXACT] * 4]


def test_a_graph_for_vnni_opens_only_where_products_are_exact(tmp_path: Path) -> None:
    path = _save(tmp_path / "model.onnx", VNNI)
    if products_are_exact():
        assert open_graph(path, ort.SessionOptions()).run(None, {"x": BRIGHT})[0].tolist() == [[EXACT] * 4]
    else:
        with pytest.raises(ProcessorError, match="exported for processors with 'vnni'"):
            open_graph(path, ort.SessionOptions())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """A server whose models see no VNNI: one for any processor, one that says nothing; one for VNNI is not loaded."""
    repository = tmp_path_factory.mktemp("repository")
    for name, mark, weight in (("anywhere", ANY_X86, 64), ("silent", None, 127), ("vnni", VNNI, 127)):
        _save(repository / name / "1" / "model.onnx", mark, weight)
        (repository / name / "config.pbtxt").write_text(
            'backend: "onnxruntime"\nmax_batch_size: 4\n'
            + tensors("input", [("x", "TYPE_FP32", [WIDTH])])
            + tensors("output", [("y", "TYPE_FP32", [4])])
        )
    with pytest.MonkeyPatch.context() as patch:
        try:
            hidden = without_vnni.environment(tmp_path_factory.mktemp("preloaded"))
        except ExportError as error:
            if products_are_exact():
                pytest.skip(str(error))
        else:
            patch.setenv("LD_PRELOAD", hidden["LD_PRELOAD"])
        options = ServerOptions(
            repository=repository, model_control_mode="explicit", load_models=("anywhere", "silent")
        )
        with serving(on_free_ports(options)) as running:
            yield running


def test_without_vnni_every_model_that_is_served_answers_exactly(server: EmbeddedServer) -> None:
    assert infer(server, "anywhere", x=BRIGHT)["y"].tolist() == [[255.0 * 64 * WIDTH] * 4]
    assert infer(server, "silent", x=BRIGHT)["y"].tolist() == [[EXACT] * 4]


def test_without_vnni_a_model_for_vnni_is_refused_with_a_sentence_and_the_others_stay(server: EmbeddedServer) -> None:
    with triton_grpc.InferenceServerClient(server.grpc) as client:
        with pytest.raises(InferenceServerException, match="exported for processors with 'vnni', which this one") as e:
            client.load_model("vnni")
        assert "Export it for any processor" in str(e.value)
        assert not client.is_model_ready("vnni")
    assert infer(server, "anywhere", x=BRIGHT)["y"].tolist() == [[255.0 * 64 * WIDTH] * 4]
