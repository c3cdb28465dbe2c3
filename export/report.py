"""`python -m export.report`: every network in every precision, measured in one run, as docs/export-report.md.

Size, nodes, time in one process as a ratio to float32, errors against float32 and the gate's verdict, with one plot.
A variant that its gate refuses is reported like the others: that is what the gate is for.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

import onnx

from export import calibration, gate
from export.build import TOOLS, Order, Workshop, ranges
from export.detector.parity import load_picture, pictures_in
from export.errors import ExportError
from export.fp16 import to_fp16
from export.int8 import Scheme, to_int8
from export.networks import NETWORKS, ROOT
from export.samples import samples_of
from export.session import Session, median_seconds
from export.surgery import Size

VARIANTS = ("fp32", "fp16", "int8 u8s8", "int8 s8s8")
PICTURES = 48
"""At most so many photographs judge the variants."""


@dataclass(frozen=True)
class Row:
    """One variant of one network."""

    network: str
    variant: str
    size: Size
    ratio: float
    verdict: gate.Verdict


def rows_of(name: str, workshop: Workshop, rounds: int) -> list[Row]:
    """Measure all variants of one network, taking turns so that other load meets all alike."""
    plain = workshop.plain(name, None)
    made = ranges(name, plain, workshop.order, workshop)
    bounds = made.bounds[made.chosen]
    graphs: dict[str, onnx.ModelProto] = {
        "fp32": plain,
        "fp16": to_fp16(plain),
        "int8 u8s8": to_int8(plain, bounds, Scheme.U8S8, made.keep_float),
        "int8 s8s8": to_int8(plain, bounds, Scheme.S8S8, made.keep_float),
    }
    feeds = workshop.feeds(name, workshop.samples)
    seconds = median_seconds({variant: Session(graph) for variant, graph in graphs.items()}, feeds[0], rounds)
    rows = []
    for variant, graph in graphs.items():
        if variant == "fp32":
            verdict = gate.judge_itself(graph, feeds)
        else:
            verdict = gate.judge(name, plain, graph, feeds, timed=False)
        ratio = seconds[variant] / seconds["fp32"]
        rows.append(Row(name, variant, Size.of(graph), ratio, verdict))
        workshop.say(f"{name}: {variant}: {ratio:.2f} of the time, {verdict}")
    return rows


def decision(row: Row) -> str:
    """What the exporter does with a variant."""
    if not row.verdict.passed:
        return "refused"
    if row.variant == "fp32":
        return "reference"
    if row.variant == "int8 u8s8":
        return "CPU" if row.ratio <= 0.95 else "refused (not faster)"
    return "TensorRT"


def markdown(rows: Sequence[Row], source: str, traced: dict[str, Size]) -> str:
    """The report as a page."""
    lines = [
        "# Export report",
        "",
        "Written by `make report` (`python -m export.report`). Errors are against float32 in ONNX Runtime; the time is",
        "the median of one run in one process as a ratio to float32 of the same network, taken in turns. Graphs marked",
        "TensorRT are what plans are built from; their time here says nothing about a GPU.",
        "",
        f"- samples: {source}",
        f"- machine: {_processor()}, {os.cpu_count()} logical cores, {platform.system()}",
        f"- {', '.join(f'{tool} {installed(tool)}' for tool in TOOLS)}",
        "",
        "| network | variant | MB | nodes | time | for | what the gate saw |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.network} | {row.variant} | {row.size.bytes / 1e6:.1f} | {row.size.nodes} | {row.ratio:.2f} "
        f"| {decision(row)} | {row.verdict} |"
        for row in rows
    ]
    lines += ["", "![Time and size of the variants](export-report.png)", "", "## Surgery", ""]
    lines += ["| network | nodes as traced | nodes after | MB as traced | MB after |", "|---|---|---|---|---|"]
    for row in rows:
        if row.variant == "fp32":
            before = traced[row.network]
            lines.append(
                f"| {row.network} | {before.nodes} | {row.size.nodes} | {before.bytes / 1e6:.1f} "
                f"| {row.size.bytes / 1e6:.1f} |"
            )
    return "\n".join([*lines, "", *_calibration(), ""])


def _calibration() -> list[str]:
    lines = ["## Calibration", ""]
    for name in NETWORKS:
        path = calibration.FOLDER / f"{name}.json"
        if not path.is_file():
            continue
        made = calibration.Ranges.load(path)
        lines += [f"{name}: {made.source}; chosen: **{made.chosen}**.", ""]
        if made.comparison:
            names = list(next(iter(made.comparison.values())))
            lines += [f"| rule | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
            for method, values in made.comparison.items():
                lines.append(f"| {method} | {' | '.join(f'{values[key]:.4g}' for key in names)} |")
            lines.append("")
        lines += _sensitivity(name, made.keep_float)
    return lines


def _sensitivity(name: str, kept: Sequence[str]) -> list[str]:
    path = calibration.FOLDER / f"{name}-sensitivity.json"
    if not path.is_file():
        return []
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    lines = [f"Layers of the {name} that cost most when they alone run in INT8 ({content['error']}):", ""]
    lines += ["| layer | weights | error | share |", "|---|---|---|---|"]
    lines += [
        f"| {row['node']} | {'x'.join(map(str, row['weights']))} | {row['error']:.4g} | {row['share']:.1%} |"
        for row in content["layers"][:8]
    ]
    left = ", ".join(kept) if kept else "the heads only: no single layer stands out enough to pay for leaving it"
    return [*lines, "", f"Left in float32: {left}.", ""]


def plot(rows: Sequence[Row], path: Path) -> None:
    """Bars of time and size relative to float32, one group a network."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    networks = list(dict.fromkeys(row.network for row in rows))
    figure, axes = pyplot.subplots(1, 2, figsize=(10, 3.4), layout="constrained")
    colours = ("#7f7f7f", "#4c78a8", "#54a24b", "#e6a13a")
    for axis, title in zip(axes, ("time in one process, CPU", "size of the file"), strict=True):
        for index, variant in enumerate(VARIANTS):
            chosen = [row for row in rows if row.variant == variant]
            largest = {row.network: row.size.bytes for row in rows if row.variant == "fp32"}
            values = [row.ratio if "time" in title else row.size.bytes / largest[row.network] for row in chosen]
            places = [networks.index(row.network) + (index - 1.5) * 0.2 for row in chosen]
            bars = axis.bar(places, values, 0.19, color=colours[index], label=variant)
            axis.bar_label(bars, [f"{value:.2f}" for value in values], fontsize=7)
        axis.set_xticks(range(len(networks)), networks)
        axis.set_title(f"{title}, fp32 = 1", fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    vnni = any("vnni" in line for line in lines if line.startswith("flags"))
    return f"{names[0] if names else platform.machine()} ({'with' if vnni else 'without'} VNNI)"


def main(arguments: Sequence[str] | None = None) -> int:
    """0: written; 2: one sentence on stderr says what is wrong."""
    parser = argparse.ArgumentParser(prog="python -m export.report", description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "--pictures", type=Path, metavar="DIR", help="photographs to judge with (default: two portraits)"
    )
    parser.add_argument("--rounds", type=int, default=7, help="runs that are timed (default: 7)")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "export-report.md", metavar="FILE")
    options = parser.parse_args(arguments)
    start = time.monotonic()
    workshop = Workshop(Order(), lambda line: print(f"[{time.monotonic() - start:5.1f} s] {line}", flush=True))
    source = "two public-domain portraits and variations of them"
    try:
        if options.pictures is not None:
            files = pictures_in(options.pictures, PICTURES)
            workshop.samples = samples_of(((f.name, load_picture(f)) for f in files), workshop.find)
            source = f"{len(workshop.samples)} photographs of the folder '{options.pictures.name}'"
            if not workshop.samples:
                raise ExportError(f"There is no face beyond doubt in the pictures of {options.pictures}.")
        rows: list[Row] = []
        for name in NETWORKS:
            rows += rows_of(name, workshop, options.rounds)
    except ExportError as error:
        print(error, file=sys.stderr)
        return 2
    options.output.parent.mkdir(parents=True, exist_ok=True)
    page = markdown(rows, source, workshop.traced)
    options.output.write_text(page, encoding="utf-8")
    plot(rows, options.output.with_suffix(".png"))
    print(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
