"""`python -m export.calibrate`: ranges for INT8 from photographs, kept in export/precision/ranges/ and committed.

Three rules are derived from one set of histograms and compared on other photographs of the same folder. The best is
chosen; the numbers of all three stay in the file, and the report shows them. A network with residual streams is
equalised first, and as few of its last streams are left in float32 as its error allows.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from export.calibrate import CALIBRATED
from export.calibrate.rules import compare_rules, split_samples
from export.context import ExportContext
from export.models import get_model
from export.options import ExportOptions
from export.precision import calibration
from export.stages.convert import calibrated_ranges
from networks.errors import NetworkError


def main(arguments: Sequence[str] | None = None) -> int:
    """0: written; 2: one sentence on stderr says what is wrong."""
    parser = argparse.ArgumentParser(prog="python -m export.calibrate", description=__doc__.split("\n\n")[0])
    parser.add_argument("network", choices=[*CALIBRATED, "all"])
    parser.add_argument("--pictures", type=Path, required=True, metavar="DIR", help="at least 320 photographs of faces")
    parser.add_argument("--about", default="photographs of faces", help="what the pictures are, for the report")
    parser.add_argument("--keep-float", nargs="*", default=[], metavar="NODE", help="nodes to leave in float32")
    options = parser.parse_args(arguments)
    context = ExportContext.printing(ExportOptions())
    try:
        samples, judges = split_samples(options.pictures, context)
        for name in CALIBRATED if options.network == "all" else [options.network]:
            model = get_model(name)
            float32_graph = context.float32_graph(name, None)
            made = calibrated_ranges(model, float32_graph, samples, options.about, context)
            made.keep_float = list(options.keep_float)
            compare_rules(model, made, judges, context)
            path = calibration.FOLDER / f"{name}.json"
            made.save(path)
            context.say(f"{path}: {made.chosen}, {made.samples} faces, {len(made.bounds[made.chosen])} tensors")
    except NetworkError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
