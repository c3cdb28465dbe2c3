"""`python -m export.calibrate.sensitivity`: which layers cost most when they run in INT8.

Each layer is quantised alone, everything else left in float32, and the error measured on the gate's samples. What
stands out may be left in float32 (`export.calibrate --keep-float`); the table is kept for the report.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from export.calibrate import CALIBRATED
from export.context import ExportContext
from export.graphsurgeon import gs
from export.models import get_model
from export.options import ExportOptions
from export.precision.equalise import equalised
from export.precision.int8 import WEIGHTED, Scheme, quantised_nodes, to_int8
from export.reports.page import SENSITIVITY
from export.session import Session, stack
from export.stages.convert import ranges
from networks.errors import NetworkError

SAMPLES = 4
"""Enough to rank layers; the verdict on the whole is the gate's."""


def measure(name: str, context: ExportContext) -> list[dict[str, Any]]:
    """Measure the error of each layer alone in INT8, largest first: node, shape of its weights, error, share of all."""
    model, float32_graph = get_model(name), context.float32_graph(name, None)
    assert model.calibration_error is not None, "only models that are calibrated come here"
    made = ranges(model, float32_graph, context)
    even = equalised(float32_graph, made.shifts)
    graph = gs.import_onnx(even)
    nodes = quantised_nodes(graph)
    layers = [node for node in nodes if node.op in WEIGHTED]
    feed = stack(context.feeds(name, context.samples[:SAMPLES]))
    expected = Session(float32_graph)(feed)
    rows: list[dict[str, Any]] = []
    for index, layer in enumerate(layers, 1):
        others = {node.name for node in nodes if node is not layer}
        alone = to_int8(even, made.bounds[made.chosen], Scheme.U8S8, others)
        criteria = {c.name: c.value for c in model.compare(expected, Session(alone)(feed), feed)}
        rows.append(
            {"node": layer.name, "weights": list(layer.inputs[1].shape), "error": criteria[model.calibration_error]}
        )
        if index % 10 == 0:
            context.say(f"{name}: {index} of {len(layers)} layers")
    total = sum(row["error"] for row in rows) or 1.0
    for row in rows:
        row["share"] = round(row["error"] / total, 4)
        row["error"] = float(f"{row['error']:.4g}")
    return sorted(rows, key=lambda row: -row["error"])


def main(arguments: Sequence[str] | None = None) -> int:
    """0: written; 2: one sentence on stderr says what is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m export.calibrate.sensitivity", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument("network", choices=[*CALIBRATED, "all"])
    options = parser.parse_args(arguments)
    context = ExportContext.printing(ExportOptions())
    try:
        for name in CALIBRATED if options.network == "all" else [options.network]:
            rows = measure(name, context)
            path = SENSITIVITY / f"{name}.json"
            content = {"error": get_model(name).calibration_error, "layers": rows}
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
