"""`python -m perf.breakdown`: time by stage, its growth with load, size and faces, and its stability.

Parts (all of them by default): ``stages`` (Triton's statistics and its trace), ``concurrency`` (1 to 32 clients),
``sizes`` (0.3 to 24 megapixels), ``faces`` (1 to 16 in a picture), ``batching`` (dynamic batching on against off),
``chained`` (the ensemble against six calls of the client), ``flat`` (16 clients for five minutes).
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from face3d_client import Face3DClient

from perf import analyzer, machine, photos, plots, store
from perf.calls import OUTPUTS, Calls, run_concurrently, settled_statistics, timed
from server.arguments import positive_number, whole_number
from server.embedded import EmbeddedServer, ServerOptions, on_free_ports
from server.repository import DEFAULT_REPOSITORY

LEAVES = analyzer.LEAVES
SIZES = (0.3, 1.0, 3.0, 6.0, 12.0, 24.0)
FACES = (1, 2, 4, 8, 12, 16)
CLIENTS = (1, 2, 4, 8, 16, 32)
# The calls of a client that runs the leaves itself: model -> requested outputs.
CHAIN = {
    "preprocess": ("picture", "canvas", "geometry"),
    "detector": ("faces",),
    "align": ("crop", "crop_hd", "context", "face", "camera", "warnings"),
    "regressor": ("shapes", "fingerprint", "expression", "coefficients", "landmarks"),
    "parser": ("parts",),
    "texture": ("texture", "places"),
    "postprocess": ("mesh",),
}
_INPUTS = {
    "detector": ("canvas", "geometry"),
    "align": ("picture", "geometry", "faces"),
    "regressor": ("crop", "context"),
    "parser": ("crop", "fingerprint"),
    "texture": ("crop_hd", "shapes", "context", "parts"),
    "postprocess": ("texture", "places", "parts", "shapes", "fingerprint", "expression", "context", "crop_hd"),
}


def start(**changes: Any) -> EmbeddedServer:
    """Create a server on free ports; ``changes``: of `ServerOptions`."""
    return EmbeddedServer(on_free_ports(ServerOptions(**changes)))


def portrait_requests(calls: Calls) -> Callable[[int], object]:
    """Return a call that requests the mesh of the picture of that number, in the order of the mix."""
    files = list(photos.mix().values())
    return lambda number: calls.ask("face3d", {"image": files[number % len(files)]}, OUTPUTS)


def stages(seconds: float) -> dict[str, Any]:
    """Measure ms a picture in each model, by Triton's statistics at 1, 4 and 16 clients and its trace at 1."""
    columns: dict[str, dict[str, float]] = {}
    batches: dict[str, dict[str, float]] = {}
    with start() as server:
        calls = Calls(server.grpc)
        run_concurrently(portrait_requests(calls), 4, min(seconds, 2))
        for clients in (1, 4, 16):
            before = settled_statistics(calls.statistics)
            latencies, _ = run_concurrently(portrait_requests(calls), clients, seconds)
            after = settled_statistics(calls.statistics)
            column, sizes = {}, {}
            for model in LEAVES:
                spent = {key: after[model][key] - before[model].get(key, 0.0) for key in after[model]}
                column[model] = sum(value for key, value in spent.items() if key.startswith("compute")) / len(latencies)
                sizes[model] = spent["count"] / max(1.0, spent["runs"])
            queued = sum(after[model]["queue"] - before[model]["queue"] for model in LEAVES) / len(latencies)
            column["waiting in queues"] = queued
            rest = statistics.mean(latencies) * 1000 - sum(column.values())
            column["between steps, network"] = max(0.0, rest)
            columns[f"{clients} clients"], batches[f"{clients} clients"] = column, sizes
    return {"statistics_ms": columns, "mean_batch": batches, "trace_ms": traced(seconds)}


def traced(seconds: float) -> dict[str, float]:
    """Measure the median milliseconds of each step by `--trace-config`, and of the gaps between them."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "trace.json"
        words = ("mode=triton", f"triton,file={file}", "level=TIMESTAMPS", "rate=1", "count=-1")
        with start(extra=tuple(f"--trace-config={word}" for word in words)) as server:
            run_concurrently(portrait_requests(Calls(server.grpc)), 1, seconds)
        return by_step(json.loads(file.read_text()))


def by_step(events: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return model -> median milliseconds, given trace events; ``between steps``: the ensemble's other time."""
    traces: dict[int, dict[str, Any]] = {}
    for event in events:
        trace = traces.setdefault(event["id"], {"times": {}})
        trace.update({key: event[key] for key in ("model_name", "parent_id") if key in event})
        for stamp in event.get("timestamps", []):
            trace["times"][stamp["name"]] = stamp["ns"]
    spans: dict[str, list[float]] = {}
    inside: dict[int, float] = {}
    for trace in traces.values():
        times = trace["times"]
        if "REQUEST_START" in times and "REQUEST_END" in times and "model_name" in trace:
            took = (times["REQUEST_END"] - times["REQUEST_START"]) / 1e6
            spans.setdefault(trace["model_name"], []).append(took)
            if "parent_id" in trace:
                inside[trace["parent_id"]] = inside.get(trace["parent_id"], 0.0) + took
    rest = [
        (traces[parent]["times"]["REQUEST_END"] - traces[parent]["times"]["REQUEST_START"]) / 1e6 - steps
        for parent, steps in inside.items()
        if {"REQUEST_START", "REQUEST_END"} <= set(traces.get(parent, {}).get("times", {}))
    ]
    medians = {model: statistics.median(values) for model, values in spans.items()}
    return {**medians, "between steps": statistics.median(rest)} if rest else medians


