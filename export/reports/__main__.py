"""`python -m export.reports`: measure every precision of every network and write docs/export-report.md with one plot.

For each network and precision: size, nodes, time in one process as a ratio to float32, errors against float32, and the
gate's verdict; refused variants are reported as well. Then the served INT8 chain, regressor and texture one after the
other, against the same chain in float32. A machine with VNNI measures all this a second time with VNNI hidden
(`export/reports/without_vnni.py`), where it can.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from export.context import ExportContext
from export.options import ROOT, ExportOptions
from export.reports import page
from export.reports.measure import JUDGED, faces_in, measured, measured_without_vnni
from networks.errors import NetworkError
from server.arguments import whole_number


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and write the report; return 0, or 2 with one sentence on stderr that says what is wrong."""
    parser = argparse.ArgumentParser(prog="python -m export.reports", description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "--pictures",
        type=Path,
        nargs="+",
        metavar="DIR",
        help="photographs that judge (default: two built-in portraits)",
    )
    parser.add_argument(
        "--limit", type=whole_number(1), default=100, metavar="N", help="at most so many of them (default: 100)"
    )
    parser.add_argument("--about", default="photographs", help="what the pictures are, for the page")
    parser.add_argument("--chain", action="store_true", help="only print the INT8 chain against float32; write nothing")
    parser.add_argument("--rounds", type=whole_number(1), default=11, help="runs that are timed (default: 11)")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "export-report.md", metavar="FILE")
    parser.add_argument("--into", type=Path, metavar="FILE", help="only write the measurements, as JSON")
    options = parser.parse_args(arguments)
    context = ExportContext.printing(ExportOptions())
    try:
        if options.pictures is None:
            samples = context.samples
            source = f"{len(samples)} faces: two public-domain portraits and variations of them"
        else:
            samples = faces_in(options.pictures, options.limit, context.detect_faces)
            source = f"{len(samples)} {options.about}"
        here = measured(samples, context, options.rounds, options.chain)
        if options.into:
            here.save(options.into)
            return 0
        everywhere = [here, *measured_without_vnni(sys.argv[1:] if arguments is None else arguments, context)]
    except NetworkError as error:
        print(error, file=sys.stderr)
        return 2
    if options.chain:
        print(f"INT8 chain against float32, {source}:")
        print("\n".join(line for kind in everywhere for line in page.chain_table(kind)))
        return 0
    text = page.markdown(everywhere, source, min(JUDGED, len(samples)), context.traced)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(text, encoding="utf-8")
    page.plot(here, options.output.with_suffix(".png"))
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
