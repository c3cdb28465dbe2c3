"""The gate: numbers against bounds, and nothing passes by being broken."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from export.criteria import Criterion, Verdict
from export.models import get_model
from export.stages import gate
from tests.export import tiny

Feed = dict[str, NDArray[Any]]


def _verdict(criteria: list[Criterion]) -> Verdict:
    return Verdict(tuple(criteria))


def test_a_number_passes_on_the_right_side_of_its_bound_and_nan_never() -> None:
    assert Criterion("x", 1.0, 1.0, "at least").passed
    assert Criterion("x", 1.0, 1.0).passed
    assert not Criterion("x", 0.9, 1.0, "at least").passed
    assert not Criterion("x", 1.1, 1.0).passed
    assert Criterion("x", 5.0).passed
    assert not Criterion("x", float("nan"), 0.0, "at least").passed
    assert not Criterion("x", float("nan"), 0.0, "at most").passed


def test_a_verdict_says_every_number_and_goes_into_the_sidecar() -> None:
    verdict = Verdict((Criterion("good", 0.5, 1.0), Criterion("bad", float(np.float64(2.0)), 1.0)))
    assert not verdict.passed
    assert str(verdict) == "good 0.5 (at most 1: ok); bad 2 (at most 1: FAILED)"
    content = json.loads(json.dumps(verdict.as_dict()))
    assert content["passed"] is False
    assert [c["passed"] for c in content["criteria"]] == [True, False]


def _faces(boxes: list[tuple[float, float, float, float]], shift: float = 0.0) -> NDArray[np.float32]:
    rows = np.zeros((1, 64, 15), np.float32)
    for index, (x, y, side, score) in enumerate(boxes):
        points = np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]]) * side + (x, y)
        rows[0, index] = [x, y, x + side, y + side, score, *(points + shift).ravel()]
    return rows


def test_the_detector_is_judged_by_the_same_faces_and_points() -> None:
    boxes = [(10.0, 10.0, 100.0, 0.99), (200.0, 10.0, 80.0, 0.9), (0.0, 0.0, 50.0, 0.4)]
    same = _verdict(get_model("detector").compare({"faces": _faces(boxes)}, {"faces": _faces(boxes[::-1])}, {}))
    assert same.passed
    assert same.criteria[0].value == 2, "faces below the threshold of the service do not count"
    moved = [(x + side * 0.2, y, side, score) for x, y, side, score in boxes]
    assert not _verdict(get_model("detector").compare({"faces": _faces(boxes)}, {"faces": _faces(moved)}, {})).passed
    points = _verdict(get_model("detector").compare({"faces": _faces(boxes)}, {"faces": _faces(boxes, shift=5)}, {}))
    assert [c.passed for c in points.criteria[:3]] == [True, True, False]
    assert not _verdict(get_model("detector").compare({"faces": _faces(boxes)}, {"faces": _faces([])}, {})).passed
    assert not _verdict(get_model("detector").compare({"faces": _faces([])}, {"faces": _faces([])}, {})).passed


def _regressed(move: float = 0.0, coefficient: float = 0.0) -> Feed:
    chance = np.random.default_rng(0)
    shapes = chance.normal(size=(2, 3, 50, 3)).astype(np.float32)
    shapes[:, 1, :, 0] += move
    coefficients = chance.normal(size=(2, 257)).astype(np.float32)
    coefficients[:, 0] += coefficient
    landmarks = chance.normal(size=(2, 68, 2)).astype(np.float32)
    return {
        "shapes": shapes,
        "vertices": shapes[:, 0] * 100,
        "coefficients": coefficients,
        "landmarks": landmarks,
        "certainty": np.full((2, 4), 0.5, np.float32),
    }


def test_the_regressor_is_judged_by_millimetres_of_the_head_and_pixels_of_the_crop() -> None:
    feed = {"context": np.full((2, 23), 2.0, np.float32)}
    assert _verdict(get_model("regressor").compare(_regressed(), _regressed(0.002), feed)).passed
    half = get_model("regressor").compare(_regressed(), _regressed(0.005), feed)
    assert half[1].value == pytest.approx(0.5, rel=1e-3)
    assert not _verdict(half).passed
    assert not _verdict(get_model("regressor").compare(_regressed(), _regressed(coefficient=10), feed)).passed
    moved = _regressed()
    moved["landmarks"] = moved["landmarks"] + np.array([2.0, 0], np.float32)
    assert get_model("regressor").compare(_regressed(), moved, feed)[2].value == pytest.approx(1.0)


def test_two_untrained_regressors_are_alike() -> None:
    zero = {**_regressed(), "coefficients": np.zeros((2, 257), np.float32)}
    feed = {"context": np.ones((2, 23), np.float32)}
    assert get_model("regressor").compare(zero, zero, feed)[0].value == 1.0


def test_the_texture_is_judged_by_structure_and_error() -> None:
    coarse = np.random.default_rng(0).integers(40, 200, (1, 3, 64, 64)).astype(np.uint8)
    texture, seen = coarse.repeat(8, 2).repeat(8, 3), np.full((1, 1, 512, 512), 200, np.uint8)
    places = np.full((1, 4, 16, 16), 100, np.float32)
    expected: dict[str, NDArray[Any]] = {"texture": texture, "visibility": seen, "places": places}
    slight = {**expected, "texture": texture + np.uint8(1)}
    assert _verdict(get_model("texture").compare(expected, slight, {})).passed
    noise = np.random.default_rng(1).normal(0, 40, texture.shape)
    noisy = {**expected, "texture": (texture + noise).clip(0, 255).astype(np.uint8)}
    assert not _verdict(get_model("texture").compare(expected, noisy, {})).passed
    hidden = {**expected, "visibility": seen // 2}
    assert not _verdict(get_model("texture").compare(expected, hidden, {})).passed
    moved = {**expected, "places": places + np.float32(0.2)}
    assert not _verdict(get_model("texture").compare(expected, moved, {})).passed


def test_float32_itself_must_not_depend_on_a_pictures_neighbours() -> None:
    verdict = gate.judge_itself(tiny.cleaned(), tiny.feeds(4))
    assert verdict.passed, verdict
    nodes = [helper.make_node("ReduceMean", ["x", "axis"], ["m"]), helper.make_node("Sub", ["x", "m"], ["y"])]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 2]) for name in ("x", "y")]
    graph = helper.make_graph(
        nodes, "g", values[:1], values[1:], [helper.make_tensor("axis", TensorProto.INT64, [1], [0])]
    )
    mixing = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    feeds = [{"x": np.array([[float(i), 1.0]], np.float32)} for i in range(3)]
    assert not gate.judge_itself(mixing, feeds).passed


def test_lint_names_what_is_wrong_with_a_graph() -> None:
    model = tiny.cleaned()
    assert gate.lint(model, tiny.feeds(1)[0]) is None
    broken = onnx.ModelProto()
    broken.CopyFrom(model)
    conv = next(node for node in broken.graph.node if node.op_type == "Conv")
    conv.op_type = "Konv"
    problem = gate.lint(broken, tiny.feeds(1)[0])
    assert problem is not None
    assert "Konv" in problem
