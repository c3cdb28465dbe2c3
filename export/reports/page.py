"""The page and the plot of `python -m export.reports`."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from export.graph import Size
from export.models import MODEL_NAMES, get_model
from export.precision import calibration
from export.reports.results import Measured, Row
from export.stages.write import sha256, tool_versions
from server.backends.onnxruntime.integer_products import products_are_exact

SENSITIVITY = Path(__file__).parent / "sensitivity"
VARIANTS = ("fp32", "fp16", "int8 u8s8", "int8 s8s8")
COLOURS = ("#7f7f7f", "#4c78a8", "#54a24b", "#e6a13a")


def markdown(measured: Sequence[Measured], source: str, judged: int, traced: dict[str, Size]) -> str:
    """Format the report in Markdown.

    Args:
        measured: on each kind of processor, this machine's first.
        source: description of the pictures that judged.
        judged: number of them that judged the variants.
        traced: network -> size before surgery.
    """
    rows = measured[0].rows
    lines = [
        "# Export report",
        "",
        "Written by `make report` (`python -m export.reports`). Errors are against float32 in ONNX Runtime. The time",
        "is the median of one run in one process as a ratio to float32 of the same network, taken in turns. Graphs",
        "marked TensorRT are what plans are built from: their time here says nothing about a GPU, and no plan has been",
        "built.",
        "",
        f"- Judged on: {source} (the first {judged} for each variant, of textures those of one size; all for the",
        "  chain).",
        *calibrated_with(),
        f"- Machine: {measured[0].processor}, {len(os.sched_getaffinity(0))} of its cores used, {platform.system()}.",
        *_hidden(measured),
        f"- {', '.join(f'{tool} {version}' for tool, version in tool_versions().items())}.",
        "",
        "![Time, size and vertex differences](export-report.png)",
        "",
        "## Variants",
        "",
        *_variants(measured),
    ]
    lines += ["## Errors against float32", ""]
    for name in MODEL_NAMES:
        lines += [*_errors(name, measured), ""]
    lines += [
        "## INT8 as it is served",
        "",
        "Regressor and texture in U8S8 one after the other against the same in float32, so that the texture is sampled",
        f"by the INT8 shape. {source}.",
        "",
        *(line for kind in measured for line in chain_table(kind)),
    ]
    return "\n".join([*lines, *_surgery(rows, traced), "", *_calibration()])


def _surgery(rows: Sequence[Row], traced: dict[str, Size]) -> list[str]:
    """Format the sizes before and after graph surgery."""
    lines = [
        "## Surgery",
        "",
        "| network | nodes as traced | nodes after | MB as traced | MB after |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        if row.variant == "fp32":
            before = traced[row.network]
            lines.append(
                f"| {row.network} | {before.nodes} | {row.size.nodes} | {before.bytes / 1e6:.1f} "
                f"| {row.size.bytes / 1e6:.1f} |"
            )
    return lines


def calibrated_with() -> list[str]:
    """List the pictures that calibrated each network, which must not be among those that judge."""
    lines = []
    for name in MODEL_NAMES:
        ranges = calibration.committed_ranges(name, sha256(get_model(name).weights))
        source = ranges.source if ranges else "variations of two public-domain portraits, for want of photographs"
        lines.append(f"- INT8 ranges of the {name}: {source}.")
    return lines


def _variants(measured: Sequence[Measured]) -> list[str]:
    """Format size, time on each kind of processor, and verdict of every variant."""
    times = [{(row.network, row.variant): row.ratio for row in kind.rows} for kind in measured]
    kinds = [kind.vnni for kind in measured]
    lines = [
        f"| network | variant | MB | nodes | {' | '.join(f'time {kind}' for kind in kinds)} | verdict |",
        "|---" * (5 + len(kinds)) + "|",
    ]
    for row in measured[0].rows:
        ratios = " | ".join(f"{ratios[row.network, row.variant]:.2f}" for ratios in times)
        lines.append(
            f"| {row.network} | {row.variant} | {row.size.bytes / 1e6:.1f} | {row.size.nodes} | {ratios} "
            f"| {_decision(row, measured)} |"
        )
    return [
        *lines,
        "",
        "U8S8 is for CPUs, FP16 and S8S8 for TensorRT. U8S8's weights are so small (7 bits) that no product saturates",
        "on any x86 processor (`export/precision/saturation.py`); S8S8's have 8 bits, and are judged by exact kernels.",
        "Verdicts here are on the pictures named above; the exporter's own gate looks at two portraits and variations",
        "of them, and may decide otherwise.",
        "",
    ]


def _hidden(measured: Sequence[Measured]) -> list[str]:
    """Describe how a second kind of processor was simulated."""
    return [
        f"- Figures {kind.vnni}: the same processor, with VNNI and AVX-512 hidden from the program, which then runs "
        "ONNX Runtime's AVX2 kernels at full speed (`export/reports/without_vnni.py`)."
        for kind in measured[1:]
    ]


def _decision(row: Row, measured: Sequence[Measured]) -> str:
    """Return the exporter's decision on a variant; where processors differ, the one on each."""
    decisions = {
        kind.vnni: other.decision
        for kind in measured
        for other in kind.rows
        if (other.network, other.variant) == (row.network, row.variant)
    }
    if len(set(decisions.values())) == 1:
        return row.decision
    return ", ".join(f"{kind}: {decision}" for kind, decision in decisions.items())


