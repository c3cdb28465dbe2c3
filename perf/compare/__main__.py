"""`python -m perf.compare`: six ways to serve the same networks, side by side in one run.

- eager_loop: PyTorch eager float32 in a loop, with the MTCNN cascade of this family's pipelines.
- eager_loop_same: the same with the served detector.
- fastapi, fastapi_same: these two behind FastAPI.
- litserve_eager, litserve_onnx, litserve_onnx_parallel: LitServe with its batching: eager; with the ONNX files, each
  network run once for a batch; with these, a batch spread over the cores as the service does it.
- bentoml_onnx: BentoML with the ONNX files, a picture a core.
- bare_onnx: the ONNX files in one process, without a server.
- service: this service, over HTTP like fastapi and litserve.

``--product embed`` compares the ensemble of that name, which has no cascade to be compared with.

All are started, then take turns: in each round every variant is measured at every number of clients, so that other load
on the machine meets all of them. Figures are medians over the rounds; latencies are pooled. Variants that are not being
measured are stopped.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from perf import machine, photos, plots, store
from perf.compare.names import FORMER_NAMES, LOOPS, NAMES, OF_EMBED, PRODUCTS, RAW, SERVICE, current_name
from server.arguments import positive_number, whole_number
from server.embedded import EmbeddedServer, ServerOptions, on_free_ports

_STARTUP_TIMEOUT_S = 180.0
"""A server needs up to half a minute to import PyTorch and load the networks; a busy machine several times as long."""


@dataclass(frozen=True)
class Measurement:
    """One variant at one number of clients.

    Attributes:
        rate: pictures a second.
        latencies: seconds of each request.
        by_picture: name of a picture -> seconds of its requests.
        cpu: processor seconds a picture, of the server's processes.
        memory: of these, in MB.
    """

    rate: float
    latencies: list[float]
    by_picture: dict[str, list[float]]
    cpu: float
    memory: float

    @classmethod
    def of(cls, done: Sequence[Sequence[float]], seconds: float, cpu: float, memory: float) -> Measurement:
        """Evaluate completed requests.

        Args:
            done: of each request the completion and the latency in seconds, and the index of its picture.
            seconds: duration of the measurement; requests completed later count for latency and cost only.
            cpu: processor seconds of the server's processes meanwhile.
            memory: of these, in MB.
        """
        inside = [when for when, _, _ in done if when <= seconds] or [min(when for when, _, _ in done)]
        names = list(photos.mix())
        by_picture: dict[str, list[float]] = {}
        for _, took, index in done:
            by_picture.setdefault(names[int(index)], []).append(took)
        return cls(len(inside) / max(inside), [took for _, took, _ in done], by_picture, cpu / len(done), memory)


class Variant(Protocol):
    """A started variant."""

    pid: int

    def measure(self, clients: int, seconds: float) -> list[list[float]]:
        """Keep ``clients`` requests in flight; return completion, latency (seconds) and picture index of each."""


class LoopVariant:
    """A variant without a server (eager_loop, bare_onnx): requests are made inside its process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process, self.pid = process, process.pid
        self._line()

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("a variant ended before it answered; its reason is printed above.")
        return line

    def measure(self, clients: int, seconds: float) -> list[list[float]]:
        """See `Variant`."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"clients": clients, "seconds": seconds}) + "\n")
        self._process.stdin.flush()
        done: list[list[float]] = json.loads(self._line())
        return done


class ServerVariant:
    """A variant with a server: a separate process runs the clients, so that their time is not the server's."""

    def __init__(self, pid: int, url: str, kind: str) -> None:
        self.pid, self._url, self._kind = pid, url, kind

    def measure(self, clients: int, seconds: float) -> list[list[float]]:
        """See `Variant`."""
        command = [sys.executable, "-m", "perf.compare.client", self._url, self._kind, str(clients), str(seconds)]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        done: list[list[float]] = json.loads(output)
        return done


def _signal(name: str, pid: int, number: signal.Signals) -> None:
    if name == SERVICE:
        return  # Triton uses no processor time while idle, and its health checks fail when its processes are stopped
    for process in machine.process_tree(pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)