def median_ms(call: Callable[[], object], rounds: int) -> float:
    """Return the median milliseconds over ``rounds`` calls, after one warm-up."""
    return statistics.median(timed(call, rounds)) * 1000


def concurrency(seconds: float, counts: Sequence[int] = CLIENTS) -> dict[str, Any]:
    """Measure the median latency in ms and the rate of `face3d` for numbers of concurrent clients."""
    points, rates = [], []
    with start() as server:
        calls = Calls(server.grpc)
        run_concurrently(portrait_requests(calls), 8, min(seconds, 2))
        for count in counts:
            began = time.perf_counter()
            latencies, _ = run_concurrently(portrait_requests(calls), count, seconds)
            rates.append((float(count), len(latencies) / (time.perf_counter() - began)))
            points.append((float(count), statistics.median(latencies) * 1000))
    return {"points": points, "rates": rates, "slope_ms_per_client": slope(points)}


def sizes(rounds: int, megapixels: Sequence[float] = SIZES) -> dict[str, Any]:
    """Measure the median latency in ms of one client that sends a portrait as JPEGs of many sizes."""
    with start() as server:
        calls = Calls(server.grpc)
        points = []
        for size in megapixels:
            request = partial(calls.ask, "face3d", {"image": photos.of_size(size)}, OUTPUTS)
            points.append((size, median_ms(request, rounds)))
    by_size = dict(points)
    result: dict[str, Any] = {"points": points, "slope_ms_per_megapixel": slope(points)}
    if {1.0, 24.0} <= set(by_size):
        result["ratio_24_to_1"] = by_size[24.0] / by_size[1.0]
    return result