def _errors(name: str, measured: Sequence[Measured]) -> list[str]:
    """Format the criteria of a network's variants; those of the variant for CPUs on each kind of processor."""
    columns = [
        (row.variant if row.variant != "int8 u8s8" else f"int8 u8s8, {kind.vnni}", row)
        for variant in VARIANTS[1:]
        for kind in (measured if variant == "int8 u8s8" else measured[:1])
        for row in kind.rows
        if row.network == name and row.variant == variant
    ]
    rows = [row for _, row in columns]
    lines = [
        f"| {name} | {' | '.join(title for title, _ in columns)} | bound |",
        "|---" * (len(columns) + 2) + "|",
    ]
    for index, criterion in enumerate(rows[0].verdict.criteria):
        criteria = [row.verdict.criteria[index] for row in rows]
        marks = ["" if c.bound == criterion.bound else " (not judged)" for c in criteria]
        values = " | ".join(f"{c.value:.4g}{mark}" for c, mark in zip(criteria, marks, strict=True))
        bound = "" if criterion.bound is None else f"{criterion.sense} {criterion.bound:g}"
        lines.append(f"| {criterion.name} | {values} | {bound} |")
    return lines


def chain_table(measured: Measured) -> list[str]:
    """Format the chain's means with bounds and verdicts, and the spread over the faces."""
    chain = measured.chain
    lines = [f"| {measured.vnni} | mean | bound | median | 95 % of the faces | worst |", "|---|---|---|---|---|---|"]
    spreads = ((chain.head, 95), (chain.camera, 95), (chain.similarity, 5), (chain.squared, 95))
    for criterion, (values, percent) in zip(chain.criteria(), spreads, strict=True):
        bound = "" if criterion.bound is None else f"{criterion.sense} {criterion.bound:g}: "
        bound += "" if criterion.bound is None else ("held" if criterion.passed else "**not held**")
        extreme = values.max() if percent == 95 else values.min()
        lines.append(
            f"| {criterion.name} | {criterion.value:.4g} | {bound} | {np.median(values):.4g} "
            f"| {np.percentile(values, percent):.4g} | {extreme:.4g} |"
        )
    return [*lines, ""]


