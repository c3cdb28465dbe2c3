"""`python -m perf.compare`: five ways to serve the same networks, side by side in one run.

A: PyTorch eager float32 in a loop. B: the same behind FastAPI. C: LitServe with its batching: eager; with the ONNX
files, each network run once for a batch; with these, a batch spread over the cores as E does it. D: the files bare in
one process. E: this service, over HTTP like B and C. All are started, then take turns: in each round every variant is
measured at every number of clients, so that what changes on the machine changes for all. Figures are medians over the
rounds; latencies are pooled. Whoever is not measured is stopped.
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
from server.arguments import positive_number, whole_number
from server.embedded import EmbeddedServer, ServerOptions, on_free_ports

NAMES = {
    "A": "PyTorch eager, a loop",
    "B": "FastAPI, eager",
    "C-eager": "LitServe, eager",
    "C-onnx": "LitServe, ONNX",
    "C-lanes": "LitServe, ONNX, a picture a core",
    "D": "ONNX bare, no server",
    "E": "this service",
}
_SUBJECTS = {
    "A": "loop-eager",
    "B": "fastapi",
    "C-eager": "litserve-eager",
    "C-onnx": "litserve-onnx",
    "C-lanes": "litserve-lanes",
    "D": "loop-onnx",
}
# A server of networks takes so long to load at most.
_START = 180.0


@dataclass(frozen=True)
class Round:
    """One variant at one number of clients for some seconds."""

    rate: float
    latencies: list[float]
    by_picture: dict[str, list[float]]
    cpu: float
    memory: float

    @classmethod
    def of(cls, done: Sequence[Sequence[float]], seconds: float, cpu: float, memory: float) -> Round:
        """``done``: when, how long, which picture; pictures answered after the time count for latency only."""
        inside = [when for when, _, _ in done if when <= seconds] or [min(when for when, _, _ in done)]
        names = list(photos.mix())
        by_picture: dict[str, list[float]] = {}
        for _, took, index in done:
            by_picture.setdefault(names[int(index)], []).append(took)
        return cls(len(inside) / max(inside), [took for _, took, _ in done], by_picture, cpu / len(done), memory)


class Variant(Protocol):
    """Something that can be measured."""

    pid: int

    def measure(self, clients: int, seconds: float) -> list[list[float]]:
        """Completions: when, latency, picture."""


class InProcess:
    """A and D: requests are made inside the process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process, self.pid = process, process.pid
        self._line()

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("a variant ended before it answered; its reason stands above.")
        return line

    def measure(self, clients: int, seconds: float) -> list[list[float]]:
        """See `Variant`."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"clients": clients, "seconds": seconds}) + "\n")
        self._process.stdin.flush()
        done: list[list[float]] = json.loads(self._line())
        return done


class Served:
    """B, C and E: a process of its own plays the clients, and its time is not the server's."""

    def __init__(self, pid: int, url: str, kind: str) -> None:
        self.pid, self._url, self._kind = pid, url, kind

    def measure(self, clients: int, seconds: float) -> list[list[float]]:
        """See `Variant`."""
        command = [sys.executable, "-m", "perf.compare.client", self._url, self._kind, str(clients), str(seconds)]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        done: list[list[float]] = json.loads(output)
        return done


def _signal(name: str, pid: int, number: signal.Signals) -> None:
    if name == "E":
        return  # idle, Triton does nothing; and its processes do not like to be stopped
    for process in machine.family(pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)


@contextlib.contextmanager
def awake(name: str, pid: int) -> Iterator[None]:
    """Let a variant run, and stop it afterwards: some poll while they have nothing to do."""
    _signal(name, pid, signal.SIGCONT)
    try:
        yield
    finally:
        _signal(name, pid, signal.SIGSTOP)


@contextlib.contextmanager
def running(name: str) -> Iterator[Variant]:
    """Start a variant, and end it."""
    if name == "E":
        with EmbeddedServer(on_free_ports(ServerOptions())) as server:
            yield Served(server.pid, f"http://{server.http}/v2/models/face3d/infer", "triton")
        return
    subject = _SUBJECTS[name]
    inside = subject.startswith("loop")
    port = 0 if inside else _free_port()
    command = [sys.executable, "-m", "perf.compare.subject", subject, "--port", str(port)]
    pipe = subprocess.PIPE if inside else None
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe or subprocess.DEVNULL, text=True)
    try:
        if inside:
            yield InProcess(process)
        else:
            _await(port, process)
            kind = "raw" if name == "B" else "json"
            yield Served(process.pid, f"http://127.0.0.1:{port}/predict", kind)
    finally:
        members = list(machine.family(process.pid))
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


def _await(port: int, process: subprocess.Popen[str]) -> None:
    """Until anything is answered over HTTP; LitServe says 503 while its worker loads."""
    deadline = time.monotonic() + _START
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"a server ended with status {process.returncode}; its reason stands above.")
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
    raise RuntimeError(f"no server on port {port} after {_START:.0f} s")


