"""Equalised channels and residual streams in float32: the same function, and INT8 that outliers do not spoil."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn

from export.errors import ExportError
from export.graphsurgeon import gs
from export.precision import calibration
from export.precision.calibration import Ranges, calibrate, quantised
from export.precision.channels import channel_groups
from export.precision.equalise import equalised, inner_groups, shifts
from export.precision.int8 import Scheme, quantised_tensors, to_int8
from export.precision.streams import residual_streams
from export.session import Feed, Session, stack, with_outputs
from export.stages.gate import lint
from export.stages.surgery import clean
from export.stages.trace import onnx_from_module
from networks.regressor import Bottleneck
from tests.export import tiny


class Residual(nn.Module):
    """Two stages of two bottlenecks and a head that reads the whole map; a few channels are far larger than others."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.stem = nn.Conv2d(3, 16, 3, 2, 1)
        self.body = nn.Sequential(
            Bottleneck(16, 8), Bottleneck(32, 8), Bottleneck(32, 16, stride=2), Bottleneck(64, 16)
        )
        self.head = nn.Conv2d(64, 6, 8)
        for block in self.body:
            assert isinstance(block, Bottleneck)
            for norm in (block.bn1, block.bn2, block.bn3):
                nn.init.uniform_(norm.weight, 0.5, 1.5)
                nn.init.uniform_(norm.bias, 0.2, 0.6)
            # Every fourth channel inside is thirty times larger than the others, and read thirty times smaller.
            with torch.no_grad():
                block.bn1.weight[::4] *= 30
                block.bn1.bias[::4] *= 30
                block.conv2.weight[:, ::4] /= 30
        self.eval()

    def forward(self, crop: Tensor) -> Tensor:
        """Compute [B,6] of uint8 [B,3,32,32], with arithmetic after the head as in the regressor."""
        x = torch.relu(self.stem(crop.float() / 255))
        return torch.tanh(self.head(self.body(x)).flatten(1) / 10) * 10


def _feeds(count: int, seed: int = 0) -> list[Feed]:
    return [{"crop": feed["crop"]} for feed in tiny.feeds(count, seed)]


@pytest.fixture(scope="module")
def float32_graph() -> onnx.ModelProto:
    return clean(onnx_from_module(Residual(), (torch.zeros(2, 3, 32, 32, dtype=torch.uint8),), ("crop",), ("out",)))


@pytest.fixture(scope="module")
def ranges(float32_graph: onnx.ModelProto) -> Ranges:
    exponents = shifts(float32_graph, _feeds(12))
    equalised_graph = equalised(float32_graph, exponents)
    bounds = calibrate(equalised_graph, quantised_tensors(gs.import_onnx(equalised_graph)), _feeds(12))
    return Ranges("digest", 12, "noise", bounds, "minmax", shifts=exponents, streams=1)


def _error(float32_graph: onnx.ModelProto, model: onnx.ModelProto, exact: bool = False) -> float:
    """Measure the difference from float32; `exact`: for graphs that are not meant for this kind of processor."""
    feed = stack(_feeds(8, seed=5))
    expected, actual = Session(float32_graph)(feed)["out"], Session(model, exact=exact)(feed)["out"]
    return float(np.abs(expected - actual).mean() / np.abs(expected).mean())


def test_streams_and_what_lies_inside_bottlenecks_are_found(float32_graph: onnx.ModelProto) -> None:
    graph = gs.import_onnx(float32_graph)
    streams = residual_streams(graph)
    # writers: a downsampling convolution and two last ones; readers: the next block, then the next stage's or the head
    assert [(len(s.writers), len(s.readers), len(s.additions), s.channels) for s in streams] == [
        (3, 3, 2, 32),
        (3, 2, 2, 64),
    ]
    assert [node.op for node in streams[1].readers] == ["Conv", "Gemm"]
    assert len(inner_groups(graph)) == 1 + 2 * 4  # the stem's channels, and two in each bottleneck


def test_channels_that_an_output_looks_at_are_left_alone(float32_graph: onnx.ModelProto) -> None:
    inside = inner_groups(gs.import_onnx(float32_graph))[1].name
    names = [group.name for group in channel_groups(gs.import_onnx(with_outputs(float32_graph, [inside])))]
    assert inside not in names
    assert names


def test_equalising_leaves_the_function_as_it_is_to_the_last_bit(
    float32_graph: onnx.ModelProto, ranges: Ranges
) -> None:
    assert any(k != 0 for exponents in ranges.shifts.values() for k in exponents)
    feed = stack(_feeds(4, seed=3))
    np.testing.assert_array_equal(
        Session(equalised(float32_graph, ranges.shifts))(feed)["out"], Session(float32_graph)(feed)["out"]
    )


