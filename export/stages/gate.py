"""Stage 4, the quality gate: compare a variant with float32 before it may enter the repository.

Every criterion is a number with a bound; all numbers go into the sidecar and the report. Speed is judged as a ratio
within one run, never in milliseconds.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from export.criteria import Criterion, Verdict
from export.models.base import ExportedModel
from export.precision.saturation import saturating
from export.session import Feed, Session, median_seconds, stack

BATCH = 4
"""Samples of a batch."""
MAX_TIME_RATIO = 0.95
"""Largest time of a variant relative to float32: one that gains less is not worth another file."""


def judge(
    model: ExportedModel,
    float32_graph: onnx.ModelProto,
    variant: onnx.ModelProto,
    feeds: Sequence[Feed],
    timed: bool = True,
    rounds: int = 7,
    any_x86: bool = True,
) -> Verdict:
    """Run float32 and the variant on the same samples and judge the variant.

    Integer products that cannot saturate give the same sums on every processor, so errors measured on this one hold on
    all.

    Args:
        model: which of the repository's models the graphs are.
        float32_graph, variant: graphs with the same interface.
        feeds: single samples.
        timed: also require the variant to be faster, and run both as this machine would serve them. False for graphs of
            another target, which run with kernels that do not saturate.
        rounds: timed runs.
        any_x86: also require that no integer product can saturate on a processor without VNNI.
    """
    graphs = {"fp32": float32_graph, "variant": variant}
    sessions = {
        name: model.served_session(graph) if timed else Session(graph, exact=True) for name, graph in graphs.items()
    }
    runs: dict[str, list[Feed]] = {name: [] for name in sessions}
    batches = [stack(feeds[i : i + BATCH]) for i in range(0, len(feeds), BATCH)]
    for batch in batches:
        for name, session in sessions.items():
            runs[name].append(session(batch))
    criteria = model.compare(stack(runs["fp32"]), stack(runs["variant"]), stack(batches))
    criteria.append(Criterion("values that are not finite", float(_not_finite(runs["variant"])), 0))
    criteria.append(exactness(variant, any_x86))
    if timed:
        criteria += _speed(sessions, feeds[0], rounds)
    return Verdict(tuple(criteria))


def exactness(graph: onnx.ModelProto, any_x86: bool = True) -> Criterion:
    """Count the products of a graph that can saturate without VNNI; ``any_x86``: none may."""
    count = len(saturating(graph))
    return Criterion("products that can saturate without VNNI", float(count), 0 if any_x86 else None)


def speed(
    model: ExportedModel, float32_graph: onnx.ModelProto, variant: onnx.ModelProto, feed: Feed, rounds: int = 7
) -> Verdict:
    """Measure only the speed of a variant, in turns with float32: one that is too slow need not be calibrated."""
    sessions = {"fp32": model.served_session(float32_graph), "variant": model.served_session(variant)}
    return Verdict(tuple(_speed(sessions, feed, rounds)))


def _speed(sessions: Mapping[str, Session], feed: Feed, rounds: int) -> list[Criterion]:
    seconds = median_seconds(sessions, feed, rounds)
    return [
        Criterion("time against fp32", seconds["variant"] / seconds["fp32"], MAX_TIME_RATIO),
        Criterion("fp32 ms", seconds["fp32"] * 1000),
    ]


def judge_itself(model: onnx.ModelProto, feeds: Sequence[Feed]) -> Verdict:
    """Judge float32 itself: a result must not depend on other pictures of the batch, and values must be finite."""
    session = Session(model)
    batch = stack(feeds[:BATCH])
    batched = session(batch)
    largest = 0.0
    for index in range(min(BATCH, len(feeds))):
        single = session(feeds[index])
        largest = max(largest, *(_difference(single[name][0], batched[name][index]) for name in single))
    return Verdict(
        (
            Criterion("batch against single, largest relative difference", largest, 1e-2),
            Criterion("values that are not finite", float(_not_finite([batched])), 0),
        )
    )


def lint(model: onnx.ModelProto, feed: Feed) -> str | None:
    """Run `polygraphy check lint`; return its errors, or None when there are none.

    `feed` gives the linter the sizes of the inputs; it would take 1 for a free axis.
    """
    shapes = [f"{name}:[{','.join(str(size) for size in value.shape)}]" for name, value in feed.items()]
    with tempfile.TemporaryDirectory() as folder:
        path, report = Path(folder) / "model.onnx", Path(folder) / "lint.json"
        onnx.save(model, path)
        # The command line is the linter's stable interface; it runs in a process of its own.
        program = "import sys; from polygraphy.tools import main; sys.exit(main())"
        command = [sys.executable, "-c", program, "check", "lint", str(path), "-o", str(report), "--silent"]
        command += ["--input-shapes", *shapes]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        entries = json.loads(report.read_text())["lint_entries"] if report.is_file() else []
    errors = [entry["message"] for entry in entries if entry["level"] != "warning"]
    if result.returncode == 0 and not errors:
        return None
    return " ".join(errors)[:500] or f"polygraphy ended with exit code {result.returncode}: {result.stderr[-300:]}"


def _difference(a: NDArray[Any], b: NDArray[Any]) -> float:
    if a.dtype == np.uint8:
        return float(np.mean(np.abs(a.astype(np.int16) - b) > 1))
    scale = max(1.0, float(np.abs(a).max()))
    return float(np.abs(a.astype(np.float64) - b).max()) / scale


def _not_finite(results: Sequence[Feed]) -> int:
    return sum(
        int(np.count_nonzero(~np.isfinite(value)))
        for result in results
        for value in result.values()
        if value.dtype.kind == "f"
    )
