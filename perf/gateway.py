"""`python -m perf.gateway`: cost of the gateway, each figure against the same requests sent to Triton itself.

Both are measured in turns on one server, so that other load on the machine affects both:

- throughput: 16 clients, each with a connection of its own, the default request; the ratio of the two rates;
- latency: one client that requests the coefficients; the median of the differences between a request through the
  gateway and the one before it to Triton. The same for a refused picture, which takes Triton the least time, so that
  noise is least;
- processor time of the gateway's process for each request.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

import psutil
from face3d_client import BadImage, Face3DClient, Retry

from perf.photos import astronaut
from server.embedded import EmbeddedServer, ServerOptions, on_free_ports
from server.gateway.process import GatewayOptions, GatewayProcess

CLIENTS = 16


@dataclass(frozen=True)
class Cost:
    """Cost of the gateway on one protocol.

    Attributes:
        bare, through: requests a second to Triton and through the gateway, medians over turns.
        ratio: median over pairs of neighbouring turns of through / bare.
        coefficients_ms, refused_ms: added milliseconds of the median request.
        processor_ms: processor time of the gateway for one default request.
    """

    protocol: str
    bare: float
    through: float
    ratio: float
    coefficients_ms: float
    refused_ms: float
    processor_ms: float


def main(arguments: argparse.Namespace) -> None:
    """Measure and print one JSON object a protocol."""
    photo = astronaut().read_bytes()
    with EmbeddedServer(on_free_ports(ServerOptions())) as server:
        options = GatewayOptions(server.http, server.grpc)
        with GatewayProcess(options) as gateway:
            for protocol in arguments.protocols:
                pair = {"grpc": (server.grpc, gateway.grpc), "http": (server.http, gateway.http)}[protocol]
                urls = (f"{protocol}://{pair[0]}", f"{protocol}://{pair[1]}")
                print(json.dumps(asdict(_cost(protocol, urls, gateway.pid, photo, arguments))), flush=True)


def _cost(protocol: str, urls: tuple[str, str], pid: int, photo: bytes, arguments: argparse.Namespace) -> Cost:
    with contextlib.ExitStack() as stack:
        both = [[stack.enter_context(_client(url)) for _ in range(CLIENTS)] for url in urls]
        for client in both[1]:
            client.wait_ready()
        refused = _added(both, lambda client: _refused(client), arguments.pairs * 4)
        small = _added(both, lambda client: client.reconstruct(photo, outputs=["coefficients"]), arguments.pairs)
        rates: tuple[list[float], list[float]] = ([], [])
        processor, count = 0.0, 0
        with ThreadPoolExecutor(CLIENTS) as pool:
            for turn in range(2 * arguments.turns + 2):
                which = turn % 2
                before = _processor_seconds(pid)
                rate = _rate(pool, both[which], photo, arguments.requests)
                if turn < 2:  # warm-up
                    continue
                rates[which].append(rate)
                if which:
                    processor += _processor_seconds(pid) - before
                    count += arguments.requests
    ratio = statistics.median(through / bare for bare, through in zip(*rates, strict=True))
    bare, through = (statistics.median(values) for values in rates)
    numbers = (bare, through, ratio, small * 1e3, refused * 1e3, processor / count * 1e3)
    return Cost(protocol, *(round(number, 3) for number in numbers))


def _client(url: str) -> Face3DClient:
    return Face3DClient(url, timeout=120, retry=Retry(attempts=1))


def _refused(client: Face3DClient) -> None:
    with contextlib.suppress(BadImage):
        client.reconstruct(b"no picture", outputs=["coefficients"])


def _added(both: list[list[Face3DClient]], call: Callable[[Face3DClient], object], pairs: int) -> float:
    """Measure the median of the seconds by which a request through the gateway is longer than the one before it."""
    differences = []
    for _ in range(pairs + 3):
        seconds = []
        for clients in both:
            began = time.perf_counter()
            call(clients[0])
            seconds.append(time.perf_counter() - began)
        differences.append(seconds[1] - seconds[0])
    return statistics.median(differences[3:])


def _rate(pool: ThreadPoolExecutor, clients: list[Face3DClient], photo: bytes, requests: int) -> float:
    """Measure requests a second of all clients together."""
    numbers: Iterator[int] = iter(range(requests))  # shared: next() of it is atomic

    def work(client: Face3DClient) -> None:
        for _ in numbers:
            client.reconstruct(photo)

    began = time.perf_counter()
    for done in [pool.submit(work, client) for client in clients]:
        done.result()
    return requests / (time.perf_counter() - began)


def _processor_seconds(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=6, help="pairs of turns of 16 clients (6)")
    parser.add_argument("--requests", type=int, default=64, help="requests of one turn (64)")
    parser.add_argument("--pairs", type=int, default=60, help="pairs of single requests (60)")
    parser.add_argument("--protocols", nargs="+", default=["grpc", "http"], choices=["grpc", "http"])
    main(parser.parse_args())