def test_equalising_brings_channels_nearer_to_each_other(float32_graph: onnx.ModelProto, ranges: Ranges) -> None:
    # Of the groups behind the blocks' first convolutions, whose channels were made unlike.
    group = inner_groups(gs.import_onnx(float32_graph))[1]
    name = group.readers[0].inputs[0].name

    def spread(model: onnx.ModelProto) -> float:
        peaks = Session(with_outputs(model, [name]))(stack(_feeds(12)))[name].max((0, 2, 3))
        return float(peaks.max() / np.median(peaks))

    assert spread(equalised(float32_graph, ranges.shifts)) < spread(float32_graph) / 3


def test_shifts_of_another_network_are_refused(float32_graph: onnx.ModelProto) -> None:
    with pytest.raises(ExportError, match="no channels 'elsewhere' to equalise: calibrate it anew"):
        equalised(float32_graph, {"elsewhere": [1, 2]})


def test_equalising_makes_int8_more_exact(float32_graph: onnx.ModelProto, ranges: Ranges) -> None:
    bounds = calibrate(float32_graph, quantised_tensors(gs.import_onnx(float32_graph)), _feeds(12))["minmax"]
    without = to_int8(float32_graph, bounds, Scheme.U8S8)
    assert _error(
        float32_graph, to_int8(equalised(float32_graph, ranges.shifts), ranges.bounds["minmax"], Scheme.U8S8)
    ) < (_error(float32_graph, without) * 0.8)


@pytest.mark.parametrize("count", [1, 2])
def test_a_stream_in_float_leaves_no_convolution_or_product_in_float(
    float32_graph: onnx.ModelProto, ranges: Ranges, tmp_path: Path, count: int
) -> None:
    ranges.streams = count
    model = quantised(float32_graph, ranges, Scheme.U8S8)
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    ops = Counter(node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node)
    assert not {"Conv", "FusedConv", "Gemm", "MatMul"} & set(ops), ops
    assert ops["MatMulIntegerToFloat"] + ops["MatMulInteger"] == {1: 6, 2: 13}[count]
    assert _error(float32_graph, model) < 0.05
    assert lint(model, _feeds(1)[0]) is None


def test_a_picture_far_brighter_than_its_neighbour_does_not_cost_it_precision(
    float32_graph: onnx.ModelProto, ranges: Ranges
) -> None:
    ranges.streams = 1
    session = Session(quantised(float32_graph, ranges, Scheme.U8S8))
    [dim, bright] = _feeds(2, seed=8)
    dim = {"crop": dim["crop"] // 16}
    batched = session(stack([dim, bright]))["out"]
    np.testing.assert_allclose(batched[0], session(dim)["out"][0], rtol=0, atol=1e-5)


def test_for_tensorrt_the_stream_and_its_convolutions_stay_in_float(
    float32_graph: onnx.ModelProto, ranges: Ranges
) -> None:
    ranges.streams = 1
    model = quantised(float32_graph, ranges, Scheme.S8S8)
    ops = Counter(node.op_type for node in model.graph.node)
    assert ops["MatMulInteger"] == 0
    kept = {w.name.removesuffix("_weight_q") for w in model.graph.initializer if w.name.endswith("_weight_q")}
    stream = residual_streams(gs.import_onnx(float32_graph))[-1]
    assert not kept & {node.name for node in (*stream.writers, *stream.readers)}
    assert _error(float32_graph, model, exact=True) < 0.05
    assert lint(model, _feeds(1)[0]) is None


def test_what_a_relu_cuts_off_behind_an_addition_takes_no_part_of_the_range(
    float32_graph: onnx.ModelProto, ranges: Ranges
) -> None:
    bounds = {
        name: (min(low, -100.0) if low < 0 else low, high) for name, (low, high) in ranges.bounds["minmax"].items()
    }
    wide = to_int8(equalised(float32_graph, ranges.shifts), bounds, Scheme.U8S8)
    scales = {w.name: onnx.numpy_helper.to_array(w) for w in wide.graph.initializer if w.name.endswith("_scale")}
    additions = [node for node in gs.import_onnx(float32_graph).nodes if node.op == "Add"]
    tightened = [t.name for node in additions for t in node.inputs if len(t.outputs) == 1]
    assert len(tightened) == 6
    assert all(float(scales[f"{name}_scale"]) < 100 / 255 for name in tightened)


def test_shifts_and_streams_are_kept_with_the_ranges(ranges: Ranges, tmp_path: Path) -> None:
    ranges.save(tmp_path / "r.json")
    loaded = Ranges.load(tmp_path / "r.json")
    assert (loaded.shifts, loaded.streams) == (ranges.shifts, ranges.streams)
    # One line for each group: the file is read by people, and as lists it would be thousands of lines.
    lines = (tmp_path / "r.json").read_text().splitlines()
    assert len(lines) < 8 * len(ranges.bounds["minmax"]) * len(calibration.METHODS)
