"""`python -m deploy.simulate.measure`: the service times that the simulation is fed with, from the embedded server.

Photographs are sent by one client, by two, ... so that batches form. What comes out, per number of clients: answers a
second and the times of whole requests. The file names the machine; figures of another machine are another file.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from face3d_client import Face3DClient

from server.arguments import whole_number
from server.demo import default_photo
from server.embedded import EmbeddedServer, ServerOptions, on_free_ports

TARGET = Path(__file__).with_name("service_times.json")


def measure(server: EmbeddedServer, photo: bytes, clients: int, requests: int) -> dict[str, Any]:
    """Send ``requests`` photographs from ``clients`` threads; what was seen."""
    seconds: list[float] = []
    with Face3DClient(server.grpc, timeout=120) as client:

        def one(_: int) -> None:
            began = time.perf_counter()
            client.reconstruct(photo)
            seconds.append(time.perf_counter() - began)

        began = time.perf_counter()
        with ThreadPoolExecutor(clients) as pool:
            list(pool.map(one, range(requests)))
        took = time.perf_counter() - began
    p50, p95, p99 = (float(value) for value in np.percentile(seconds, [50, 95, 99]))
    return {
        "clients": clients,
        "requests": requests,
        "answers_per_second": requests / took,
        "mean": float(np.mean(seconds)),
        "p50": p50,
        "p95": p95,
        "p99": p99,
        "seconds": [round(value, 4) for value in sorted(seconds)],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and write the file."""
    parser = argparse.ArgumentParser(prog="python -m deploy.simulate.measure", description="Measure service times.")
    parser.add_argument(
        "--requests", type=whole_number(1), default=60, metavar="N", help="photographs for each number of clients"
    )
    parser.add_argument("--clients", type=whole_number(1, 1000), nargs="+", default=[1, 2, 4, 8, 16], metavar="N")
    parser.add_argument(
        "--cores", type=whole_number(1), required=True, metavar="N", help="cores that the server may use"
    )
    parser.add_argument("--out", type=Path, default=TARGET, metavar="FILE")
    options = parser.parse_args(arguments)
    photo = default_photo().read_bytes()
    began = time.monotonic()
    with EmbeddedServer(on_free_ports(ServerOptions())) as server:
        start = time.monotonic() - began
        with Face3DClient(server.grpc, timeout=120) as client:
            for _ in range(5):
                client.reconstruct(photo)
        steps = [measure(server, photo, clients, options.requests) for clients in options.clients]
    content = {
        "what": "a photograph of 512 x 512 through face3d to GLB, texture and numbers; client and server together",
        "machine": f"{platform.machine()}, {options.cores} shared core(s)",
        "date": time.strftime("%Y-%m-%d"),
        "start_seconds": round(start, 2),
        "steps": steps,
    }
    options.out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    for step in steps:
        print(f"{step['clients']:3} clients: {step['answers_per_second']:6.2f} a second, p99 {step['p99']:.3f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
