"""`python -m perf.bombs`: how long neighbours wait while somebody sends one kind of hostile picture after the other.

For every kind of tests/attack/pictures.py, by turns: so many seconds of neighbours alone, then as many with one client
more that sends the hostile picture again and again. Prints a line a kind: the neighbours' p50 and p99 without and with
it, their ratio, what the hostile picture was answered, and how long that took.
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
from perf.calls import OUTPUTS, Calls, together
from server.embedded import EmbeddedServer, ServerOptions, on_free_ports
from tests.attack.pictures import KINDS


class Neighbours(NamedTuple):
    """Latencies of well-behaved requests in milliseconds, and how many had no answer."""

    p50: float
    p99: float
    failed: int


class Answers(NamedTuple):
    """What a hostile picture was answered last, and its median time in seconds."""

    text: str
    seconds: float


def neighbours(calls: Calls, clients: int, seconds: float) -> Neighbours:
    """Requests of a portrait for so long."""
    data = photos.mix()["jpeg-0.31MP"]
    latencies, failed = together(lambda _: calls.ask("face3d", {"image": data}, OUTPUTS), clients, seconds)
    p50, p99 = np.percentile(latencies, (50, 99)) * 1000
    return Neighbours(float(p50), float(p99), failed)


def send_until(calls: Calls, data: bytes, stop: threading.Event) -> Answers:
    """Send one picture again and again."""
    text, times = "", []
    while not stop.is_set():
        start = time.perf_counter()
        try:
            calls.ask("face3d", {"image": data}, OUTPUTS)
            text = "a face"
        except InferenceServerException as error:
            text = error.message().partition("', ")[2] or error.message()
        times.append(time.perf_counter() - start)
    return Answers(text, statistics.median(times))


def measure(calls: Calls, data: bytes, clients: int, seconds: float) -> tuple[Neighbours, Neighbours, Answers]:
    """Neighbours without and with a client that sends a hostile picture, and what that one got."""
    alone = neighbours(calls, clients, seconds)
    stop, found = threading.Event(), []
    thread = threading.Thread(target=lambda: found.append(send_until(calls, data, stop)))
    thread.start()
    beside = neighbours(calls, clients, seconds)
    stop.set()
    thread.join()
    return alone, beside, found[0]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m perf.bombs", description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("kinds", nargs="*", metavar="KIND", help="functions of tests/attack/pictures.py; all without")
    parser.add_argument("--clients", type=int, default=2, metavar="N", help="neighbours (2)")
    parser.add_argument("--seconds", type=float, default=10.0, metavar="S", help="of each turn (10)")
    options = parser.parse_args(arguments)
    print(f"{'kind':36} {'MiB':>5} {'p50':>5} {'p99':>6} {'p50':>6} {'p99':>6} {'ratio':>5} {'s':>6}  answer")
    with EmbeddedServer(on_free_ports(ServerOptions())) as server:
        calls = Calls(server.grpc)
        neighbours(calls, options.clients, 2.0)
        for kind in options.kinds or KINDS:
            data = KINDS[kind]()
            alone, beside, answers = measure(calls, data, options.clients, options.seconds)
            print(
                f"{kind:36} {len(data) / 2**20:5.1f} {alone.p50:5.0f} {alone.p99:6.0f} {beside.p50:6.0f} "
                f"{beside.p99:6.0f} {beside.p99 / alone.p99:5.2f} {answers.seconds:6.2f}  "
                f"{alone.failed + beside.failed or ''} {answers.text[:70]}",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
