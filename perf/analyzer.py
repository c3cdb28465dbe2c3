"""`python -m perf.analyzer` (`make perf`): NVIDIA's perf_analyzer over every model, protocol and concurrency.

The binary comes from the wheel tritonclient 2.51.0, checked by its hash (perf/perf_analyzer.txt). Inputs are the
tensors between the steps for a real photograph. perf_analyzer requests every output of a model: an ensemble's figures
include the texture file and the preview, which the client requests only on demand.

A figure is measured over a number of requests, not over a time: a window of a second holds too few responses of an
ensemble for perf_analyzer. The number is the last rate times ``--seconds``, and at least `REQUESTS_PER_CONCURRENCY` for
each request in flight.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from export.models import MODEL_NAMES
from perf import samples, store
from server.arguments import positive_number, whole_number
from server.embedded import EmbeddedServer, ServerOptions, on_free_ports
from server.repository import ROOT
from server.runtime import find_runtime

TOOL = ROOT / ".tools" / "perf_analyzer"
PINNED = Path(__file__).with_name("perf_analyzer.txt")
ENSEMBLES = ("face3d", "reconstruct", "detect")
LEAVES = ("preprocess", "detector", "align", "regressor", "parser", "texture", "postprocess")
CONCURRENCIES = (1, 2, 4, 8, 16, 32)
WINDOWS = 3
"""Windows of a figure, the minimum of perf_analyzer; each lasts a second or more."""
REQUESTS_PER_CONCURRENCY = 3
"""Requests of a figure for each one in flight: the first of them meet an idle server."""
MIN_POISSON_REQUESTS = 40
"""Least requests of a figure with random arrivals: their total time is then within a sixth of its expectation."""
INITIAL_RATE = 5.0
"""A rate (requests a second) that every model reaches; gives the number of requests of the first figure."""
# Names by which the binary loads libraries -> their names in the server's wheel.
_LIBRARIES = {"libb64.so.0d": "libb64-*.so.0d", "libcudart.so.12": "libcudart-*.so.12*"}


@dataclass(frozen=True)
class Load:
    """One series of measurements: a model over one protocol."""

    model: str
    protocol: str
    shared_memory: bool = False

    @property
    def name(self) -> str:
        """Return a short name for files and tables."""
        return f"{self.model}-{'shm' if self.shared_memory else self.protocol}"


def loads(models: Sequence[str]) -> list[Load]:
    """List the series: gRPC and HTTP for all models, shared memory for the networks."""
    over_the_wire = [Load(model, protocol) for model in models for protocol in ("grpc", "http")]
    return over_the_wire + [Load(model, "grpc", True) for model in models if model in MODEL_NAMES]


def install() -> Path:
    """Return the path of the binary, installed when it is missing; pip refuses a wheel with another hash."""
    binary = TOOL / "bin" / "perf_analyzer"
    if not binary.is_file():
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-qq", "install"]
        alone = ["--no-deps", "--require-hashes", "--only-binary", ":all:", "--target", str(TOOL), "-r", str(PINNED)]
        subprocess.run([*pip, *alone], check=True)
    binary.chmod(0o755)
    return binary


@contextmanager
def environment() -> Iterator[dict[str, str]]:
    """Provide environment variables with which the binary finds its libraries.

    Raises:
        RuntimeError: a library is missing.
    """
    runtime = find_runtime()
    with tempfile.TemporaryDirectory() as folder:
        for name, pattern in _LIBRARIES.items():
            found = [path for library in runtime.libraries for path in library.glob(pattern)]
            if not found:
                raise RuntimeError(f"{pattern} is not among the server's libraries: run `make setup`.")
            (Path(folder) / name).symlink_to(found[0])
        paths = os.pathsep.join([folder, *map(str, runtime.libraries)])
        yield {**os.environ, "LD_LIBRARY_PATH": paths}


class Analyzer:
    """Runs perf_analyzer against one server."""

    def __init__(self, server: EmbeddedServer, binary: Path, variables: dict[str, str], seconds: float) -> None:
        self._server, self._binary, self._variables, self._seconds = server, binary, variables, seconds
        self.folder = store.FOLDER / "analyzer"
        self._warm: set[str] = set()

    def run(self, load: Load, how: Sequence[str], requests: int, name: str) -> dict[str, float]:
        """Run the binary once and return its row, latencies in milliseconds; its CSV stays in the folder.

        Raises:
            RuntimeError: it failed; the message ends with its output.
        """
        report = self.folder / f"{name}.csv"
        report.unlink(missing_ok=True)  # the call might fail without writing one
        inputs = samples.write(load.model, self.folder / "inputs")
        address = self._server.grpc if load.protocol == "grpc" else self._server.http
        command = [str(self._binary), "-m", load.model, "-u", address, "-i", load.protocol, "-f", str(report)]
        # --request-count would do, but counts the whole second in which the last answer came.
        window = str(-(-requests // WINDOWS))
        command += ["--measurement-mode", "count_windows", "--measurement-request-count", window, "-r", str(WINDOWS)]
        command += ["-s", "999", "-b", "1", "--input-data", str(inputs), *how]
        if load.shared_memory:
            command += ["--shared-memory", "system", "--output-shared-memory-size", str(4 << 20)]
        done = subprocess.run(
            command, env=self._variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        rows = read(report) if report.is_file() else []
        if not rows:
            raise RuntimeError(f"perf_analyzer failed for {load.name}: {' '.join(done.stdout.split()[-60:])}")
        return rows[0]

    def sweep(self, load: Load, concurrencies: Sequence[int]) -> list[dict[str, float]]:
        """Measure throughput and latency for each number of requests in flight."""

        def figure(concurrency: int, rate: float) -> dict[str, float]:
            how = ["--concurrency-range", f"{concurrency}:{concurrency}", "--max-threads", "32", "-a"]
            requests = max(REQUESTS_PER_CONCURRENCY * concurrency, round(rate * self._seconds))
            return self.run(load, how, requests, f"{load.name}-{concurrency}")

        if load.model not in self._warm:
            figure(concurrencies[0], INITIAL_RATE)  # not counted
            self._warm.add(load.model)
        rows: list[dict[str, float]] = []
        for concurrency in concurrencies:
            rows.append(figure(concurrency, rows[-1]["rate"] if rows else INITIAL_RATE))
        return rows

    def highest_rate(self, load: Load, top: float, limit_ms: float, steps: int = 4) -> dict[str, float]:
        """Search the highest rate of Poisson arrivals with a p99 below ``limit_ms``, up to ``top``, by bisection."""
        low, high, best = 0.0, top, {"rate": 0.0, "p99": 0.0}
        for _ in range(steps):
            rate = (low + high) / 2
            how = ["--request-rate-range", f"{rate:.2f}:{rate:.2f}:1", "--request-distribution", "poisson"]
            # Twice as long as elsewhere, as a queue needs time to grow.
            row = self.run(load, how, max(MIN_POISSON_REQUESTS, round(2 * rate * self._seconds)), f"{load.name}-rate")
            # An overloaded server gives fewer responses than requested; below 0.7 that is no chance (2 sigma).
            if row["p99"] <= limit_ms and row["rate"] >= 0.7 * rate:
                low, best = rate, {"rate": row["rate"], "p99": row["p99"]}
            else:
                high = rate
        return best


def read(path: Path) -> list[dict[str, float]]:
    """Read a report: concurrency or requested rate, rate, and p50, p90, p99 and the server's parts in ms."""
    rows = []
    with path.open(newline="") as file:
        for entry in csv.DictReader(file):
            first = next(iter(entry.values()))
            if not first or not first.replace(".", "").isdigit():
                break  # tables of an ensemble's steps follow
            row = {"load": float(first), "rate": float(entry["Inferences/Second"])}
            for key, value in entry.items():
                if key.endswith("latency"):
                    row[key.split()[0]] = float(value) / 1000
                elif key.startswith("Server"):
                    row[key.removeprefix("Server ").lower().replace(" ", "_")] = float(value) / 1000
            rows.append(row)
    return rows


