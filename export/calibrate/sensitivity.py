"""`python -m export.calibrate.sensitivity`: error of each layer in INT8.

Each layer is quantised alone, all others stay in float32, and the error is measured on the gate's samples. A layer with
a large error may stay in float32 (`export.calibrate --keep-float`); the table is committed for the report.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from export.calibrate import command_parser, selected
from export.context import ExportContext
from export.errors import exit_code
from export.graphsurgeon import gs
from export.models import get_model
from export.options import ExportOptions
from export.precision.equalise import equalised
from export.precision.int8 import WEIGHTED, Scheme, quantised_nodes, to_int8
from export.reports.page import SENSITIVITY
from export.session import Session, stack
from export.stages.convert import get_ranges

SAMPLES = 4
"""Samples of the gate that are used: enough to rank layers."""


def measure(name: str, context: ExportContext) -> list[dict[str, Any]]:
    """Measure the error of each layer alone in INT8, largest first: node, shape of its weights, error, share of all."""
    model, float32_graph = get_model(name), context.float32_graph(name, None)
    assert model.calibration_error is not None, "only models that are calibrated come here"
    ranges = get_ranges(model, float32_graph, context)
    equalised_graph = equalised(float32_graph, ranges.shifts)
    graph = gs.import_onnx(equalised_graph)
    nodes = quantised_nodes(graph)
    layers = [node for node in nodes if node.op in WEIGHTED]
    feed = stack(context.feeds(name, context.samples[:SAMPLES]))
    expected = Session(float32_graph)(feed)
    rows: list[dict[str, Any]] = []
    for index, layer in enumerate(layers, 1):
        others = {node.name for node in nodes if node is not layer}
        variant = to_int8(equalised_graph, ranges.bounds[ranges.chosen], Scheme.U8S8, others)
        criteria = {c.name: c.value for c in model.compare(expected, Session(variant)(feed), feed)}
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
    """Measure and write the tables; return 0, or 2 with one sentence on stderr that says what is wrong."""
    parser = command_parser("export.calibrate.sensitivity", __doc__.split("\n\n")[0])
    options = parser.parse_args(arguments)
    return exit_code(lambda: _write_tables(selected(options.network)))


def _write_tables(names: Sequence[str]) -> None:
    context = ExportContext.printing(ExportOptions())
    for name in names:
        rows = measure(name, context)
        path = SENSITIVITY / f"{name}.json"
        content = {"error": get_model(name).calibration_error, "layers": rows}
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        for row in rows[:10]:
            print(f"{row['node']:12} {row['weights']!s:22} {row['error']:.4g} ({row['share']:.1%})")
        print(path)


if __name__ == "__main__":
    sys.exit(main())
