"""`python -m export.sensitivity`: which layers cost most when they run in INT8.

Each layer is quantised alone, everything else left in float32, and the error measured on the gate's samples. What
stands out may be left in float32 (`export.calibrate --keep-float`); the table is kept for the report.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from typing import Any

from export import calibration
from export.build import Order, Workshop, ranges
from export.calibrate import ERROR
from export.equalise import equalised
from export.gate import COMPARE
from export.graphsurgeon import gs
from export.int8 import WEIGHTED, Scheme, quantised_nodes, to_int8
from export.session import Session, stack
from networks.errors import NetworkError

SAMPLES = 4
"""Enough to rank layers; the verdict on the whole is the gate's."""


def measure(name: str, workshop: Workshop) -> list[dict[str, Any]]:
    """Error of each layer alone in INT8, largest first: node, shape of its weights, error, share of all errors."""
    plain = workshop.plain(name, None)
    made = ranges(name, plain, workshop.order, workshop)
    even = equalised(plain, made.shifts)
    graph = gs.import_onnx(even)
    nodes = quantised_nodes(graph)
    layers = [node for node in nodes if node.op in WEIGHTED]
    feed = stack(workshop.feeds(name, workshop.samples[:SAMPLES]))
    wanted = Session(plain)(feed)
    rows: list[dict[str, Any]] = []
    for index, layer in enumerate(layers, 1):
        others = {node.name for node in nodes if node is not layer}
        alone = to_int8(even, made.bounds[made.chosen], Scheme.U8S8, others)
        criteria = {c.name: c.value for c in COMPARE[name](wanted, Session(alone)(feed), feed)}
        rows.append({"node": layer.name, "weights": list(layer.inputs[1].shape), "error": criteria[ERROR[name]]})
        if index % 10 == 0:
            workshop.say(f"{name}: {index} of {len(layers)} layers")
    total = sum(row["error"] for row in rows) or 1.0
    for row in rows:
        row["share"] = round(row["error"] / total, 4)
        row["error"] = float(f"{row['error']:.4g}")
    return sorted(rows, key=lambda row: -row["error"])


def main(arguments: Sequence[str] | None = None) -> int:
    """0: written; 2: one sentence on stderr says what is wrong."""
    parser = argparse.ArgumentParser(prog="python -m export.sensitivity", description=__doc__.split("\n\n")[0])
    parser.add_argument("network", choices=[*sorted(ERROR), "all"])
    options = parser.parse_args(arguments)
    start = time.monotonic()
    workshop = Workshop(Order(), lambda line: print(f"[{time.monotonic() - start:5.1f} s] {line}", flush=True))
    try:
        for name in sorted(ERROR) if options.network == "all" else [options.network]:
            rows = measure(name, workshop)
            path = calibration.FOLDER / f"{name}-sensitivity.json"
            content = {"error": ERROR[name], "layers": rows}
            path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
            for row in rows[:10]:
                print(f"{row['node']:12} {row['weights']!s:22} {row['error']:.4g} ({row['share']:.1%})")
            print(path)
    except NetworkError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
