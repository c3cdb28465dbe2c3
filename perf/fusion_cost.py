"""`python -m perf.fusion_cost`: what a pair costs beside a reconstruction, and the memory of sixteen clients.

Two portraits of about 512 pixels, in turns on a server of its own: each to GLB, and both as a pair. Prints one JSON
object: medians in milliseconds and their ratio, the processor time of client and server and its ratio, then pairs a
second, failures and the server's largest memory while clients ask at once.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from face3d_client import Face3DClient

from perf.calls import run_concurrently
from perf.machine import cpu_seconds, facts, keep_heap, resident_mb
from perf.photos import astronaut, grace_hopper
from server.arguments import whole_number
from server.embedded import ServerOptions, on_free_ports
from server.service import PublicOptions, Service

CONSENT = "A measurement; both photographs are in the public domain."
# Seconds between two looks at the server's memory.
PAUSE = 0.5


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m perf.fusion_cost", description=__doc__)
    parser.add_argument("--rounds", type=whole_number(1), default=15)
    parser.add_argument("--clients", type=whole_number(1), default=16)
    parser.add_argument("--seconds", type=whole_number(1), default=20, help="that the clients ask for")
    parser.add_argument("--format", choices=("png", "jpeg"), default="png", help="of the fused pictures")
    options = parser.parse_args(arguments)
    keep_heap()
    source, target = astronaut().read_bytes(), grace_hopper().read_bytes()
    running = Service(on_free_ports(ServerOptions(fusion=True)), PublicOptions(status_port=0))
    with running as service, Face3DClient(service.grpc, timeout=120) as client:
        fuse = partial(client.fuse, source, target, consent=CONSENT, picture_format=options.format)
        calls: dict[str, Callable[[], object]] = {
            "source": partial(client.reconstruct, source),
            "target": partial(client.reconstruct, target),
            "pair": fuse,
        }
        figures: dict[str, Any] = in_turns(calls, options.rounds)
        figures |= together(lambda _: fuse(), options.clients, options.seconds, service.triton.pid)
    print(json.dumps({"format": options.format, **figures, **facts()}))


def in_turns(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, Any]:
    """Return the medians of each call, and the pair's for the mean of the other two."""
    for call in calls.values():  # the first of each loads what is loaded late
        call()
        call()
    wall: dict[str, list[float]] = {name: [] for name in calls}
    processor = dict.fromkeys(calls, 0.0)
    for _ in range(rounds):
        for name, call in calls.items():
            before, start = cpu_seconds(os.getpid()), time.perf_counter()
            call()
            wall[name].append(time.perf_counter() - start)
            processor[name] += (cpu_seconds(os.getpid()) - before) / rounds
    median = {name: statistics.median(seconds) for name, seconds in wall.items()}
    return {
        "ms": {name: round(seconds * 1e3, 1) for name, seconds in median.items()},
        "ratio": round(2 * median["pair"] / (median["source"] + median["target"]), 2),
        "processor_ms": {name: round(seconds * 1e3, 1) for name, seconds in processor.items()},
        "processor_ratio": round(2 * processor["pair"] / (processor["source"] + processor["target"]), 2),
    }


def together(call: Callable[[int], object], clients: int, seconds: float, pid: int) -> dict[str, Any]:
    """Let clients ask at once, and watch the server's memory."""
    ended = threading.Event()
    memory = [resident_mb(pid)]

    def watch() -> None:
        while not ended.wait(PAUSE):
            memory.append(resident_mb(pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    latencies, failed = run_concurrently(call, clients, seconds)
    took = time.perf_counter() - start
    ended.set()
    watcher.join()
    return {
        "clients": clients,
        "pairs_a_second": round(len(latencies) / took, 2),
        "failed": failed,
        "memory_mb": round(max(memory)),
    }


if __name__ == "__main__":
    main()
