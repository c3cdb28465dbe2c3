"""`python -m perf.bombs`: latency of other requests while one client sends hostile pictures.

For every kind of tests/attack/pictures.py: some seconds of portraits alone, then as many with one more client that
sends the hostile picture repeatedly. Prints a line a kind: p50 and p99 of the portraits without and with it, their
ratio, the response to the hostile picture, and how long that took.
"""

from __future__ import annotations

import argparse
import statistics
import threading
import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from tritonclient.utils import InferenceServerException

from perf import photos
from perf.calls import OUTPUTS, Calls, run_concurrently
from server.embedded import EmbeddedServer, ServerOptions, on_free_ports
from tests.attack.pictures import KINDS


class Neighbours(NamedTuple):
    """Latencies of the portraits in milliseconds, and the number of failures."""

    p50: float
    p99: float
    failed: int


class Responses(NamedTuple):
    """The last response to a hostile picture, and the median latency in seconds."""

    text: str
    seconds: float


def neighbours(calls: Calls, clients: int, seconds: float) -> Neighbours:
    """Measure requests of a portrait by ``clients`` clients for ``seconds``."""
    data = photos.mix()["jpeg-0.31MP"]
    latencies, failed = run_concurrently(lambda _: calls.ask("face3d", {"image": data}, OUTPUTS), clients, seconds)
    p50, p99 = np.percentile(latencies, (50, 99)) * 1000
    return Neighbours(float(p50), float(p99), failed)


def send_until(calls: Calls, data: bytes, stop: threading.Event) -> Responses:
    """Send one picture repeatedly until ``stop`` is set."""
    text, times = "", []
    while not stop.is_set():
        start = time.perf_counter()
        try:
            calls.ask("face3d", {"image": data}, OUTPUTS)
            text = "a face"
        except InferenceServerException as error:
            text = error.message().partition("', ")[2] or error.message()
        times.append(time.perf_counter() - start)
    return Responses(text, statistics.median(times))


def measure(calls: Calls, data: bytes, clients: int, seconds: float) -> tuple[Neighbours, Neighbours, Responses]:
    """Measure the portraits without and with a client that sends a hostile picture, and that client's responses."""
    alone = neighbours(calls, clients, seconds)
    stop, found = threading.Event(), []
    thread = threading.Thread(target=lambda: found.append(send_until(calls, data, stop)))
    thread.start()
    beside = neighbours(calls, clients, seconds)
    stop.set()
    thread.join()
    return alone, beside, found[0]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the requested kinds and print the table."""
    parser = argparse.ArgumentParser(prog="python -m perf.bombs", description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("kinds", nargs="*", metavar="KIND", help="functions of tests/attack/pictures.py; all without")
    parser.add_argument("--clients", type=int, default=2, metavar="N", help="neighbours (2)")
    parser.add_argument("--seconds", type=float, default=10.0, metavar="S", help="of each turn (10)")
    options = parser.parse_args(arguments)
    print(f"{'kind':36} {'MiB':>5} {'p50':>5} {'p99':>6} {'p50':>6} {'p99':>6} {'ratio':>5} {'s':>6}  response")
    with EmbeddedServer(on_free_ports(ServerOptions())) as server:
        calls = Calls(server.grpc)
        neighbours(calls, options.clients, 2.0)
        for kind in options.kinds or KINDS:
            data = KINDS[kind]()
            alone, beside, responses = measure(calls, data, options.clients, options.seconds)
            print(
                f"{kind:36} {len(data) / 2**20:5.1f} {alone.p50:5.0f} {alone.p99:6.0f} {beside.p50:6.0f} "
                f"{beside.p99:6.0f} {beside.p99 / alone.p99:5.2f} {responses.seconds:6.2f}  "
                f"{alone.failed + beside.failed or ''} {responses.text[:70]}",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
