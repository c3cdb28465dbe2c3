"""Tracing and surgery: the interface of the contract, less of everything else, the same numbers."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from export.graph import BATCH, OPSET, VERTICES, Size, shape_of
from export.graphsurgeon import gs
from export.session import Session
from export.stages.surgery import bypass_identities, clean, resolve_rank_tests
from tests.export import tiny


def test_a_traced_graph_has_the_contracts_names_a_free_batch_and_fixed_axes() -> None:
    model = tiny.traced()
    assert [value.name for value in model.graph.input] == ["crop", "context"]
    assert [shape_of(value) for value in model.graph.input] == [[BATCH, 3, 32, 32], [BATCH, 4]]
    assert [shape_of(value) for value in model.graph.output] == [[BATCH, tiny.ROWS, 3], [BATCH, 8]]
    assert model.opset_import[0].version == OPSET


def test_surgery_keeps_the_numbers_and_takes_nodes_and_batch_norms_away() -> None:
    before, after = tiny.traced(), tiny.cleaned()
    assert Size.of(after).nodes - 5 < Size.of(before).nodes  # five nodes open the axis
    assert not {"BatchNormalization", "Identity", "Constant"} & {node.op_type for node in after.graph.node}
    module = tiny.Tiny()
    for feed in tiny.feeds(2, batch=3):
        with torch.no_grad():
            expected = module(torch.from_numpy(feed["crop"]), torch.from_numpy(feed["context"]))
        result = Session(after)(feed)
        for name, value in zip(("shapes", "coefficients"), expected, strict=True):
            np.testing.assert_allclose(result[name], value.numpy(), rtol=1e-4, atol=1e-4)


def test_an_opened_axis_is_free_for_the_server_and_has_its_size_at_run_time() -> None:
    model = tiny.cleaned()
    assert shape_of(model.graph.output[0]) == [BATCH, VERTICES, 3]
    session = Session(model)
    [output] = [value for value in session._session.get_outputs() if value.name == "shapes"]
    assert not isinstance(output.shape[1], int), "Triton holds -1 in a configuration against a free axis"
    for batch in (1, 3):
        assert session(tiny.feeds(1, batch=batch)[0])["shapes"].shape == (batch, tiny.ROWS, 3)


def test_tensors_are_named_the_same_by_two_exports_so_that_kept_ranges_find_them() -> None:
    one, other = tiny.cleaned(), tiny.cleaned(seed=1)
    assert [node.name for node in one.graph.node] == [node.name for node in other.graph.node]
    assert [list(node.output) for node in one.graph.node] == [list(node.output) for node in other.graph.node]


def test_the_tracers_rank_test_is_replaced_by_the_branch_that_is_taken() -> None:
    shape: list[str | int | None] = [BATCH, 4]

    def branch(op: str, name: str) -> onnx.GraphProto:
        output = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        return helper.make_graph([helper.make_node(op, ["x"], [name])], name, [], [output])

    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Size", ["s"], ["rank"]),
        helper.make_node("Equal", ["rank", "zero"], ["scalar"]),
        helper.make_node("If", ["scalar"], ["y"], then_branch=branch("Neg", "a"), else_branch=branch("Abs", "b")),
        helper.make_node("Identity", ["y"], ["z"]),
        helper.make_node("Relu", ["z"], ["out"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, shape)],
        [helper.make_tensor("zero", TensorProto.INT64, [], [0])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
    cleaned = clean(model)
    assert [node.op_type for node in cleaned.graph.node] == ["Abs", "Relu"]
    x = np.array([[-1, 2, -3, 4]], np.float32)
    np.testing.assert_array_equal(Session(cleaned)({"x": x})["out"], np.abs(x))


def test_the_normalisation_of_pixels_is_baked_into_the_first_convolution() -> None:
    ops = [node.op_type for node in tiny.cleaned().graph.node]
    assert "Div" not in ops, "division by 255"


def test_a_scale_is_baked_through_a_mean_but_not_where_something_else_reads_it() -> None:
    def model(*extra: onnx.NodeProto) -> onnx.ModelProto:
        nodes = [
            helper.make_node("Div", ["x", "k"], ["scaled"]),
            helper.make_node("AveragePool", ["scaled"], ["small"], kernel_shape=[2, 2], strides=[2, 2]),
            helper.make_node("Conv", ["small", "w"], ["y"]),
            *extra,
        ]
        names = ["y", *(node.output[0] for node in extra)]
        graph = helper.make_graph(
            nodes,
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [BATCH, 1, 4, 4])],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, [BATCH, 1, None, None]) for name in names],
            [
                helper.make_tensor("k", TensorProto.FLOAT, [], [255.0]),
                helper.make_tensor("w", TensorProto.FLOAT, [1, 1, 1, 1], [3.0]),
            ],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)

    x = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
    baked, kept = clean(model()), clean(model(helper.make_node("Relu", ["small"], ["z"])))
    assert [node.op_type for node in baked.graph.node] == ["AveragePool", "Conv"]
    assert "Div" in [node.op_type for node in kept.graph.node]
    np.testing.assert_allclose(Session(baked)({"x": x})["y"], Session(kept)({"x": x})["y"], rtol=1e-6)


def test_an_identity_that_gives_an_output_stays() -> None:
    nodes = [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Identity", ["y"], ["public"])]
    values = {n: helper.make_tensor_value_info(n, TensorProto.FLOAT, [BATCH]) for n in ("x", "y", "public")}
    graph = helper.make_graph(nodes, "g", [values["x"]], [values["y"], values["public"]])
    imported = gs.import_onnx(helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)]))
    resolve_rank_tests(imported)
    bypass_identities(imported)
    assert [node.op for node in imported.cleanup().nodes] == ["Relu", "Identity"]


def _heads(window: int, side: int) -> onnx.ModelProto:
    """Build three convolutions with different windows over one feature map, concatenated and flattened."""
    chance = np.random.default_rng(1)
    nodes, weights = [], []
    for index, rows in enumerate((4, 2, 1)):
        nodes.append(helper.make_node("Conv", ["x", f"w{index}", f"b{index}"], [f"y{index}"]))
        shape = (rows, 8, window, window)
        weights.append(helper.make_tensor(f"w{index}", TensorProto.FLOAT, shape, chance.normal(size=shape).ravel()))
        weights.append(helper.make_tensor(f"b{index}", TensorProto.FLOAT, [rows], chance.normal(size=rows)))
    nodes.append(helper.make_node("Concat", ["y0", "y1", "y2"], ["y"], axis=1))
    nodes.append(helper.make_node("Flatten", ["y"], ["out"], axis=1))
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [BATCH, 8, side, side])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [BATCH, None])],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)


@pytest.mark.parametrize(
    ("window", "side", "ops"),
    [(4, 4, ["Flatten", "Gemm"]), (1, 1, ["Flatten", "Gemm"]), (3, 4, ["Conv", "Flatten"])],
)
def test_heads_become_one_matrix_where_their_window_is_all_they_see(window: int, side: int, ops: list[str]) -> None:
    model = _heads(window, side)
    # The window is known to cover the map only where the map's size is: behind an operator, as in a network.
    model.graph.node.insert(0, helper.make_node("Relu", ["x"], ["x_"]))
    for node in model.graph.node[1:4]:
        node.input[0] = "x_"
    cleaned = clean(model)
    assert [node.op_type for node in cleaned.graph.node] == ["Relu", *ops]
    x = np.random.default_rng(2).normal(size=(3, 8, side, side)).astype(np.float32)
    np.testing.assert_allclose(Session(cleaned)({"x": x})["out"], Session(model)({"x": x})["out"], atol=1e-4)