@contextlib.contextmanager
def resumed(name: str, pid: int) -> Iterator[None]:
    """Resume a variant, and stop it afterwards: some poll while they are idle."""
    _signal(name, pid, signal.SIGCONT)
    try:
        yield
    finally:
        _signal(name, pid, signal.SIGSTOP)


@contextlib.contextmanager
def started(name: str, product: str = PRODUCTS[0]) -> Iterator[Variant]:
    """Start a variant of a product; end it with the block."""
    if name == SERVICE:
        with EmbeddedServer(on_free_ports(ServerOptions())) as server:
            yield ServerVariant(server.pid, f"http://{server.http}/v2/models/{product}/infer", product)
        return
    inside = name in LOOPS
    port = 0 if inside else _free_port()
    command = [sys.executable, "-m", "perf.compare.variant_process", name, "--product", product]
    command += ["--port", str(port)]
    pipe = subprocess.PIPE if inside else None
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe or subprocess.DEVNULL, text=True)
    try:
        if inside:
            yield LoopVariant(process)
        else:
            _wait_until_ready(port, process)
            kind = "raw" if name in RAW else "json"
            yield ServerVariant(process.pid, f"http://127.0.0.1:{port}/predict", kind)
    finally:
        members = list(machine.process_tree(process.pid))
        _signal(name, process.pid, signal.SIGCONT)
        for member in members:
            with contextlib.suppress(Exception):
                member.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        for member in members:
            with contextlib.suppress(Exception):
                member.kill()
        process.communicate()  # closes the pipes


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _wait_until_ready(port: int, process: subprocess.Popen[str]) -> None:
    """Wait for any HTTP response but 503, which LitServe gives while its worker loads."""
    deadline = time.monotonic() + _STARTUP_TIMEOUT_S
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"a server ended with status {process.returncode}; its reason is printed above.")
        try:
            opener.open(f"http://127.0.0.1:{port}/health", timeout=2).close()
        except urllib.error.HTTPError as error:
            with error:
                if error.code != 503:
                    return
        except OSError:
            pass
        else:
            return
        time.sleep(0.2)
    raise RuntimeError(f"no server on port {port} after {_STARTUP_TIMEOUT_S:.0f} s")


def compare(
    names: Sequence[str], clients: Sequence[int], rounds: int, seconds: float, product: str = PRODUCTS[0]
) -> dict[str, dict[int, list[Measurement]]]:
    """Measure all variants in turns.

    Args:
        names: of `NAMES`.
        clients: numbers of requests in flight.
        rounds: measurements of each variant at each number.
        seconds: of a measurement.
        product: of `PRODUCTS`.

    Returns:
        variant -> clients -> one measurement a round.
    """
    found: dict[str, dict[int, list[Measurement]]] = {name: {count: [] for count in clients} for name in names}
    with contextlib.ExitStack() as stack:
        variants = {}
        for name in names:
            print(f"starting {name}: {NAMES[name]}", flush=True)
            variants[name] = stack.enter_context(started(name, product))
            variants[name].measure(max(clients), min(seconds, 2.0))  # warm-up, not counted
            _signal(name, variants[name].pid, signal.SIGSTOP)
        for number in range(rounds):
            for count in clients:
                # Another order each round: no variant always follows the same other one.
                for name in (*names[number % len(names) :], *names[: number % len(names)]):
                    with resumed(name, variants[name].pid):
                        before = machine.cpu_seconds(variants[name].pid)
                        done = variants[name].measure(count, seconds)
                        cpu = machine.cpu_seconds(variants[name].pid) - before
                        measurement = Measurement.of(done, seconds, cpu, machine.resident_mb(variants[name].pid))
                    found[name][count].append(measurement)
                    print(
                        f"round {number + 1}, {count:2} clients, {name:22} {measurement.rate:6.2f} a second", flush=True
                    )
    return found


