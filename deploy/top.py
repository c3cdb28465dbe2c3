"""`make top`: what the server is doing, as a table in the terminal, from two reads of its metrics page.

Rates and means are of the time between the two reads; quantiles are the server's own (its summaries over the last
minute); totals are since its start. `--once` prints one table and ends, `--json` prints it for other programs.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from deploy.exposition import parse, scrape
from server.arguments import positive_number

# Labels that tell one model from another; what other labels split is added up.
_QUANTILES = ("0.5", "0.95", "0.99")
Key = tuple[str, str]  # metric, model


@dataclass(frozen=True)
class Page:
    """One read of the page.

    Attributes:
        at: seconds, of a clock that only runs forward.
        values: (metric, model) -> value, summed over versions and other labels.
        quantiles: model -> quantile -> request latency in seconds over the server's recent window.
        versions: model -> the versions that have metrics, ascending.
        failures: (model, reason) -> failed requests in Triton's words.
        refused: (step, reason) -> requests refused by the models, reasons as the client's exceptions are called.
    """

    at: float
    values: Mapping[Key, float]
    quantiles: Mapping[str, Mapping[str, float]]
    versions: Mapping[str, Sequence[str]]
    failures: Mapping[Key, float]
    refused: Mapping[Key, float]

    @staticmethod
    def read(text: str, at: float) -> Page:
        """Take a page apart."""
        values: dict[Key, float] = defaultdict(float)
        quantiles: dict[str, dict[str, float]] = defaultdict(dict)
        versions: dict[str, set[str]] = defaultdict(set)
        failures: dict[Key, float] = defaultdict(float)
        refused: dict[Key, float] = defaultdict(float)
        for sample in parse(text):
            labels, model = sample.labels, sample.labels.get("model", "")
            if sample.name == "nv_inference_request_summary_us" and "quantile" in labels:
                # Two versions side by side: the slower one is what somebody is waiting for.
                known = quantiles[model].get(labels["quantile"], -math.inf)
                if not math.isnan(sample.value):
                    quantiles[model][labels["quantile"]] = max(known, sample.value / 1e6)
            elif sample.name == "nv_inference_request_failure":
                failures[model, labels.get("reason", "")] += sample.value
            elif sample.name == "face3d_refused_total":
                refused[labels.get("step", ""), labels.get("reason", "")] += sample.value
            else:
                values[sample.name, model] += sample.value
            if sample.name == "nv_inference_count":
                versions[model].add(labels.get("version", ""))
        ordered = {model: sorted(found, key=lambda v: (len(v), v)) for model, found in versions.items()}
        return Page(at, values, quantiles, ordered, failures, refused)


@dataclass(frozen=True)
class Row:
    """One model between two reads; None where nothing happened that a number could be made of.

    Attributes:
        model: its name.
        versions: those that serve.
        throughput: requests answered a second.
        failed: requests that failed a second.
        mean: mean latency in seconds.
        p50, p95, p99: the server's own quantiles of latency, seconds.
        batch: mean number of rows in one execution.
        queue_compute: time in the queue over time computing.
        pending: requests that wait now.
        total: requests answered since the start.
    """

    model: str
    versions: tuple[str, ...]
    throughput: float
    failed: float
    mean: float | None
    p50: float | None
    p95: float | None
    p99: float | None
    batch: float | None
    queue_compute: float | None
    pending: int
    total: int


@dataclass(frozen=True)
class Board:
    """All rows, and the errors a second by (model or step, reason)."""

    seconds: float
    rows: tuple[Row, ...]
    errors: Mapping[str, float] = field(default_factory=dict)


def compare(before: Page, after: Page) -> Board:
    """Return what happened between two reads of one server's page.

    A counter that went backwards means that the server was started anew: then everything it shows counts.
    """
    seconds = max(after.at - before.at, 1e-9)

    def grown(name: str, model: str) -> float:
        now = after.values.get((name, model), 0.0)
        delta = now - before.values.get((name, model), 0.0)
        return now if delta < 0 else delta

    def ratio(top: float, bottom: float, scale: float = 1.0) -> float | None:
        return top / bottom * scale if bottom > 0 else None

    def change(old: Mapping[Key, float], new: Mapping[Key, float]) -> dict[Key, float]:
        steps = {key: value - old.get(key, 0.0) for key, value in new.items()}
        return {key: (new[key] if step < 0 else step) / seconds for key, step in steps.items()}

    failed = change(before.failures, after.failures)
    rows = []
    for model in sorted(after.versions):
        done = grown("nv_inference_request_success", model)
        quantiles = after.quantiles.get(model, {})
        rows.append(
            Row(
                model=model,
                versions=tuple(after.versions[model]),
                throughput=done / seconds,
                failed=sum(value for (name, _), value in failed.items() if name == model),
                mean=ratio(grown("nv_inference_request_duration_us", model), done, 1e-6),
                p50=quantiles.get(_QUANTILES[0]),
                p95=quantiles.get(_QUANTILES[1]),
                p99=quantiles.get(_QUANTILES[2]),
                batch=ratio(grown("nv_inference_count", model), grown("nv_inference_exec_count", model)),
                queue_compute=ratio(
                    grown("nv_inference_queue_duration_us", model),
                    grown("nv_inference_compute_infer_duration_us", model),
                ),
                pending=int(after.values.get(("nv_inference_pending_request_count", model), 0)),
                total=int(after.values.get(("nv_inference_request_success", model), 0)),
            )
        )
    errors = {
        f"{where} {reason}": rate
        for (where, reason), rate in {**failed, **change(before.refused, after.refused)}.items()
        if rate > 0
    }
    return Board(seconds, tuple(rows), dict(sorted(errors.items(), key=lambda item: -item[1])))


def _number(value: float | None, digits: int = 1, scale: float = 1.0) -> str:
    return "-" if value is None or math.isnan(value) else f"{value * scale:.{digits}f}"


def drawn(board: Board, address: str) -> Group:
    """Return the board as tables for a terminal."""
    table = Table(title=f"{address}, last {board.seconds:.1f} s", title_justify="left")
    for name in ("model", "version"):
        table.add_column(name, no_wrap=True)
    for name in ("answers/s", "errors/s", "mean ms", "p50", "p95", "p99", "batch", "queue/compute", "waiting", "total"):
        table.add_column(name, justify="right")
    for row in board.rows:
        table.add_row(
            row.model,
            ", ".join(row.versions),
            _number(row.throughput),
            Text(_number(row.failed), style="red" if row.failed > 0 else ""),
            *(_number(value, 0, 1000) for value in (row.mean, row.p50, row.p95, row.p99)),
            _number(row.batch),
            # From 0.5 on for five minutes there is an alert (deploy/monitoring/rules).
            Text(_number(row.queue_compute, 2), style="yellow" if (row.queue_compute or 0) > 0.5 else ""),
            str(row.pending),
            str(row.total),
        )
    errors = Table(title="errors a second, by where and why", title_justify="left")
    errors.add_column("what")
    errors.add_column("per second", justify="right")
    for what, rate in board.errors.items():
        errors.add_row(what, _number(rate, 2))
    return Group(table, errors) if board.errors else Group(table, Text("no errors", style="dim"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0, or 1 and one sentence when the page cannot be read."""
    parser = argparse.ArgumentParser(prog="python -m deploy.top", description=(__doc__ or "").partition("\n\n")[0])
    default = os.environ.get("FACE3D_METRICS", "127.0.0.1:8002")
    parser.add_argument("--metrics", default=default, metavar="HOST:PORT", help=f"metrics page (default {default})")
    parser.add_argument(
        "--interval", type=positive_number(3600), default=2.0, metavar="S", help="seconds between reads (default 2)"
    )
    parser.add_argument("--once", action="store_true", help="two reads, one table, and end")
    parser.add_argument("--json", action="store_true", help="as --once, in JSON")
    options = parser.parse_args(arguments)
    # A pipe has no width of its own: enough for every column.
    console = Console(width=None if sys.stdout.isatty() else 140)

    def read() -> Page:
        return Page.read(scrape(options.metrics), time.monotonic())

    try:
        before = read()
        if options.once or options.json:
            time.sleep(options.interval)
            board = compare(before, read())
            if options.json:
                print(json.dumps(asdict(board), indent=1))
            else:
                console.print(drawn(board, options.metrics))
            return 0
        with Live(drawn(compare(before, before), options.metrics), console=console, auto_refresh=False) as live:
            while True:
                time.sleep(options.interval)
                after = read()
                live.update(drawn(compare(before, after), options.metrics), refresh=True)
                before = after
    except KeyboardInterrupt:
        return 0
    except (OSError, ValueError) as error:
        print(f"error: the metrics page at {options.metrics} cannot be read: {error}.", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
