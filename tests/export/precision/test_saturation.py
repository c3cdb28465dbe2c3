"""Integer products are the same on every x86 processor: the bound, the emulation, and the kernels themselves.

The arithmetic of processors without VNNI is checked three ways: by the bound on the graph, by NumPy, and, on a machine
that can hide VNNI from a program, by ONNX Runtime's own kernels for them.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from export.errors import ExportError
from export.graphsurgeon import gs
from export.precision.calibration import calibrate
from export.precision.int8 import Scheme, quantised_tensors, to_int8
from export.precision.saturation import MAX_PAIR_SUM, integer_weights, saturating, saturating_product
from export.reports import without_vnni
from export.session import Feed, Session, stack
from export.stages import gate
from server.backends.onnxruntime.integer_products import PROBE, products_are_exact
from tests.export import tiny

ROOT = Path(__file__).parents[3]
RUN = """
import sys
import numpy as np
from export.session import Session
from pathlib import Path
folder = Path(sys.argv[1])
feed = dict(np.load(folder / "feed.npz"))
np.savez(folder / "result.npz", **Session(folder / "model.onnx")(feed))
"""


@pytest.fixture(scope="module")
def hidden(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """Return the environment of programs that see no VNNI."""
    try:
        return without_vnni.environment(tmp_path_factory.mktemp("preloaded"))
    except ExportError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def float32_graph() -> onnx.ModelProto:
    return tiny.cleaned()


@pytest.fixture(scope="module")
def graphs(float32_graph: onnx.ModelProto) -> dict[Scheme, onnx.ModelProto]:
    bounds = calibrate(float32_graph, quantised_tensors(gs.import_onnx(float32_graph)), tiny.feeds(12))["minmax"]
    return {scheme: to_int8(float32_graph, bounds, scheme) for scheme in Scheme}


def _product(weights: NDArray[np.int8]) -> onnx.ModelProto:
    """Build a graph of one node: x times constant weights."""
    inner, outer = weights.shape
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["x", "w"], ["y"], name="product")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, ["rows", inner])],
        [helper.make_tensor_value_info("y", TensorProto.INT32, ["rows", outer])],
        [numpy_helper.from_array(weights, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def _elsewhere(model: onnx.ModelProto, feed: Feed, environment: Mapping[str, str], folder: Path) -> Feed:
    """Run a graph in another environment."""
    onnx.save(model, folder / "model.onnx")
    np.savez(folder / "feed.npz", **feed)
    subprocess.run([sys.executable, "-c", RUN, str(folder)], cwd=ROOT, env=environment, check=True)
    with np.load(folder / "result.npz") as results:
        return dict(results)


def _matrices(seed: int, limit: int = 127) -> tuple[NDArray[np.uint8], NDArray[np.int8]]:
    """Make large activations and large weights, with odd sizes."""
    chance = np.random.default_rng(seed)
    rows = chance.integers(150, 256, (5, 77)).astype(np.uint8)
    return rows, chance.integers(-limit, limit + 1, (77, 33)).astype(np.int8)


@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.sampled_from(["normal", "alike", "outlier", "nothing"]))
@settings(max_examples=200, deadline=None)
def test_no_two_weights_of_an_output_add_up_to_what_saturates(seed: int, count: int, kind: str) -> None:
    chance = np.random.default_rng(seed)
    rows = chance.normal(size=(3, count)).astype(np.float32)
    if kind == "alike":
        rows = np.sign(rows) * chance.uniform(0.1, 10)
    elif kind == "outlier":
        rows[:, 0] *= 1000
    elif kind == "nothing":
        rows[:] = 0
    rows = rows.astype(np.float32)
    integers, scale = integer_weights(rows, any_x86=True)
    wide = np.sort(np.pad(integers.astype(int), ((0, 0), (0, 2))), axis=1)
    assert (wide[:, -1] + wide[:, -2]).max() <= MAX_PAIR_SUM
    assert (wide[:, 0] + wide[:, 1]).min() >= -MAX_PAIR_SUM
    np.testing.assert_allclose(integers * scale[:, None], rows, atol=float(scale.max()) * 0.5001)
    bright = np.full((1, count), 255, np.uint8)
    exact = bright.astype(np.int32) @ integers.T.astype(np.int32)
    np.testing.assert_array_equal(saturating_product(bright, np.ascontiguousarray(integers.T)), exact)


def test_a_weight_far_larger_than_the_others_uses_nearly_all_eight_bits() -> None:
    row = np.array([[10.0, 0.05, -0.05, 0.02]], np.float32)
    assert integer_weights(row, any_x86=True)[0][0, 0] >= 125


def test_weights_in_eight_bits_saturate_in_sixteen_and_smaller_ones_do_not() -> None:
    rows, large = _matrices(0)
    small = (large // 2).astype(np.int8)
    for weights, same in ((large, False), (small, True)):
        exact = rows.astype(np.int32) @ weights.astype(np.int32)
        assert np.array_equal(saturating_product(rows, weights), exact) == same
        assert (saturating(_product(weights)) == []) == same


def test_this_machines_kernels_do_what_the_emulation_says() -> None:
    rows, weights = _matrices(1)
    exact = rows.astype(np.int32) @ weights.astype(np.int32)
    expected = exact if products_are_exact() else saturating_product(rows, weights)
    np.testing.assert_array_equal(Session(_product(weights))({"x": rows})["y"], expected)


def test_the_kernels_for_processors_without_vnni_do_what_the_emulation_says(
    hidden: Mapping[str, str], tmp_path: Path
) -> None:
    rows, weights = _matrices(2)
    actual = _elsewhere(_product(weights), {"x": rows}, hidden, tmp_path)["y"]
    np.testing.assert_array_equal(actual, saturating_product(rows, weights))
    assert not np.array_equal(actual, rows.astype(np.int32) @ weights.astype(np.int32))


@pytest.mark.parametrize(("window", "groups"), [(1, 1), (3, 1), (3, 16)])
def test_the_largest_weights_allowed_are_exact_in_a_convolution_without_vnni(
    hidden: Mapping[str, str], tmp_path: Path, window: int, groups: int
) -> None:
    weights = np.full((16, 16 // groups, window, window), MAX_PAIR_SUM // 2, np.int8)
    count = weights[0].size
    constants = {
        "one": np.float32(1),
        "zero": np.uint8(0),
        "w": weights,
        "wz": np.int8(0),
        # The largest sum there can be is 255 in the result.
        "ys": np.float32(count * MAX_PAIR_SUM // 2),
    }
    node = helper.make_node(
        "QLinearConv",
        ["x", "one", "zero", "w", "one", "wz", "ys", "zero"],
        ["y"],
        group=groups,
        pads=[window // 2] * 4,
    )
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, [1, 16, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.UINT8, [1, 16, 8, 8])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    actual = _elsewhere(model, {"x": np.full((1, 16, 8, 8), 255, np.uint8)}, hidden, tmp_path)["y"]
    assert (actual[:, :, 1:-1, 1:-1] == 255).all()


def test_only_the_graph_for_vnni_has_products_that_can_saturate(graphs: dict[Scheme, onnx.ModelProto]) -> None:
    assert saturating(graphs[Scheme.U8S8]) == []
    assert len(saturating(graphs[Scheme.U8S8_VNNI])) == 4


def test_a_graph_gives_the_same_on_a_processor_without_vnni(
    graphs: dict[Scheme, onnx.ModelProto], hidden: Mapping[str, str], tmp_path: Path
) -> None:
    feed = stack(tiny.feeds(4, seed=9))
    for scheme, same in ((Scheme.U8S8, True), (Scheme.U8S8_VNNI, False)):
        here = Session(graphs[scheme], exact=True)(feed)["coefficients"]
        there = _elsewhere(graphs[scheme], feed, hidden, tmp_path)["coefficients"]
        # What follows the integers is float32, which other kernels add up in another order.
        assert np.allclose(there, here, rtol=1e-4, atol=1e-5) == same


def test_exact_kernels_give_the_graph_for_vnni_its_right_result_everywhere(
    graphs: dict[Scheme, onnx.ModelProto], float32_graph: onnx.ModelProto
) -> None:
    feed = stack(tiny.feeds(4, seed=9))
    expected = Session(float32_graph)(feed)["coefficients"]
    actual = Session(graphs[Scheme.U8S8_VNNI], exact=True)(feed)["coefficients"]
    assert np.abs(actual - expected).mean() < 0.05 * np.abs(expected).mean()


def test_the_gate_refuses_products_that_can_saturate_unless_they_are_for_vnni(
    float32_graph: onnx.ModelProto, graphs: dict[Scheme, onnx.ModelProto]
) -> None:
    model = tiny.TinyModel()
    feeds = tiny.feeds(2)
    variant = graphs[Scheme.U8S8_VNNI]
    refused = gate.judge(model, float32_graph, variant, feeds, timed=False)
    assert not refused.passed
    assert "products that can saturate without VNNI 4 (at most 0: FAILED)" in str(refused)
    assert gate.judge(model, float32_graph, variant, feeds, timed=False, any_x86=False).passed
    assert gate.judge(model, float32_graph, graphs[Scheme.U8S8], feeds, timed=False).passed


@pytest.mark.parametrize("op", ["MatMulInteger", "ConvInteger", "QLinearMatMul", "QLinearConv"])
def test_every_operator_on_signed_bytes_is_looked_at(op: str) -> None:
    shape = (3, 2, 3, 3) if "Conv" in op else (18, 3)
    weights = np.zeros(shape, np.int8)
    flat = weights.reshape(3, -1) if "Conv" in op else weights.T
    flat[1, 4], flat[1, 11], flat[2, 7] = 65, 64, -127

    def looked_at() -> list[str]:
        inputs = ["x", "w"] if "Integer" in op else ["x", "xs", "xz", "w", "ws", "wz", "ys", "yz"]
        graph = helper.make_graph(
            [helper.make_node(op, inputs, ["y"], name="node")], "g", [], [], [numpy_helper.from_array(weights, "w")]
        )
        return saturating(helper.make_model(graph))

    assert looked_at() == ["node"]
    flat[1, 4] = 64
    assert looked_at() == []


def test_weights_that_are_computed_are_an_error_that_names_the_node() -> None:
    graph = helper.make_graph([helper.make_node("MatMulInteger", ["x", "w"], ["y"], name="attention")], "g", [], [])
    with pytest.raises(ExportError, match="The weights of 'attention' are computed"):
        saturating(helper.make_model(graph))


def test_the_backends_probe_is_a_graph_that_onnx_knows() -> None:
    model = onnx.load_from_string(PROBE)
    onnx.checker.check_model(model)
    assert [node.op_type for node in model.graph.node] == ["MatMulInteger"]
