"""Compare calibration methods on photographs that did not calibrate."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

from export.context import ExportContext
from export.errors import ExportError
from export.models.base import ExportedModel
from export.pictures import load_picture, pictures_in
from export.precision import calibration
from export.precision.int8 import Scheme
from export.samples import Sample, samples_from
from export.stages import gate

CALIBRATION_FACES = 280
"""Faces that calibrate: at least 256 are required, and more hardly change the extremes."""
MAX_FLOAT_STREAMS = 1
"""Most residual streams that may stay in float32: the first costs a sixth of INT8's time, the next far more."""
ACCEPTED_ERROR = 0.15
"""Error (landmarks in the crop, mean px) that needs no further stream in float32. The gate's bound is 0.5, but the
texture is sampled by the INT8 shape and needs a smaller error."""
VALIDATION_FACES = 40
"""Photographs that do not calibrate and compare the methods."""


def compare_methods(
    model: ExportedModel, ranges: calibration.Ranges, validation: Sequence[Sample], context: ExportContext
) -> None:
    """Judge an INT8 graph with the ranges of each method and choose the one with the smallest error.

    Where a network has residual streams, one more of them stays in float32 until the error is accepted.

    Args:
        model: of the graphs.
        ranges: by all methods; `comparison`, `chosen`, `streams` and `judged` are set.
        validation: faces that did not calibrate.
        context: gives graphs and feeds.
    """
    float32_graph, criterion = context.float32_graph(model.name, None), model.calibration_error
    assert criterion is not None, "only models that are calibrated come here"
    feeds = context.feeds(model.name, validation)
    smallest = math.inf
    for streams in range(MAX_FLOAT_STREAMS + 1) if ranges.streams else (0,):
        comparison: dict[str, dict[str, float]] = {}
        for method in calibration.METHODS:
            trial = replace(ranges, streams=streams, chosen=method)
            graph = calibration.quantised(float32_graph, trial, Scheme.U8S8)
            verdict = gate.judge(model, float32_graph, graph, feeds, timed=False)
            comparison[method] = {c.name: float(f"{c.value:.5g}") for c in verdict.criteria}
            context.say(f"{model.name}: {streams} streams in float32, {method}: {verdict}")
        best = min(comparison, key=lambda method: comparison[method][criterion])
        error = comparison[best][criterion]
        if error < smallest:
            smallest = error
            ranges.comparison, ranges.chosen, ranges.streams = comparison, best, streams
        if smallest <= ACCEPTED_ERROR:
            break
    ranges.judged = f"{len(validation)} other photographs from the same place"


def split_samples(pictures: Path, context: ExportContext) -> tuple[list[Sample], list[Sample]]:
    """Return disjoint sets of faces of a folder, for calibration and for validation.

    Raises:
        ExportError: there are too few faces.
    """
    files = pictures_in(pictures)
    random.Random(0).shuffle(files)
    needed = CALIBRATION_FACES + VALIDATION_FACES
    named_pictures = ((f.name, load_picture(f)) for f in files)
    faces = list(islice(samples_from(named_pictures, context.detect_faces), needed))
    if len(faces) < needed:
        raise ExportError(f"{pictures} has {len(faces)} faces beyond doubt; calibrating and judging take {needed}.")
    return faces[VALIDATION_FACES:], faces[:VALIDATION_FACES]