def summary(rounds: Sequence[Measurement]) -> dict[str, Any]:
    """Return medians over rounds, and percentiles over all requests of all rounds."""
    latencies = [value for measurement in rounds for value in measurement.latencies]
    p50, p99 = np.percentile(latencies, [50, 99])
    pictures: dict[str, list[float]] = {}
    for measurement in rounds:
        for name, values in measurement.by_picture.items():
            pictures.setdefault(name, []).extend(values)
    return {
        "rate": statistics.median(measurement.rate for measurement in rounds),
        "rates": [round(measurement.rate, 3) for measurement in rounds],
        "p50_ms": float(p50) * 1000,
        "p99_ms": float(p99) * 1000,
        "requests": len(latencies),
        "cpu_s": statistics.median(measurement.cpu for measurement in rounds),
        "memory_mb": max(measurement.memory for measurement in rounds),
        "p50_ms_by_picture": {name: statistics.median(values) * 1000 for name, values in pictures.items()},
    }


def ratios(table: dict[str, dict[str, Any]], clients: str) -> dict[str, float]:
    """Return the service's rate (more is better), p99 and processor time (less is better) over each other variant's."""
    if SERVICE not in table:
        return {}
    ours = table[SERVICE][clients]
    found = {}
    for name, values in table.items():
        if name != SERVICE:
            found[f"{SERVICE}/{name} rate"] = ours["rate"] / values[clients]["rate"]
            found[f"{SERVICE}/{name} p99"] = ours["p99_ms"] / values[clients]["p99_ms"]
            found[f"{SERVICE}/{name} cpu"] = ours["cpu_s"] / values[clients]["cpu_s"]
    return found


def markdown(table: dict[str, dict[str, Any]]) -> str:
    """Format the table in Markdown, one line for each variant and number of clients."""
    lines = [
        "| variant | clients | pictures a second | p50 ms | p99 ms | CPU s a picture | peak memory MB |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, by_clients in table.items():
        for clients, measurement in by_clients.items():
            cells = (
                f"{name}: {NAMES[name]}",
                clients,
                f"{measurement['rate']:.2f}",
                f"{measurement['p50_ms']:.0f}",
                f"{measurement['p99_ms']:.0f}",
                f"{measurement['cpu_s']:.3f}",
                f"{measurement['memory_mb']:.0f}",
            )
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, write `compare.json` and the plots."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--variants",
        nargs="+",
        choices=[*NAMES, *FORMER_NAMES],
        metavar="NAME",
        help=f"of {', '.join(NAMES)} (default: all)",
    )
    parser.add_argument("--product", choices=PRODUCTS, default=PRODUCTS[0], help="the ensemble (face3d)")
    parser.add_argument("--clients", nargs="+", type=whole_number(1, 1000), default=[1, 4, 16])
    parser.add_argument("--rounds", type=whole_number(1), default=5)
    parser.add_argument("--seconds", type=positive_number(86400), default=6.0, help="of each measurement (default 6)")
    parser.add_argument("--quick", action="store_true", help="one round of a second each, to see whether it runs")
    options = parser.parse_args(arguments)
    rounds, seconds = (1, 1.0) if options.quick else (options.rounds, options.seconds)
    product, possible = options.product, OF_EMBED if options.product == "embed" else tuple(NAMES)
    names = list(dict.fromkeys(map(current_name, options.variants or possible)))
    if others := [name for name in names if name not in possible]:
        parser.error(f"no variant of {product}: {', '.join(others)}")
    found = compare(names, options.clients, rounds, seconds, product)
    stem = "compare" if product == PRODUCTS[0] else f"compare-{product}"
    table = {
        name: {str(clients): summary(all_rounds) for clients, all_rounds in by_clients.items()}
        for name, by_clients in found.items()
    }
    most_clients = str(max(options.clients))
    shares = {str(clients): ratios(table, str(clients)) for clients in options.clients}
    path = store.save(stem, rounds=rounds, seconds=seconds, pictures=list(photos.mix()), table=table, ratios=shares)
    for key, unit, title in (
        ("rate", "pictures a second", "Throughput (more is better)"),
        ("p99_ms", "ms", "99th percentile of latency (less is better)"),
    ):
        groups = {
            f"{clients} clients": {name: by[str(clients)][key] for name, by in table.items()}
            for clients in options.clients
        }
        plots.bars(store.FOLDER / f"{stem}-{key.removesuffix('_ms')}.png", groups, unit, title)
    print(f"\n{markdown(table)}\n")
    for ratio, value in shares[most_clients].items():
        print(f"{most_clients} clients, {ratio}: {value:.2f}")
    print(f"\nwritten: {path}")


if __name__ == "__main__":
    main()
