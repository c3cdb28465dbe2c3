"""`python -m export.calibrate`: ranges for INT8 from photographs, kept in export/ranges/ and committed.

Three rules are derived from one set of histograms and compared on other photographs of the same folder. The best is
chosen; the numbers of all three stay in the file, and the report shows them.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from export import calibration, gate
from export.build import Order, Workshop, calibrated
from export.detector.parity import load_picture, pictures_in
from export.errors import ExportError
from export.int8 import Scheme, to_int8
from export.samples import Sample, samples_from

PHOTOGRAPHS = 280
"""Faces that calibrate: at least 256 are asked for, and more hardly move the extremes."""
ERROR = {"regressor": "landmarks in the crop, mean px", "texture": "texture, mean squared error"}
"""What the rules are compared by."""


JUDGES = 40
"""Photographs that are kept back from calibrating and compare the rules."""


def compare_rules(name: str, made: calibration.Ranges, judges: Sequence[Sample], workshop: Workshop) -> None:
    """Judge an INT8 graph by each rule and set `chosen` to the one with the smallest error.

    Args:
        name: of the network.
        made: ranges by all rules; `comparison` and `chosen` are set.
        judges: faces that did not calibrate.
        workshop: gives the graphs.
    """
    plain = workshop.plain(name, None)
    feeds = workshop.feeds(name, judges)
    for method in calibration.METHODS:
        graph = to_int8(plain, made.bounds[method], Scheme.U8S8, made.keep_float)
        verdict = gate.judge(name, plain, graph, feeds, timed=False)
        made.comparison[method] = {c.name: float(f"{c.value:.5g}") for c in verdict.criteria}
        workshop.say(f"{name}: {method}: {verdict}")
    made.chosen = min(made.comparison, key=lambda method: made.comparison[method][ERROR[name]])
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
    except ExportError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
