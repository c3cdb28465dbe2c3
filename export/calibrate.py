"""`python -m export.calibrate`: ranges for INT8 from photographs, kept in export/ranges/ and committed.

Three rules are derived from one set of histograms and compared on other photographs of the same folder. The best is
chosen; the numbers of all three stay in the file, and the report shows them. A network with residual streams is
equalised first, and as few of its last streams are left in float32 as its error allows.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

from export import calibration, gate
from export.build import Order, Workshop, calibrated
from export.errors import ExportError
from export.int8 import Scheme
from export.reports.parity import load_picture, pictures_in
from export.samples import Sample, samples_from
from networks.errors import NetworkError

PHOTOGRAPHS = 280
"""Faces that calibrate: at least 256 are asked for, and more hardly move the extremes."""
MOST_STREAMS = 1
"""So many residual streams may stay in float32: the first costs a sixth of INT8's time, the next far more."""
SMALL_ERROR = 0.15
"""Landmarks in the crop, mean px, from which on no stream is left in float32. The gate's bound is 0.5; the
texture, which is sampled by the INT8 shape, asks for more."""
ERROR = {"regressor": "landmarks in the crop, mean px", "texture": "texture, mean squared error"}
"""What the rules are compared by."""


JUDGES = 40
"""Photographs that are kept back from calibrating and compare the rules."""


def compare_rules(name: str, made: calibration.Ranges, judges: Sequence[Sample], workshop: Workshop) -> None:
    """Judge an INT8 graph by each rule and choose the one with the smallest error.

    Where a network has residual streams, more and more of them stay in float32 until the error is small.

    Args:
        name: of the network.
        made: ranges by all rules; `comparison`, `chosen` and `streams` are set.
        judges: faces that did not calibrate.
        workshop: gives the graphs.
    """
    plain = workshop.plain(name, None)
    feeds = workshop.feeds(name, judges)
    smallest = math.inf
    for streams in range(MOST_STREAMS + 1) if made.streams else (0,):
        comparison: dict[str, dict[str, float]] = {}
        for method in calibration.METHODS:
            trial = replace(made, streams=streams, chosen=method)
            verdict = gate.judge(name, plain, calibration.quantised(plain, trial, Scheme.U8S8), feeds, timed=False)
            comparison[method] = {c.name: float(f"{c.value:.5g}") for c in verdict.criteria}
            workshop.say(f"{name}: {streams} streams in float32, {method}: {verdict}")
        best = min(comparison, key=lambda method: comparison[method][ERROR[name]])
        error = comparison[best][ERROR[name]]
        if error < smallest:
            smallest = error
            made.comparison, made.chosen, made.streams = comparison, best, streams
        if smallest <= SMALL_ERROR:
            break
    made.judged = f"{len(judges)} other photographs from the same place"


def split(pictures: Path, workshop: Workshop) -> tuple[list[Sample], list[Sample]]:
    """Faces that calibrate and faces that judge, from one folder, none of them both.

    Raises:
        ExportError: there are fewer faces than calibrating and judging take.
    """
    files = pictures_in(pictures)
    random.Random(0).shuffle(files)
    wanted = PHOTOGRAPHS + JUDGES
    pictures_of = ((f.name, load_picture(f)) for f in files)
    found = list(islice(samples_from(pictures_of, workshop.find), wanted))
    if len(found) < wanted:
        raise ExportError(f"{pictures} has {len(found)} faces beyond doubt; calibrating and judging take {wanted}.")
    return found[JUDGES:], found[:JUDGES]


def main(arguments: Sequence[str] | None = None) -> int:
    """0: written; 2: one sentence on stderr says what is wrong."""
    parser = argparse.ArgumentParser(prog="python -m export.calibrate", description=__doc__.split("\n\n")[0])
    parser.add_argument("network", choices=[*sorted(ERROR), "all"])
    parser.add_argument("--pictures", type=Path, required=True, metavar="DIR", help="at least 320 photographs of faces")
    parser.add_argument("--about", default="photographs of faces", help="what the pictures are, for the report")
    parser.add_argument("--keep-float", nargs="*", default=[], metavar="NODE", help="nodes to leave in float32")
    options = parser.parse_args(arguments)
    start = time.monotonic()
    workshop = Workshop(Order(), lambda line: print(f"[{time.monotonic() - start:5.1f} s] {line}", flush=True))
    try:
        samples, judges = split(options.pictures, workshop)
        for name in sorted(ERROR) if options.network == "all" else [options.network]:
            made = calibrated(name, workshop.plain(name, None), None, samples, options.about, workshop)
            made.keep_float = list(options.keep_float)
            compare_rules(name, made, judges, workshop)
            path = calibration.FOLDER / f"{name}.json"
            made.save(path)
            workshop.say(f"{path}: {made.chosen}, {made.samples} faces, {len(made.bounds[made.chosen])} tensors")
    except NetworkError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
