"""Stage 3: convert a float32 graph to the best precision that passes lint and gate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from export.context import ExportContext
from export.criteria import Verdict
from export.errors import ExportError
from export.graphsurgeon import gs
from export.models.base import ExportedModel
from export.options import ExportOptions, Precision
from export.pictures import load_picture, pictures_in
from export.precision import calibration, equalise
from export.precision.fp16 import to_fp16
from export.precision.int8 import Scheme, quantised_tensors, to_int8
from export.samples import Sample, samples_of, varied_portraits
from export.session import Feed
from export.stages import gate
from export.stages.write import sha256
from server.backends.onnxruntime.integer_products import ANY_X86

CALIBRATION_PHOTOGRAPHS = 512
"""Most photographs that are taken from a folder: more hardly change a percentile."""
CALIBRATION_SAMPLES = 48
"""Variations of the built-in portraits that calibrate without photographs; takes about half a minute."""


@dataclass(frozen=True)
class Variant:
    """A graph in one precision, its verdict, and for INT8 the origin of its ranges."""

    precision: Precision
    graph: onnx.ModelProto
    verdict: Verdict
    calibration: dict[str, Any] | None = None


def best_variant(
    model: ExportedModel, float32_graph: onnx.ModelProto, feeds: list[Feed], context: ExportContext
) -> Variant:
    """Return the first variant of the precisions to try that passes lint and gate.

    Raises:
        ExportError: none does, or the linter refuses a graph.
    """
    options, refusal = context.options, ""
    steps = model.precisions(options.target, options.precision, options.strict)
    if "int8" in steps[:-1] and not quantised_tensors(gs.import_onnx(float32_graph)):
        # The texture graph of a face model other than the built-in one has no U-Net.
        context.say(f"{model.name}: the graph has no convolutions, so that int8 would change nothing")
        steps.remove("int8")
    for precision in steps:
        variant = convert(model, float32_graph, feeds, precision, context)
        context.say(f"{model.name}: {precision}: {variant.verdict}")
        if variant.verdict.passed:
            return variant
        refusal = f"The {precision} variant of the {model.name} was refused: {variant.verdict}. Nothing was written."
        if precision != "fp32":
            context.say(f"{model.name}: {precision} is refused")
    raise ExportError(refusal)


def convert(
    model: ExportedModel,
    float32_graph: onnx.ModelProto,
    feeds: list[Feed],
    precision: Precision,
    context: ExportContext,
) -> Variant:
    """Convert to one precision and judge the result.

    Raises:
        ExportError: the linter refuses the graph.
    """
    if precision == "int8":
        variant = _int8(model, float32_graph, feeds, context)
        if not variant.calibration:
            return variant  # too slow: not worth calibrating
    elif precision == "fp16":
        graph = to_fp16(float32_graph)
        variant = Variant(precision, graph, gate.judge(model, float32_graph, graph, feeds, _timed(context)))
    else:
        variant = Variant(precision, float32_graph, gate.judge_itself(float32_graph, feeds))
    problem = gate.lint(variant.graph, feeds[0])
    if problem is not None:
        raise ExportError(f"polygraphy's lint refuses the {precision} graph of the {model.name}: {problem}")
    return variant


def _timed(context: ExportContext) -> bool:
    """Tell whether speed is judged: not for TensorRT, whose speed only a GPU shows (see export/tensorrt)."""
    return context.options.target == "cpu"


def _int8(model: ExportedModel, float32_graph: onnx.ModelProto, feeds: list[Feed], context: ExportContext) -> Variant:
    scheme = scheme_of(context.options)
    if _timed(context) and not has_ranges(model, context):
        # Speed does not depend on the ranges, and calibrating takes half a minute: measure speed first.
        any_ranges = dict.fromkeys(quantised_tensors(gs.import_onnx(float32_graph)), (0.0, 1.0))
        trial = to_int8(float32_graph, any_ranges, scheme, streams=model.float_streams)
        speed = gate.speed(model, float32_graph, trial, feeds[0])
        if not speed.passed:
            return Variant("int8", trial, speed)
    ranges = get_ranges(model, float32_graph, context)
    source = {
        "samples": ranges.samples,
        "source": ranges.source,
        "method": ranges.chosen,
        "scheme": scheme.value,
        "kept in float32": ranges.keep_float,
        "residual streams in float32": ranges.streams,
        "equalised": bool(ranges.shifts),
    }
    graph = calibration.quantised(float32_graph, ranges, scheme)
    verdict = gate.judge(model, float32_graph, graph, feeds, _timed(context), any_x86=scheme.any_x86)
    return Variant("int8", graph, verdict, source)


def scheme_of(options: ExportOptions) -> Scheme:
    """Return the INT8 scheme of the target."""
    if options.target == "tensorrt":
        return Scheme.S8S8
    return Scheme.U8S8 if options.integer_products == ANY_X86 else Scheme.U8S8_VNNI


def has_ranges(model: ExportedModel, context: ExportContext) -> bool:
    """Tell whether the committed ranges belong to the weights of this export."""
    weights = context.options.weights or model.weights
    return context.options.pictures is None and calibration.committed_ranges(model.name, sha256(weights)) is not None


def get_ranges(model: ExportedModel, float32_graph: onnx.ModelProto, context: ExportContext) -> calibration.Ranges:
    """Return calibrated ranges: the committed ones if they belong to these weights, else newly calibrated ones."""
    if context.options.pictures is None:
        kept = calibration.committed_ranges(model.name, sha256(context.options.weights or model.weights))
        if kept is not None:
            return kept
        context.say(f"{model.name}: no committed ranges belong to these weights; calibrating")
    samples, source = _calibration_samples(context)
    return calibrated_ranges(model, float32_graph, samples, source, context)


def _calibration_samples(context: ExportContext) -> tuple[list[Sample], str]:
    """Return faces of a folder's photographs or variations of the built-in portraits, and their description."""
    folder = context.options.pictures
    if folder is None:
        samples = samples_of(varied_portraits(CALIBRATION_SAMPLES), context.detect_faces)
        return samples, "variations of two public-domain portraits, for want of photographs (--pictures FOLDER)"
    files = pictures_in(folder, CALIBRATION_PHOTOGRAPHS)
    if not files:
        raise ExportError(f"There are no pictures in {folder}.")
    samples = samples_of(((file.name, load_picture(file)) for file in files), context.detect_faces)
    return samples, f"photographs of the folder '{folder.name}'"


def calibrated_ranges(
    model: ExportedModel,
    float32_graph: onnx.ModelProto,
    samples: Sequence[Sample],
    source: str,
    context: ExportContext,
    weights: Path | None = None,
) -> calibration.Ranges:
    """Calibrate by all methods with the given faces; a graph with residual streams is equalised first.

    Args:
        model: of the graph.
        float32_graph: after surgery.
        samples: faces.
        source: description of the samples, for the file.
        context: gives the feeds.
        weights: that the digest is of; None: those of the options.
    """
    described = f"{len(samples)} {source}"
    context.say(f"{model.name}: calibrating with {described}")
    feeds = context.feeds(model.name, samples)
    shifts = equalise.shifts(float32_graph, feeds) if model.float_streams else {}
    equalised_graph = equalise.equalised(float32_graph, shifts)
    bounds = calibration.calibrate(equalised_graph, quantised_tensors(gs.import_onnx(equalised_graph)), feeds)
    digest = context.digests[model.name, weights or context.options.weights]
    return calibration.Ranges(digest, len(samples), described, bounds, shifts=shifts, streams=model.float_streams)