def _calibration() -> list[str]:
    lines = ["## Calibration", ""]
    for name in MODEL_NAMES:
        path = calibration.FOLDER / f"{name}.json"
        if not path.is_file():
            continue
        ranges = calibration.Ranges.load(path)
        lines += [f"{name}: {ranges.source}; rules compared on {ranges.judged}; chosen: **{ranges.chosen}**.", ""]
        if ranges.comparison:
            names = list(next(iter(ranges.comparison.values())))
            lines += [f"| rule | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
            for method, values in ranges.comparison.items():
                lines.append(f"| {method} | {' | '.join(f'{values[key]:.4g}' for key in names)} |")
            lines.append("")
        if ranges.shifts:
            lines += [f"Channels inside {len(ranges.shifts)} bottleneck layers equalised by powers of two.", ""]
        lines += _sensitivity(name, _kept(ranges))
    return lines


def _sensitivity(name: str, kept: Sequence[str]) -> list[str]:
    path = SENSITIVITY / f"{name}.json"
    if not path.is_file():
        return []
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    lines = [f"Layers of the {name} that cost most when they alone run in INT8 ({content['error']}):", ""]
    lines += ["| layer | weights | error | share |", "|---|---|---|---|"]
    lines += [
        f"| {row['node']} | {'x'.join(map(str, row['weights']))} | {row['error']:.4g} | {row['share']:.1%} |"
        for row in content["layers"][:8]
    ]
    return [*lines, "", f"Left in float32: {', '.join(kept)}.", ""]


def _kept(ranges: calibration.Ranges) -> list[str]:
    """List what stays in float32."""
    kept = ["small heads", "all arithmetic outside the network (pixels, decode, projection)", *ranges.keep_float]
    if ranges.streams:
        kept.append(f"the last {ranges.streams} residual stream(s), whose convolutions are integer products in U8S8")
    return kept


def plot(measured: Measured, path: Path) -> None:
    """Plot time and size relative to float32, and the vertex differences of all faces."""
    rows, chain = measured.rows, measured.chain
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    networks = list(dict.fromkeys(row.network for row in rows))
    figure, axes = pyplot.subplots(1, 3, figsize=(13, 3.6), layout="constrained")
    largest = {row.network: row.size.bytes for row in rows if row.variant == "fp32"}
    for axis, title in zip(axes[:2], (f"time in one process, CPU {measured.vnni}", "size of the file"), strict=True):
        for index, variant in enumerate(VARIANTS):
            chosen = [row for row in rows if row.variant == variant]
            values = [row.ratio if "time" in title else row.size.bytes / largest[row.network] for row in chosen]
            positions = [networks.index(row.network) + (index - 1.5) * 0.2 for row in chosen]
            bars = axis.bar(positions, values, 0.19, color=COLOURS[index], label=variant)
            axis.bar_label(bars, [f"{value:.2f}" for value in values], fontsize=7)
        axis.set_xticks(range(len(networks)), networks)
        axis.set_title(f"{title}, fp32 = 1", fontsize=10)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower left", ncol=4, frameon=False, fontsize=8)
    share = np.arange(1, len(chain.head) + 1) / len(chain.head) * 100
    axes[2].step(np.sort(chain.head), share, where="post", color=COLOURS[2], label="head frame")
    axes[2].step(np.sort(chain.camera), share, where="post", color=COLOURS[3], label="camera frame")
    axes[2].axvline(0.3, color="#c44e52", linewidth=1, linestyle="--", label="bound of the mean, head frame")
    axes[2].set_xscale("log")
    axes[2].set_xlabel("mean vertex difference of a face, mm", fontsize=8)
    axes[2].set_title("INT8 chain against fp32: % of the faces below", fontsize=10)
    axes[2].legend(frameon=False, fontsize=8)
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def processor() -> str:
    """Return the processor's name, and whether ONNX Runtime finds VNNI in it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()} ({vnni()})"


def vnni() -> str:
    """Tell whether integer products are exact in ONNX Runtime's kernels for this processor."""
    return "with VNNI" if products_are_exact() else "without VNNI"
