"""FP16 and INT8 graphs: where each precision begins and ends, and that ONNX Runtime and TensorRT can use them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, numpy_helper

from export.errors import ExportError
from export.graphsurgeon import gs
from export.precision import int8
from export.precision.calibration import Ranges, calibrate, entropy_range, percentile_range
from export.precision.fp16 import to_fp16
from export.precision.int8 import Scheme, quantised_nodes, quantised_tensors, to_int8
from export.precision.region import FLOAT_OPERATORS, network_nodes
from export.session import Session
from export.stages.gate import lint
from tests.export import tiny


@pytest.fixture(scope="module")
def float32_graph() -> onnx.ModelProto:
    return tiny.cleaned()


@pytest.fixture(scope="module")
def bounds(float32_graph: onnx.ModelProto) -> dict[str, dict[str, tuple[float, float]]]:
    return calibrate(float32_graph, quantised_tensors(gs.import_onnx(float32_graph)), tiny.feeds(12))


def _error(a: onnx.ModelProto, b: onnx.ModelProto, name: str = "coefficients", exact: bool = False) -> float:
    """Measure the difference from float32; `exact`: for graphs that are not meant for this kind of processor."""
    one, other = Session(a), Session(b, exact=exact)
    feeds = tiny.feeds(4, seed=9, batch=4)
    expected = np.concatenate([one(feed)[name] for feed in feeds])
    actual = np.concatenate([other(feed)[name] for feed in feeds])
    return float(np.abs(expected - actual).mean() / np.abs(expected).mean())


def _types(model: onnx.ModelProto) -> dict[str, int]:
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    return {value.name: value.type.tensor_type.elem_type for value in inferred.graph.value_info}


def test_the_network_proper_ends_where_its_last_convolutions_are(float32_graph: onnx.ModelProto) -> None:
    graph = gs.import_onnx(float32_graph)
    everything = Counter(node.op for node in network_nodes(graph))
    without_heads = Counter(node.op for node in network_nodes(graph, keep_last=True))
    assert (everything["Conv"], everything["Gemm"]) == (4, 2)
    assert (without_heads["Conv"], without_heads["Gemm"]) == (4, 0)
    assert not {"Sin", "Cast", "Div"} & set(everything)


def test_fp16_keeps_inputs_outputs_heads_and_what_follows_in_float32(float32_graph: onnx.ModelProto) -> None:
    fp16_graph = to_fp16(float32_graph)
    types = _types(fp16_graph)
    kinds = Counter(
        (node.op_type, types.get(node.output[0], TensorProto.FLOAT))
        for node in fp16_graph.graph.node
        if node.op_type in ("Conv", "Gemm")
    )
    assert kinds == {("Conv", TensorProto.FLOAT16): 4, ("Gemm", TensorProto.FLOAT): 2}
    for a, b in zip(
        (*float32_graph.graph.input, *float32_graph.graph.output),
        (*fp16_graph.graph.input, *fp16_graph.graph.output),
        strict=True,
    ):
        assert a.type == b.type
    assert _error(float32_graph, fp16_graph) < 2e-3
    assert lint(fp16_graph, tiny.feeds(1)[0]) is None


def test_fp16_casts_each_tensor_once_and_shares_narrowed_weights(float32_graph: onnx.ModelProto) -> None:
    fp16_graph = to_fp16(float32_graph)
    casts = [node.input[0] for node in fp16_graph.graph.node if node.name.startswith("narrow_")]
    assert len(casts) == len(set(casts)) == 1
    names = [weight.name for weight in fp16_graph.graph.initializer]
    assert len(names) == len(set(names))


def test_a_weight_too_large_for_fp16_is_refused_by_name(float32_graph: onnx.ModelProto) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(float32_graph)
    weight = next(w for w in model.graph.initializer if len(w.dims) == 4)
    values = numpy_helper.to_array(weight)
    weight.CopyFrom(numpy_helper.from_array(values * np.float32(1e6 / np.abs(values).max()), weight.name))
    with pytest.raises(ExportError, match=r"holds .*more than float16 can"):
        to_fp16(model)


def test_both_branches_of_the_residual_addition_are_quantised(
    float32_graph: onnx.ModelProto, bounds: dict[str, dict[str, tuple[float, float]]]
) -> None:
    for scheme in Scheme:
        model = to_int8(float32_graph, bounds["minmax"], scheme)
        made_by = {name: node.op_type for node in model.graph.node for name in node.output}
        [add] = [n for n in model.graph.node if n.op_type == "Add" and made_by.get(n.input[0]) == "DequantizeLinear"]
        assert [made_by[name] for name in add.input] == ["DequantizeLinear"] * 2


def test_on_a_cpu_every_convolution_but_the_heads_becomes_an_integer_kernel(
    float32_graph: onnx.ModelProto, bounds: dict[str, dict[str, tuple[float, float]]], tmp_path: Path
) -> None:
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    model = to_int8(float32_graph, bounds["percentile"], Scheme.U8S8)
    ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    ops = Counter(node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node)
    assert ops["QLinearConv"] == 4
    assert _error(float32_graph, model) < 0.05
    assert lint(model, tiny.feeds(1)[0]) is None


def test_for_tensorrt_every_zero_point_is_zero_signed_and_weights_are_per_channel(
    float32_graph: onnx.ModelProto, bounds: dict[str, dict[str, tuple[float, float]]]
) -> None:
    model = to_int8(float32_graph, bounds["percentile"], Scheme.S8S8)
    constants = {w.name: numpy_helper.to_array(w) for w in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            zero = constants[node.input[2]]
            assert zero.dtype == np.int8
            assert not zero.any()
    scales = [v for k, v in constants.items() if k.endswith("_weight_scale")]
    assert len(scales) == 4
    assert all(scale.ndim == 1 and len(scale) >= 16 for scale in scales)
    biases = [node.input[2] for node in model.graph.node if node.op_type == "Conv" and len(node.input) > 2]
    assert all(constants[name].dtype == np.float32 for name in biases)
    assert _error(float32_graph, model, exact=True) < 0.05
    assert lint(model, tiny.feeds(1)[0]) is None


def test_a_layer_that_is_kept_in_float_has_no_quantised_weights(
    float32_graph: onnx.ModelProto, bounds: dict[str, dict[str, tuple[float, float]]]
) -> None:
    convs = [node.name for node in quantised_nodes(gs.import_onnx(float32_graph)) if node.op == "Conv"]
    model = to_int8(float32_graph, bounds["minmax"], Scheme.U8S8, keep_float=convs[:1])
    quantised = {w.name for w in model.graph.initializer if w.name.endswith("_weight_q")}
    assert quantised == {f"{name}_weight_q" for name in convs[1:]}


def test_a_tensor_without_a_range_is_an_error_that_says_what_to_do(float32_graph: onnx.ModelProto) -> None:
    with pytest.raises(ExportError, match=r"no calibrated range for .* calibrate the network anew"):
        to_int8(float32_graph, {}, Scheme.U8S8)


def test_calibration_finds_the_extremes_and_clips_inside_them(
    float32_graph: onnx.ModelProto, bounds: dict[str, dict[str, tuple[float, float]]]
) -> None:
    assert set(bounds) == {"minmax", "percentile", "entropy"}
    for name, (low, high) in bounds["minmax"].items():
        for method in ("percentile", "entropy"):
            inner_low, inner_high = bounds[method][name]
            assert low - 1e-6 <= inner_low <= inner_high <= high + 1e-6


def test_a_single_outlier_does_not_widen_the_percentile_or_the_entropy_range() -> None:
    chance = np.random.default_rng(0)
    values = np.append(np.abs(chance.normal(size=200_000)), 60.0)
    counts, edges = np.histogram(values, 2048, (0, 60))
    for low, high in (percentile_range(counts, edges), entropy_range(counts, edges)):
        assert low == pytest.approx(0, abs=0.1)
        assert 3 < high < 12


def test_a_sample_unlike_all_others_does_not_widen_any_range(float32_graph: onnx.ModelProto) -> None:
    tensors = quantised_tensors(gs.import_onnx(float32_graph))
    faces = [{**feed, "crop": feed["crop"] // 4} for feed in tiny.feeds(49)]  # dim pictures, and then a bright one
    excluded = tiny.feeds(1, seed=1)[0]
    without_outlier = calibrate(float32_graph, tensors, faces)["minmax"]
    with_outlier = calibrate(float32_graph, tensors, [*faces, excluded])["minmax"]
    outlier_alone = calibrate(float32_graph, tensors, [excluded])["minmax"]
    assert any(outlier_alone[name][1] > without_outlier[name][1] * 1.2 for name in tensors), (
        "the sample is strange to this network"
    )
    assert all(with_outlier[name][1] <= without_outlier[name][1] * 1.0001 for name in tensors)


def test_an_even_distribution_is_not_clipped() -> None:
    counts, edges = np.full(2048, 100), np.linspace(-1, 1, 2049)
    assert percentile_range(counts, edges) == pytest.approx((-1, 1), abs=2e-3)
    low, high = entropy_range(counts, edges)
    assert low == pytest.approx(-1, abs=0.1)
    assert high == pytest.approx(1, abs=0.1)


def test_kept_ranges_come_back_as_they_were(tmp_path: Path) -> None:
    ranges = Ranges(
        "abc", 3, "three faces", {"minmax": {"x": (-1.25, 3.5)}}, "minmax", {"minmax": {"e": 0.5}}, ["Conv_1"]
    )
    ranges.save(tmp_path / "r.json")
    assert Ranges.load(tmp_path / "r.json") == ranges


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"bounds": {"minmax": {"x": [1]}}}'])
def test_a_damaged_file_of_ranges_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(ExportError, match="does not hold calibrated ranges"):
        Ranges.load(tmp_path / "r.json")


def test_a_head_runs_in_integers_only_where_its_matrix_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    def gemms(model: onnx.ModelProto) -> list[str]:
        return [node.op for node in quantised_nodes(gs.import_onnx(model)) if node.op == "Gemm"]

    nodes = [
        onnx.helper.make_node("Relu", ["x"], ["seen"]),
        onnx.helper.make_node("Conv", ["seen", "w"], ["y"], name="body"),
        onnx.helper.make_node("Flatten", ["y"], ["row"]),
        onnx.helper.make_node("Gemm", ["row", "m", "b"], ["out"], name="head", transB=1),
    ]
    chance = np.random.default_rng(0)
    weights = {
        "w": chance.normal(size=(16, 3, 1, 1)),
        "m": chance.normal(size=(5, 16 * 64)) / 30,
        "b": chance.normal(size=5),
    }
    graph = onnx.helper.make_graph(
        nodes,
        "g",
        [onnx.helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 8, 8])],
        [onnx.helper.make_tensor_value_info("out", TensorProto.FLOAT, ["batch", 5])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    assert gemms(model) == []
    monkeypatch.setattr(int8, "MIN_QUANTISED_HEAD_SIZE", 5 * 16 * 64)
    assert gemms(model) == ["Gemm"]
    x = chance.normal(size=(2, 3, 8, 8)).astype(np.float32)
    bounds = calibrate(model, quantised_tensors(gs.import_onnx(model)), [{"x": x}])["minmax"]
    for scheme in Scheme:
        actual = Session(to_int8(model, bounds, scheme), exact=not scheme.any_x86)({"x": x})["out"]
        np.testing.assert_allclose(actual, Session(model)({"x": x})["out"], atol=0.1)


def test_a_tensor_that_no_picture_fills_gets_an_empty_range() -> None:
    # As the detector's crops of faces that may be turned: their number depends on the picture.
    graph = onnx.parser.parse_graph(
        "g (float[n] x) => (float[m] z) { i = NonZero(x)  r = Transpose(i)  y = GatherND(x, r)  z = Exp(y) }"
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    empty, filled = {"x": np.zeros(3, np.float32)}, {"x": np.array([0, 2, -1], np.float32)}
    bounds = calibrate(model, ["y"], [empty, empty])
    assert bounds["minmax"]["y"] == (0.0, 0.0)
    assert all(np.isfinite(by["y"]).all() for by in bounds.values())
    assert calibrate(model, ["y"], [empty, filled])["minmax"]["y"] == (-1.0, 2.0)


def test_convolutions_with_a_slope_for_negative_numbers_between_them_are_one_network() -> None:
    # As in the embedder and O-Net: without it every convolution would be a head, and stay in float32.
    graph = onnx.parser.parse_graph(
        "g (float[1,2,8,8] x, float[2,2,1,1] w, float[2,1,1] s) => (float[1,2,8,8] z) "
        "{ a = Conv(x, w)  b = PRelu(a, s)  c = Conv(b, w)  z = Exp(c) }"
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    nodes = network_nodes(gs.import_onnx(model), keep_last=True, between=FLOAT_OPERATORS)
    assert [node.op for node in nodes] == ["Conv", "PRelu"]
    assert not network_nodes(gs.import_onnx(model), keep_last=True), "an integer network ends there"
