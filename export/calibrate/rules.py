"""Which rule of calibration serves best, judged on photographs that did not calibrate."""

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

PHOTOGRAPHS = 280
"""Faces that calibrate: at least 256 are asked for, and more hardly move the extremes."""
MAX_FLOAT_STREAMS = 1
"""So many residual streams may stay in float32: the first costs a sixth of INT8's time, the next far more."""
SMALL_ERROR = 0.15
"""Landmarks in the crop, mean px, from which on no stream is left in float32. The gate's bound is 0.5; the
texture, which is sampled by the INT8 shape, asks for more."""
JUDGES = 40
"""Photographs that are kept back from calibrating and compare the rules."""


def compare_rules(
    model: ExportedModel, made: calibration.Ranges, judges: Sequence[Sample], context: ExportContext
) -> None:
    """Judge an INT8 graph by each rule and choose the one with the smallest error.

    Where a network has residual streams, more and more of them stay in float32 until the error is small.

    Args:
        model: which one.
        made: ranges by all rules; `comparison`, `chosen` and `streams` are set.
        judges: faces that did not calibrate.
        context: gives the graphs.
    """
    float32_graph, criterion = context.float32_graph(model.name, None), model.calibration_error
    assert criterion is not None, "only models that are calibrated come here"
    feeds = context.feeds(model.name, judges)
    smallest = math.inf
    for streams in range(MAX_FLOAT_STREAMS + 1) if made.streams else (0,):
        comparison: dict[str, dict[str, float]] = {}
        for method in calibration.METHODS:
            trial = replace(made, streams=streams, chosen=method)
            graph = calibration.quantised(float32_graph, trial, Scheme.U8S8)
            verdict = gate.judge(model, float32_graph, graph, feeds, timed=False)
            comparison[method] = {c.name: float(f"{c.value:.5g}") for c in verdict.criteria}
            context.say(f"{model.name}: {streams} streams in float32, {method}: {verdict}")
        best = min(comparison, key=lambda method: comparison[method][criterion])
        error = comparison[best][criterion]
        if error < smallest:
            smallest = error
            made.comparison, made.chosen, made.streams = comparison, best, streams
        if smallest <= SMALL_ERROR:
            break
    made.judged = f"{len(judges)} other photographs from the same place"


def split_samples(pictures: Path, context: ExportContext) -> tuple[list[Sample], list[Sample]]:
    """Return faces that calibrate and faces that judge, from one folder, none of them both.

    Raises:
        ExportError: there are fewer faces than calibrating and judging take.
    """
    files = pictures_in(pictures)
    random.Random(0).shuffle(files)
    wanted = PHOTOGRAPHS + JUDGES
    pictures_of = ((f.name, load_picture(f)) for f in files)
    found = list(islice(samples_from(pictures_of, context.detect_faces), wanted))
    if len(found) < wanted:
        raise ExportError(f"{pictures} has {len(found)} faces beyond doubt; calibrating and judging take {wanted}.")
    return found[JUDGES:], found[:JUDGES]