def faces(rounds: int, counts: Sequence[int] = FACES) -> dict[str, Any]:
    """Measure the median ms of every face of a 2.6-megapixel picture: `detect`, then a `reconstruct` a face."""
    points = []
    with start() as server, Face3DClient(server.grpc, timeout=120) as client:
        for count in counts:
            data = photos.group(count)
            found = len(client.reconstruct_all(data))
            if found != count:
                raise RuntimeError(f"{found} faces were found in a picture of {count}")
            points.append((float(count), median_ms(partial(client.reconstruct_all, data), rounds)))
    return {"points": points, "slope_ms_per_face": slope(points)}


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Return the slope of the least-squares line through (x, y) points."""
    table = np.array(points)
    return float(np.polyfit(table[:, 0], table[:, 1], 1)[0])


def without_batching(repository: Path, folder: Path) -> Path:
    """Copy a repository without dynamic batching; return ``folder``."""
    shutil.copytree(repository, folder, ignore=shutil.ignore_patterns("__pycache__", "configs"))
    for config in folder.glob("*/config.pbtxt"):
        text = config.read_text()
        config.write_text(re.sub(r"^dynamic_batching \{.*?^\}\n", "", text, flags=re.DOTALL | re.MULTILINE))
    return folder


REQUESTS = 240
"""Requests of perf_analyzer to the regressor in each turn: about two seconds on two cores."""


def batching(rounds: int, seconds: float) -> dict[str, Any]:
    """Measure rates with and without dynamic batching at 16 clients, in turns.

    Of the ensemble, and by perf_analyzer of the smallest network.
    """
    rates: dict[str, dict[str, list[float]]] = {model: {"on": [], "off": []} for model in ("face3d", "regressor")}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        off = without_batching(DEFAULT_REPOSITORY, folder / "off")
        servers = {
            "on": stack.enter_context(start()),
            "off": stack.enter_context(start(repository=off)),
        }
        variables, binary = stack.enter_context(analyzer.environment()), analyzer.install()
        calls = {name: Calls(server.grpc) for name, server in servers.items()}
        tools = {name: analyzer.Analyzer(server, binary, variables, seconds) for name, server in servers.items()}
        for name in servers:
            run_concurrently(portrait_requests(calls[name]), 16, 1.0)
        for number in range(rounds):
            for name in sorted(servers, reverse=bool(number % 2)):
                # Long, so that the last responses, during which fewer clients are active, count for little.
                began = time.perf_counter()
                latencies, _ = run_concurrently(portrait_requests(calls[name]), 16, 4 * seconds)
                rates["face3d"][name].append(len(latencies) / (time.perf_counter() - began))
                how = ["--concurrency-range", "16:16", "-a"]
                row = tools[name].run(analyzer.Load("regressor", "grpc"), how, REQUESTS, f"batching-{name}")
                rates["regressor"][name].append(row["rate"])
    medians = {model: {name: statistics.median(v) for name, v in both.items()} for model, both in rates.items()}
    return {"rates": medians, "on_over_off": {model: both["on"] / both["off"] for model, both in medians.items()}}


def chained(rounds: int) -> dict[str, Any]:
    """Measure one picture through the ensemble, and through the leaves by one call each, in turns."""
    data = photos.mix()["jpeg-0.31MP"]
    with start() as server:
        calls = Calls(server.grpc)

        def call_leaves() -> None:
            tensors: dict[str, Any] = dict(calls.ask("preprocess", {"image": data}, CHAIN["preprocess"]))
            for model, outputs in list(CHAIN.items())[1:]:
                tensors |= calls.ask(model, {name: tensors[name] for name in _INPUTS[model]}, outputs)

        took: dict[str, list[float]] = {"ensemble": [], "chained": []}
        for number in range(rounds + 1):
            for name, call in (
                ("ensemble", lambda: calls.ask("face3d", {"image": data}, OUTPUTS)),
                ("chained", call_leaves),
            ):
                began = time.perf_counter()
                call()
                if number:
                    took[name].append(time.perf_counter() - began)
    medians = {name: statistics.median(values) * 1000 for name, values in took.items()}
    return {"ms": medians, "ensemble_over_chained": medians["ensemble"] / medians["chained"]}


def flat(seconds: float, clients: int = 16) -> dict[str, Any]:
    """Measure a constant load: errors, p99 over p50, and memory over time (MB; the first fifth is warm-up)."""
    began = time.monotonic()
    with start() as server:
        ready = time.monotonic() - began
        calls = Calls(server.grpc)
        latencies: list[float] = []
        failed = 0
        memory: list[tuple[float, float]] = [(0.0, machine.resident_mb(server.pid))]
        steps = 20
        for step in range(steps):
            some, errors = run_concurrently(portrait_requests(calls), clients, seconds / steps)
            latencies += some
            failed += errors
            memory.append((seconds * (step + 1) / steps, machine.resident_mb(server.pid)))
    p50, p99 = np.percentile(latencies, [50, 99])
    warm = memory[1 + steps // 5][1]
    return {
        "seconds": seconds,
        "ready_s": ready,
        "requests": len(latencies),
        "errors": failed,
        "p50_ms": float(p50) * 1000,
        "p99_ms": float(p99) * 1000,
        "p99_over_p50": float(p99 / p50),
        "memory_mb": memory,
        "growth": memory[-1][1] / warm - 1,
        "peak_mb": max(value for _, value in memory),
    }


def draw(name: str, values: dict[str, Any]) -> None:
    """Draw the plots of a part."""
    folder = store.FOLDER
    if name == "stages":
        plots.stack(
            folder / "stages.png",
            {
                **values["statistics_ms"],
                "1 client, trace": {k: v for k, v in values["trace_ms"].items() if k != "face3d"},
            },
            "ms a picture",
            "Where a picture's time goes",
        )
    elif name == "concurrency":
        title = f"Latency and clients: {values['slope_ms_per_client']:.0f} ms a client"
        plots.lines(folder / "concurrency.png", {"median": values["points"]}, "clients at once", "ms", title)
    elif name == "sizes":
        title = f"Cost and size: {values['slope_ms_per_megapixel']:.1f} ms a megapixel"
        plots.lines(folder / "sizes.png", {"face3d": values["points"]}, "megapixels", "ms", title)
    elif name == "faces":
        title = f"Cost and faces: {values['slope_ms_per_face']:.0f} ms a face"
        plots.lines(folder / "faces.png", {"reconstruct_all": values["points"]}, "faces", "ms", title)
    elif name == "flat":
        plots.lines(folder / "memory.png", {"server and models": values["memory_mb"]}, "seconds", "MB", "16 clients")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the requested parts and write each to `NAME.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = ("stages", "concurrency", "sizes", "faces", "batching", "chained", "flat")
    parser.add_argument("parts", nargs="*", default=[], metavar="PART", help=", ".join(parts))
    parser.add_argument("--seconds", type=positive_number(86400), default=6.0, help="of a measurement (default 6)")
    parser.add_argument("--rounds", type=whole_number(1), default=7)
    parser.add_argument("--flat-seconds", type=positive_number(86400), default=300.0, help="of `flat` (default 300)")
    options = parser.parse_args(arguments)
    measures: dict[str, Callable[[], dict[str, Any]]] = {
        "stages": lambda: stages(options.seconds),
        "concurrency": lambda: concurrency(options.seconds / 2),
        "sizes": lambda: sizes(options.rounds),
        "faces": lambda: faces(max(3, options.rounds // 2)),
        "batching": lambda: batching(options.rounds, options.seconds / 2),
        "chained": lambda: chained(options.rounds * 3),
        "flat": lambda: flat(options.flat_seconds),
    }
    if unknown := set(options.parts) - set(measures):
        parser.error(f"there is no part {sorted(unknown)}, only {', '.join(parts)}")
    for name in options.parts or parts:
        values = measures[name]()
        store.save(name, **values)
        draw(name, values)
        print(name, json.dumps(values, default=float)[:2000], flush=True)


if __name__ == "__main__":
    main()
