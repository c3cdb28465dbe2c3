"""`python -m export.calibrate`: ranges for INT8 from photographs, committed in export/precision/ranges/.

Three methods derive ranges from one set of histograms and are compared on other photographs of the same folder. The
best is chosen; the results of all three stay in the file, and the report shows them. A network with residual streams is
equalised first, and as few of its last streams stay in float32 as its error allows.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from export.calibrate import command_parser, selected
from export.calibrate.rules import compare_methods, split_samples
from export.context import ExportContext
from export.errors import exit_code
from export.models import get_model
from export.options import ExportOptions
from export.precision import calibration
from export.stages.convert import calibrated_ranges


def main(arguments: Sequence[str] | None = None) -> int:
    """Calibrate and write the ranges; return 0, or 2 with one sentence on stderr that says what is wrong."""
    parser = command_parser("export.calibrate", __doc__.split("\n\n")[0])
    parser.add_argument("--pictures", type=Path, required=True, metavar="DIR", help="at least 320 photographs of faces")
    parser.add_argument("--about", default="photographs of faces", help="what the pictures are, for the report")
    parser.add_argument("--keep-float", nargs="*", default=[], metavar="NODE", help="nodes to leave in float32")
    options = parser.parse_args(arguments)
    return exit_code(lambda: _calibrate(options))


def _calibrate(options: argparse.Namespace) -> None:
    context = ExportContext.printing(ExportOptions())
    samples, validation = split_samples(options.pictures, context)
    for name in selected(options.network):
        model = get_model(name)
        float32_graph = context.float32_graph(name, None)
        ranges = calibrated_ranges(model, float32_graph, samples, options.about, context)
        ranges.keep_float = list(options.keep_float)
        compare_methods(model, ranges, validation, context)
        path = calibration.FOLDER / f"{name}.json"
        ranges.save(path)
        context.say(f"{path}: {ranges.chosen}, {ranges.samples} faces, {len(ranges.bounds[ranges.chosen])} tensors")


if __name__ == "__main__":
    sys.exit(main())