def markdown(series: dict[str, list[dict[str, float]]]) -> str:
    """Format a table: rates over concurrency, p50 at the lowest and p99 at the highest of it."""
    concurrencies = [f"{row['load']:.0f}" for row in max(series.values(), key=len)]
    columns = " | ".join(f"{head} in flight" for head in concurrencies)
    lines = [
        f"| model and protocol | {columns} | p50 at {concurrencies[0]} | p99 at {concurrencies[-1]} |",
        "|---" * (len(concurrencies) + 3) + "|",
    ]
    for name, rows in series.items():
        rates = " | ".join(f"{row['rate']:.1f}" for row in rows)
        lines.append(f"| {name} | {rates} | {rows[0]['p50']:.1f} ms | {rows[-1]['p99']:.0f} ms |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure all series, search the highest rates, print, write `analyzer.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=[*ENSEMBLES, *LEAVES], choices=[*ENSEMBLES, *LEAVES])
    parser.add_argument("--concurrency", nargs="+", type=whole_number(1, 1000), default=list(CONCURRENCIES))
    parser.add_argument(
        "--seconds", type=positive_number(86400), default=2.0, help="approximate duration of a figure (default 2)"
    )
    parser.add_argument(
        "--p99", type=positive_number(), default=1000.0, metavar="MS", help="limit of the request-rate search"
    )
    options = parser.parse_args(arguments)
    series: dict[str, list[dict[str, float]]] = {}
    failed: dict[str, str] = {}
    best: dict[str, Any] = {}
    with environment() as variables, EmbeddedServer(on_free_ports(ServerOptions())) as server:
        analyzer = Analyzer(server, install(), variables, options.seconds)
        for load in loads(options.models):
            try:
                series[load.name] = analyzer.sweep(load, options.concurrency)
                print(f"{load.name}: {[round(row['rate'], 1) for row in series[load.name]]} a second", flush=True)
            except RuntimeError as error:
                failed[load.name] = str(error)
                print(error, file=sys.stderr, flush=True)
        for model in (model for model in options.models if f"{model}-grpc" in series and model in ENSEMBLES):
            top = 1.2 * max(row["rate"] for row in series[f"{model}-grpc"])
            best[model] = {**analyzer.highest_rate(Load(model, "grpc"), top, options.p99), "limit": options.p99}
            print(f"{model}: {best[model]['rate']:.1f} a second with a p99 below {options.p99:.0f} ms", flush=True)
    path = store.save("analyzer", seconds=options.seconds, series=series, highest=best, failed=failed)
    print(f"\n{markdown(series)}\n\nwritten: {path}")
    if failed:
        sys.exit(1)


if __name__ == "__main__":
    main()
