"""`python -m perf.measure`: the table of the README, measured on a server of its own.

All figures come from one run. Times are medians over rounds; on a shared machine only ratios are meaningful, so the
table names what each figure is relative to.
"""

from __future__ import annotations

import argparse
import io
import os
import platform
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import requests
from face3d_client import Face3DClient
from PIL import Image

from perf import store
from perf.calls import timed
from perf.machine import keep_heap, resident_mb
from perf.photos import astronaut
from server.arguments import whole_number
from server.embedded import EmbeddedServer, ServerOptions, on_free_ports

CLIENTS = 16


def phone_photo(portrait: Path) -> bytes:
    """Make a 12-megapixel JPEG (4000 x 3000 after rotation by its EXIF tag) with the portrait in the middle."""
    with Image.open(portrait) as picture:
        face = picture.convert("RGB").resize((2600, 2600), Image.Resampling.BICUBIC)
    canvas = Image.new("RGB", (4000, 3000), (96, 110, 120))
    canvas.paste(face, (700, 200))
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by 90 degrees, as telephones write it
    out = io.BytesIO()
    canvas.rotate(90, expand=True).save(out, "JPEG", quality=90, exif=exif)
    return out.getvalue()


def counters(metrics: str, name: str) -> dict[str, float]:
    """Return model -> value of one of Triton's counters."""
    values: dict[str, float] = {}
    for line in requests.get(f"http://{metrics}/metrics", timeout=5).text.splitlines():
        if line.startswith(name + "{"):
            model = line.split('model="', 1)[1].split('"', 1)[0]
            values[model] = values.get(model, 0.0) + float(line.rsplit(" ", 1)[1])
    return values


def fineness(address: str, photograph: bytes, rounds: int) -> str:
    """Say how much longer a texture of 2048 texels takes than one of 512."""
    with Face3DClient(address, timeout=120) as client:
        fine, coarse = (
            statistics.median(timed(partial(client.reconstruct, photograph, texture_size=size), rounds))
            for size in (2048, 512)
        )
    return f"{fine / coarse:.2f} times as long"


def main(arguments: argparse.Namespace) -> None:
    """Measure and print the table in Markdown."""
    keep_heap()
    photo = astronaut()
    small = photo.read_bytes()
    large = phone_photo(photo)
    rows: list[tuple[str, str]] = []
    began = time.monotonic()
    with EmbeddedServer(on_free_ports(ServerOptions())) as server:
        rows.append(("server start until every ensemble answers", f"{time.monotonic() - began:.1f} s"))
        with Face3DClient(server.grpc, timeout=120) as client:
            mesh = timed(lambda: client.reconstruct(small), arguments.rounds)
            numbers = timed(lambda: client.reconstruct(small, outputs=["coefficients", "landmarks"]), arguments.rounds)
            boxes = timed(lambda: client.detect(small), arguments.rounds)
            phone = timed(lambda: client.reconstruct(large), max(3, arguments.rounds // 3))
            one, half = statistics.median(mesh), statistics.median(numbers)
            rows.append(("one photograph (512 x 512) to GLB, gRPC, one client, median", f"{one * 1000:.0f} ms"))
            rows.append(("the same, coefficients and landmarks only", f"{half * 1000:.0f} ms ({half / one:.2f} of it)"))
            found = statistics.median(boxes)
            rows.append(("detection only", f"{found * 1000:.0f} ms ({found / one:.2f})"))
            ratio = statistics.median(phone) / one
            rows.append(("a 12-megapixel, EXIF-rotated JPEG against that", f"{ratio:.2f} times as long"))

            before = (
                counters(server.metrics, "nv_inference_count"),
                counters(server.metrics, "nv_inference_exec_count"),
            )
            latencies: list[float] = []

            def one_call(_: int) -> None:
                start = time.perf_counter()
                client.reconstruct(small)
                latencies.append(time.perf_counter() - start)

            start = time.perf_counter()
            with ThreadPoolExecutor(CLIENTS) as pool:
                list(pool.map(one_call, range(arguments.requests)))
            took = time.perf_counter() - start
            after = (
                counters(server.metrics, "nv_inference_count"),
                counters(server.metrics, "nv_inference_exec_count"),
            )
            rate = arguments.requests / took
            p50, p99 = np.percentile(latencies, [50, 99])
            rows.append(
                (f"{CLIENTS} clients: photographs to GLB a second", f"{rate:.2f} ({rate * one:.2f} times one client)")
            )
            rows.append((f"{CLIENTS} clients: p99 / p50 of {arguments.requests} requests", f"{p99 / p50:.2f}"))
            batch = (after[0]["regressor"] - before[0]["regressor"]) / (after[1]["regressor"] - before[1]["regressor"])
            rows.append((f"{CLIENTS} clients: mean batch at the regressor", f"{batch:.1f}"))
        rows.append(("memory of server and models after that", f"{resident_mb(server.pid):.0f} MB"))
        rows.append(
            ("that 12-megapixel JPEG with 2048 texels against 512", fineness(server.grpc, large, arguments.rounds))
        )
    store.save("measure", rows=rows)
    print(f"{platform.machine()}, {os.cpu_count()} cores, {time.strftime('%Y-%m-%d')}\n")
    print("| measured by `python -m perf.measure` | |\n|---|---|")
    for quantity, value in rows:
        print(f"| {quantity} | {value} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=whole_number(1), default=11)
    parser.add_argument("--requests", type=whole_number(1), default=96)
    main(parser.parse_args())