def compare(
    names: Sequence[str], clients: Sequence[int], rounds: int, seconds: float
) -> dict[str, dict[int, list[Round]]]:
    """Variant -> clients -> rounds."""
    found: dict[str, dict[int, list[Round]]] = {name: {count: [] for count in clients} for name in names}
    with contextlib.ExitStack() as stack:
        variants = {}
        for name in names:
            print(f"starting {name}: {NAMES[name]}", flush=True)
            variants[name] = stack.enter_context(running(name))
            variants[name].measure(max(clients), min(seconds, 2.0))  # warm, not counted
            _signal(name, variants[name].pid, signal.SIGSTOP)
        for number in range(rounds):
            for count in clients:
                # Another order each round: nobody is always measured after the same neighbour.
                for name in (*names[number % len(names) :], *names[: number % len(names)]):
                    with awake(name, variants[name].pid):
                        before = machine.cpu_seconds(variants[name].pid)
                        done = variants[name].measure(count, seconds)
                        cpu = machine.cpu_seconds(variants[name].pid) - before
                        one = Round.of(done, seconds, cpu, machine.resident_mb(variants[name].pid))
                    found[name][count].append(one)
                    print(f"round {number + 1}, {count:2} clients, {name:8} {one.rate:6.2f} a second", flush=True)
    return found


def summary(rounds: Sequence[Round]) -> dict[str, Any]:
    """Medians over rounds, percentiles over all requests of all rounds."""
    latencies = [value for one in rounds for value in one.latencies]
    p50, p99 = np.percentile(latencies, [50, 99])
    pictures: dict[str, list[float]] = {}
    for one in rounds:
        for name, values in one.by_picture.items():
            pictures.setdefault(name, []).extend(values)
    return {
        "rate": statistics.median(one.rate for one in rounds),
        "rates": [round(one.rate, 3) for one in rounds],
        "p50_ms": float(p50) * 1000,
        "p99_ms": float(p99) * 1000,
        "requests": len(latencies),
        "cpu_s": statistics.median(one.cpu for one in rounds),
        "memory_mb": max(one.memory for one in rounds),
        "p50_ms_by_picture": {name: statistics.median(values) * 1000 for name, values in pictures.items()},
    }


def ratios(table: dict[str, dict[str, Any]], clients: str) -> dict[str, float]:
    """E over each of the others at so many clients: rates (more is better) and p99 (less is better)."""
    if "E" not in table:
        return {}
    ours = table["E"][clients]
    found = {}
    for name, values in table.items():
        if name != "E":
            found[f"E/{name} rate"] = ours["rate"] / values[clients]["rate"]
            found[f"E/{name} p99"] = ours["p99_ms"] / values[clients]["p99_ms"]
            found[f"E/{name} cpu"] = ours["cpu_s"] / values[clients]["cpu_s"]
    return found


def markdown(table: dict[str, dict[str, Any]]) -> str:
    """The table, one line for each variant and number of clients."""
    lines = [
        "| variant | clients | pictures a second | p50 ms | p99 ms | CPU s a picture | peak memory MB |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, by_clients in table.items():
        for clients, one in by_clients.items():
            lines.append(
                f"| {name}: {NAMES[name]} | {clients} | {one['rate']:.2f} | {one['p50_ms']:.0f} | {one['p99_ms']:.0f} "
                f"| {one['cpu_s']:.3f} | {one['memory_mb']:.0f} |"
            )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, write `compare.json` and the plots."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--clients", nargs="+", type=whole_number(1, 1000), default=[1, 4, 16])
    parser.add_argument("--rounds", type=whole_number(1), default=5)
    parser.add_argument("--seconds", type=positive_number(86400), default=6.0, help="of each measurement (default 6)")
    parser.add_argument("--quick", action="store_true", help="one round of a second each: does it run?")
    options = parser.parse_args(arguments)
    rounds, seconds = (1, 1.0) if options.quick else (options.rounds, options.seconds)
    found = compare(options.variants, options.clients, rounds, seconds)
    table = {
        name: {str(clients): summary(all_rounds) for clients, all_rounds in by_clients.items()}
        for name, by_clients in found.items()
    }
    most = str(max(options.clients))
    shares = {str(clients): ratios(table, str(clients)) for clients in options.clients}
    path = store.save(
        "compare", rounds=rounds, seconds=seconds, pictures=list(photos.mix()), table=table, ratios=shares
    )
    for key, unit, title in (
        ("rate", "pictures a second", "Throughput (more is better)"),
        ("p99_ms", "ms", "99th percentile of latency (less is better)"),
    ):
        groups = {
            f"{clients} clients": {name: by[str(clients)][key] for name, by in table.items()}
            for clients in options.clients
        }
        plots.bars(store.FOLDER / f"compare-{key.removesuffix('_ms')}.png", groups, unit, title)
    print(f"\n{markdown(table)}\n")
    for what, value in shares[most].items():
        print(f"{most} clients, {what}: {value:.2f}")
    print(f"\nwritten: {path}")


if __name__ == "__main__":
    main()
