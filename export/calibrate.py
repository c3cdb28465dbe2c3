"""`python -m export.calibrate`: ranges for INT8 from photographs, kept in export/ranges/ and committed.

Three rules are derived from one set of histograms and compared on the gate's samples, which are other pictures than
those calibrated with. The best is chosen; the numbers of all three stay in the file.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from export import calibration, gate
from export.build import Order, Workshop, calibrate
from export.errors import ExportError
from export.int8 import Scheme, to_int8

ERROR = {"regressor": "landmarks in the crop, mean px", "texture": "texture, mean squared error"}
"""What the rules are compared by."""


def compare_rules(name: str, made: calibration.Ranges, workshop: Workshop) -> None:
    """Judge an INT8 graph by each rule and set `chosen` to the one with the smallest error."""
    plain = workshop.plain(name, None)
    feeds = workshop.feeds(name, workshop.samples)
    for method in calibration.METHODS:
        graph = to_int8(plain, made.bounds[method], Scheme.U8S8, made.keep_float)
        verdict = gate.judge(name, plain, graph, feeds, timed=False)
        made.comparison[method] = {c.name: float(f"{c.value:.5g}") for c in verdict.criteria}
        workshop.say(f"{name}: {method}: {verdict}")
    made.chosen = min(made.comparison, key=lambda method: made.comparison[method][ERROR[name]])


def main(arguments: Sequence[str] | None = None) -> int:
    """0: written; 2: one sentence on stderr says what is wrong."""
    parser = argparse.ArgumentParser(prog="python -m export.calibrate", description=__doc__.split("\n\n")[0])
    parser.add_argument("network", choices=sorted(ERROR))
    parser.add_argument("--pictures", type=Path, required=True, metavar="DIR", help="at least 256 photographs of faces")
    parser.add_argument("--keep-float", nargs="*", default=[], metavar="NODE", help="nodes to leave in float32")
    options = parser.parse_args(arguments)
    start = time.monotonic()
    order = Order(pictures=options.pictures)
    workshop = Workshop(order, lambda line: print(f"[{time.monotonic() - start:5.1f} s] {line}", flush=True))
    try:
        made = calibrate(options.network, workshop.plain(options.network, None), order, workshop)
        made.keep_float = list(options.keep_float)
        compare_rules(options.network, made, workshop)
    except ExportError as error:
        print(error, file=sys.stderr)
        return 2
    path = calibration.FOLDER / f"{options.network}.json"
    made.save(path)
    print(f"{path}: {made.chosen}, {made.samples} faces, {len(made.bounds[made.chosen])} tensors")
    return 0


if __name__ == "__main__":
    sys.exit(main())
