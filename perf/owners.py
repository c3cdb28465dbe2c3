"""`python -m perf.owners`: processor milliseconds a picture and memory, by the process that takes them, under load.

Every model of the repository has a process of its own, so an owner is a model's name, or ``tritonserver`` (messages
between the steps and gRPC), ``decoder`` (workers that read files), ``gateway``, and ``client``, which is this process.
Clients ask for what `face3d_client` asks for by default. Memory is the proportional set size: shared pages count once.
"""

from __future__ import annotations

import argparse
import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from face3d_client import Face3DClient

from perf import photos, store
from perf.calls import run_concurrently
from perf.machine import keep_heap, process_tree, proportional_mb
from perf.measure import counters
from server.arguments import positive_number, whole_number
from server.embedded import ServerOptions, on_free_ports
from server.service import PublicOptions, Service

_MODEL = re.compile(r"/(\w+)/\d+/model\.(?:py|onnx)$")
_WORKER = "decode_worker.py"
_WARM_UP = 3.0  # seconds


@dataclass(frozen=True)
class Owners:
    """What a default request costs under load.

    Attributes:
        milliseconds: owner -> processor time a picture.
        rows: model -> rows a run, of those models that have run.
        memory_mb: owner -> proportional set size at the end of each period, the first before any load.
        rate: pictures a second.
        errors: requests without an answer.
    """

    milliseconds: dict[str, float]
    rows: dict[str, float]
    memory_mb: dict[str, list[float]]
    rate: float
    errors: int


def owner(words: Sequence[str]) -> str | None:
    """Name the owner of a process by its command line; None for a process of no interest."""
    if "server.gateway" in words:
        return "gateway"
    if words and Path(words[0]).name == "tritonserver":
        return "tritonserver"
    if any(word.endswith(_WORKER) for word in words):
        return "decoder"
    return next((match[1] for word in words if (match := _MODEL.search(word))), None)


def processor_times(pid: int) -> dict[str, float]:
    """Return owner -> processor seconds so far of the running descendants of a process."""
    found: dict[str, float] = {}
    for name, process in _owned(pid):
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            found[name] = found.get(name, 0.0) + times.user + times.system
    return found


def memory(pid: int) -> dict[str, float]:
    """Return owner -> memory in MB (PSS) of the running descendants of a process."""
    found: dict[str, float] = {}
    for name, process in _owned(pid):
        found[name] = found.get(name, 0.0) + proportional_mb(process.pid)
    return found


def _owned(pid: int) -> Iterator[tuple[str, psutil.Process]]:
    for process in process_tree(pid):
        with suppress(psutil.NoSuchProcess):
            if process.pid != pid and (name := owner(process.cmdline())):
                yield name, process


@contextmanager
def _served(gateway: bool) -> Iterator[tuple[str, str]]:
    """Serve the repository; the gRPC address for clients, and that of Triton's metrics page."""
    with Service(on_free_ports(ServerOptions()), PublicOptions() if gateway else None) as service:
        yield service.grpc, service.triton.metrics


def measure(pictures: Sequence[bytes], clients: int, seconds: float, periods: int = 1, gateway: bool = True) -> Owners:
    """Measure a server of its own after a warm-up of three seconds.

    Args:
        pictures: files that the clients send in turns.
        clients: requests in flight.
        seconds: of load, not counting the warm-up.
        periods: of equal length; memory is read after each.
        gateway: whether the clients reach the server through the gateway, as they do in service.
    """
    keep_heap()
    here = os.getpid()
    with _served(gateway) as (address, metrics), Face3DClient(address, timeout=120) as client:
        history = [memory(here)]

        def ask(number: int) -> object:
            return client.reconstruct(pictures[number % len(pictures)])

        run_concurrently(ask, clients, _WARM_UP)
        counted = _runs(metrics)
        before, own, began = processor_times(here), time.process_time(), time.perf_counter()
        done = errors = 0
        for _ in range(periods):
            latencies, failed = run_concurrently(ask, clients, seconds / periods)
            done, errors = done + len(latencies), errors + failed
            history.append(memory(here))
        took, own = time.perf_counter() - began, time.process_time() - own
        after = processor_times(here)
        runs = _runs(metrics)
    spent = {name: used - before.get(name, 0.0) for name, used in after.items()} | {"client": own}
    milliseconds = {name: 1000 * used / max(done, 1) for name, used in spent.items()}
    rows = {
        name: (total - counted[name][0]) / (times - counted[name][1])
        for name, (total, times) in runs.items()
        if times > counted[name][1]
    }
    names = sorted({name for entry in history for name in entry})
    return Owners(
        {name: used for name, used in sorted(milliseconds.items(), key=lambda item: -item[1]) if used >= 0.05},
        rows,
        {name: [entry.get(name, 0.0) for entry in history] for name in names},
        done / took,
        errors,
    )


def _runs(metrics: str) -> dict[str, tuple[float, float]]:
    """Return model -> rows and runs so far."""
    rows, runs = counters(metrics, "nv_inference_count"), counters(metrics, "nv_inference_exec_count")
    return {name: (rows[name], runs[name]) for name in rows}


def markdown(found: Owners) -> str:
    """Write the table: milliseconds a picture, memory before, after the first and after the last period."""
    served = sum(used for name, used in found.milliseconds.items() if name != "client")
    memories = [sum(values) for values in zip(*found.memory_mb.values(), strict=True)]
    rows = [
        f"| {name} | {_number(found.milliseconds.get(name))} | {_number(found.rows.get(name))} | "
        f"{_span(found.memory_mb.get(name))} |"
        for name in [*found.milliseconds, *sorted(set(found.memory_mb) - set(found.milliseconds))]
    ]
    return "\n".join(
        [
            "| owner | processor ms a picture | rows a run | MB at first, after one period, at last |",
            "|---|---|---|---|",
            *rows,
            f"| together, without the client | {served:.1f} |  | {_span(memories)} |",
            "",
            f"{found.rate:.2f} pictures a second, {found.errors} errors",
        ]
    )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _span(values: Sequence[float] | None) -> str:
    return "" if not values else f"{values[0]:.0f}, {values[1]:.0f}, {values[-1]:.0f}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, write `owners.json` and print the table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=whole_number(1, 256), default=16)
    parser.add_argument("--seconds", type=positive_number(86400), default=15.0, help="of load (default 15)")
    parser.add_argument("--periods", type=whole_number(1, 1000), default=1, help="after each, memory is read")
    parser.add_argument("--mix", action="store_true", help="four pictures by turns, not the one of `perf.measure`")
    parser.add_argument(
        "--no-gateway", action="store_true", help="clients of tritonserver itself, as of `perf.measure`"
    )
    options = parser.parse_args(arguments)
    pictures = list(photos.mix().values()) if options.mix else [photos.astronaut().read_bytes()]
    found = measure(pictures, options.clients, options.seconds, options.periods, not options.no_gateway)
    values: dict[str, Any] = vars(found)
    store.save("owners", clients=options.clients, seconds=options.seconds, pictures=len(pictures), **values)
    print(markdown(found))


if __name__ == "__main__":
    main()
