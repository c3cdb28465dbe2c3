"""Graphs cut at their GridSample: the halves with OpenCV between them do what the whole graph does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from export import sampling
from export.session import Session
from server.backends.onnxruntime.sampling import SampledSession, open_session

SIDE, TEXELS = 12, 9


def sampler_graph(mirrored: bool = False, **changes: Any) -> onnx.ModelProto:
    """Picture and places in pixels -> samples in bytes, and the places again: a cut through both sides of a graph.

    ``mirrored``: the samples are the means of both sides.
    """
    attributes = {"mode": "bilinear", "padding_mode": "zeros", "align_corners": 0, **changes}
    info = helper.make_tensor_value_info
    nodes = [
        helper.make_node("Cast", ["picture"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["places", "scale"], ["scaled"]),
        helper.make_node("Sub", ["scaled", "one"], ["grid"]),
        helper.make_node("GridSample", ["floats", "grid"], ["colours"], **attributes),
        helper.make_node("ReduceSum", ["scaled"], ["sums"], keepdims=1),
        helper.make_node("Mul", ["sums", "zero"], ["nothing"]),
        helper.make_node("Add", ["colours", "nothing"], ["added"]),
        helper.make_node("Add", ["added", "half"], ["up"]),
        helper.make_node("Cast", ["up"], ["samples"], to=TensorProto.UINT8),
        helper.make_node("Identity", ["scaled"], ["twice"]),
    ]
    if mirrored:
        nodes[6:7] = [
            helper.make_node("Slice", ["colours", "last", "first", "across", "back"], ["turned"]),
            helper.make_node("Add", ["colours", "turned"], ["both"]),
            helper.make_node("Mul", ["both", "half"], ["mean"]),
            helper.make_node("Add", ["mean", "nothing"], ["added"]),
        ]
    constants = {"scale": 2 / SIDE, "one": 1 - 1 / SIDE, "half": 0.5, "zero": 0.0}
    slices = {"last": -1, "first": -(2**63), "across": 3, "back": -1}
    graph = helper.make_graph(
        nodes,
        "sampler",
        [
            info("picture", TensorProto.UINT8, ["batch", 3, SIDE, SIDE]),
            info("places", TensorProto.FLOAT, ["batch", TEXELS, TEXELS, 2]),
        ],
        [
            info("samples", TensorProto.UINT8, ["batch", 3, TEXELS, TEXELS]),
            info("twice", TensorProto.FLOAT, ["batch", TEXELS, TEXELS, 2]),
        ],
        [
            *(helper.make_tensor(name, TensorProto.FLOAT, [], [value]) for name, value in constants.items()),
            *(helper.make_tensor(name, TensorProto.INT64, [1], [value]) for name, value in slices.items() if mirrored),
        ],
    )
    for node in graph.node:
        node.name = f"{node.op_type}_{node.output[0]}"
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return model


def feed(seed: int = 0, rows: int = 2, low: float = -3, high: float = SIDE + 3) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        "picture": rng.integers(0, 256, (rows, 3, SIDE, SIDE)).astype(np.uint8),
        "places": rng.uniform(low, high, (rows, TEXELS, TEXELS, 2)).astype(np.float32),
    }


def halves_of(model: onnx.ModelProto) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    halves = sampling.cut(model)
    assert halves is not None
    return halves


class TestCut:
    def test_halves_have_no_sampler_and_keep_the_interface(self) -> None:
        before, after = halves_of(sampler_graph())
        assert "GridSample" not in {node.op_type for half in (before, after) for node in half.graph.node}
        assert [value.name for value in before.graph.input] == ["picture", "places"]
        assert [value.name for value in after.graph.output] == ["samples", "twice"]
        session = sampling.served((before, after))
        assert (session.inputs, session.outputs) == (["picture", "places"], ["samples", "twice"])

    def test_a_mirrored_use_of_the_samples_is_an_input(self) -> None:
        _, after = halves_of(sampler_graph(mirrored=True))
        assert [value.name for value in after.graph.input][:2] == ["sampled", "mirrored"]
        assert "Slice" not in {node.op_type for node in after.graph.node}

    @pytest.mark.parametrize(("name", "value"), [("last", -2), ("first", -4), ("across", 2), ("back", -2)])
    def test_other_slices_stay(self, name: str, value: int) -> None:
        model = sampler_graph(mirrored=True)
        next(x for x in model.graph.initializer if x.name == name).int64_data[:] = [value]
        _, after = halves_of(model)
        assert "Slice" in {node.op_type for node in after.graph.node}

    def test_the_graph_itself_stays_as_it_is(self) -> None:
        model = sampler_graph()
        kept = model.SerializeToString()
        sampling.cut(model)
        assert model.SerializeToString() == kept

    @pytest.mark.parametrize(
        "changes", [{"mode": "nearest"}, {"padding_mode": "border"}, {"align_corners": 1}, {"mode": "bicubic"}]
    )
    def test_what_opencv_does_otherwise_is_not_cut(self, changes: dict[str, Any]) -> None:
        assert sampling.cut(sampler_graph(**changes)) is None

    def test_a_graph_without_or_with_two_samplers_is_not_cut(self) -> None:
        model = sampler_graph()
        second = helper.make_node("GridSample", ["floats", "grid"], ["others"], name="second")
        two = onnx.ModelProto()
        two.CopyFrom(model)
        two.graph.node.append(second)
        two.graph.output.append(helper.make_tensor_value_info("others", TensorProto.FLOAT, None))
        assert sampling.cut(two) is None
        assert sampling.cut(halves_of(model)[0]) is None

    def test_a_computed_picture_is_not_cut(self) -> None:
        model = sampler_graph()
        model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT
        assert sampling.cut(model) is None


class TestSampling:
    @settings(max_examples=40, deadline=None)
    @given(st.integers(0, 2**32 - 1), st.integers(1, 3), st.booleans())
    def test_samples_are_those_of_the_whole_graph(self, seed: int, rows: int, mirrored: bool) -> None:
        model, values = sampler_graph(mirrored), feed(seed, rows)
        wanted, given = Session(model)(values), sampling.served(halves_of(model))(values)
        # 1/32 of a pixel between black and white, along both axes, and the rounding
        assert np.abs(wanted["samples"].astype(int) - given["samples"]).max() <= 2 * 255 / 32 + 1
        np.testing.assert_array_equal(wanted["twice"], given["twice"])

    def test_whole_pixels_are_exact(self) -> None:
        values = feed()
        rows, columns = np.mgrid[:TEXELS, :TEXELS].astype(np.float32)
        values["places"] = np.stack([columns, rows], -1)[None].repeat(2, 0)
        given = sampling.served(halves_of(sampler_graph()))(values)
        np.testing.assert_array_equal(given["samples"], values["picture"][:, :, :TEXELS, :TEXELS])

    @pytest.mark.parametrize("place", [np.nan, np.inf, -np.inf, 1e9, -1e9, 40_000.0])
    def test_places_far_from_the_picture_are_black(self, place: float) -> None:
        values = feed()
        values["places"][:] = place
        assert not sampling.served(halves_of(sampler_graph()))(values)["samples"].any()

    def test_only_what_is_wanted_is_computed(self) -> None:
        before, after = (ort.InferenceSession(half.SerializeToString()) for half in halves_of(sampler_graph()))
        (twice,) = SampledSession(before, after).run(["twice"], feed())
        np.testing.assert_allclose(twice, feed()["places"] * 2 / SIDE, rtol=1e-6)


class TestDifference:
    def test_small_for_the_halves_of_the_graph_itself(self) -> None:
        model = sampler_graph()
        smooth = feed(low=1, high=SIDE - 2)
        smooth["picture"] = (np.arange(SIDE) * 9 + 20).astype(np.uint8)[None, None, None].repeat(SIDE, 2).repeat(3, 1)
        smooth["picture"] = smooth["picture"].repeat(2, 0)
        assert sampling.difference(model, halves_of(model), smooth).small

    def test_large_for_the_halves_of_another_graph(self) -> None:
        model = sampler_graph()
        other = sampler_graph()
        other.graph.initializer[1].float_data[:] = [0.5]
        apart = sampling.difference(model, halves_of(other), feed(low=1, high=SIDE - 2))
        assert not apart.small
        assert "the whole graph is served" in str(apart)

    def test_an_output_that_is_not_a_picture_must_agree_to_the_bit(self) -> None:
        model, other = sampler_graph(), sampler_graph()
        other.graph.initializer[0].float_data[:] = [2 / SIDE * 1.0001]
        assert sampling.difference(model, halves_of(other), feed()).far == 1.0


class TestOpenSession:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        """A version folder with a whole graph and its halves."""
        model = sampler_graph()
        onnx.save(model, tmp_path / "model.onnx")
        sampling.write(tmp_path, tmp_path / "model.onnx", halves_of(model))
        return tmp_path

    def test_halves_that_belong_are_taken(self, folder: Path) -> None:
        session = open_session(folder / "model.onnx", ort.SessionOptions())
        assert isinstance(session, SampledSession)
        assert [node.name for node in session.get_inputs()] == ["picture", "places"]
        assert list(session.get_inputs()[0].shape) == ["batch", 3, SIDE, SIDE]

    def test_halves_of_another_graph_are_not(self, folder: Path) -> None:
        model = sampler_graph()
        model.doc_string = "another one"
        onnx.save(model, folder / "model.onnx")
        assert isinstance(open_session(folder / "model.onnx", ort.SessionOptions()), ort.InferenceSession)

    def test_one_half_is_none(self, folder: Path) -> None:
        (folder / "after_sampling.onnx").unlink()
        assert isinstance(open_session(folder / "model.onnx", ort.SessionOptions()), ort.InferenceSession)
