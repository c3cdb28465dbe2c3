"""One variant as a process: `python -m perf.compare.subject NAME [--port P]`.

``loop-eager`` (A) and ``loop-onnx`` (D) have no server: they read lines of JSON, ``{"clients": 4, "seconds": 6}``, and
answer each with a line: that many requests are always waiting, and the loop takes the oldest. ``fastapi`` (B),
``litserve-eager``, ``litserve-onnx`` and ``litserve-lanes`` (C) serve HTTP on the port.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor

from perf import photos
from perf.compare.pipelines import Pipeline, pipeline
from server.arguments import whole_number

Completion = tuple[float, float, int]  # when (s after the start), latency (s), which picture
SUBJECTS = ("loop-eager", "loop-onnx", "fastapi", "litserve-eager", "litserve-onnx", "litserve-lanes")


def loop(kind: str) -> None:
    """Answer the lines of stdin until it ends."""
    pipe = pipeline("lanes" if kind == "onnx" else kind)
    files = list(photos.mix().values())
    for data in files:
        pipe.one(data)
    print("ready", flush=True)
    for line in sys.stdin:
        window = json.loads(line)
        print(json.dumps(_closed_loop(pipe, kind, files, window["clients"], window["seconds"])), flush=True)


def _closed_loop(pipe: Pipeline, kind: str, files: list[bytes], clients: int, seconds: float) -> list[Completion]:
    """``clients`` requests are always waiting; the ONNX networks get a worker a core, the eager ones are one loop."""
    lanes = min(clients, len(os.sched_getaffinity(0))) if kind == "onnx" else 1
    start = time.perf_counter()
    waiting = deque((start, index) for index in range(clients))
    done: list[Completion] = []
    lock, number = threading.Lock(), clients

    def work() -> None:
        nonlocal number
        while True:
            with lock:
                if not waiting:
                    return
                asked, index = waiting.popleft()
            data = files[index % len(files)]
            if lanes > 1:
                pipe.one(data, alone=False)  # type: ignore[call-arg]
            else:
                pipe.one(data)
            now = time.perf_counter()
            with lock:
                done.append((now - start, now - asked, index % len(files)))
                if now - start < seconds:
                    waiting.append((now, number))
                    number += 1

    with ThreadPoolExecutor(lanes) as pool:
        for lane in [pool.submit(work) for _ in range(lanes)]:
            lane.result()
    return done


def fastapi(port: int) -> None:
    """B: one thread computes, as torch itself takes every core."""
    import uvicorn
    from fastapi import FastAPI, Request, Response

    pipe = pipeline("eager")
    pool = ThreadPoolExecutor(1)
    app = FastAPI()

    async def reconstruct(request: Request) -> Response:
        data = await request.body()
        answer = await asyncio.get_running_loop().run_in_executor(pool, pipe.one, data)
        return Response(answer.packed(), media_type="application/octet-stream")

    # Annotations are strings here and their names are local: FastAPI reads them as they are.
    reconstruct.__annotations__ = {"request": Request, "return": Response}
    app.post("/predict", response_model=None)(reconstruct)
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", access_log=False)


def main() -> None:
    """Run one variant."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("subject", choices=SUBJECTS)
    parser.add_argument("--port", type=whole_number(0, 65535), default=0)
    options = parser.parse_args()
    family, _, kind = options.subject.partition("-")
    if family == "loop":
        loop(kind)
    elif family == "fastapi":
        fastapi(options.port)
    else:
        from perf.compare import lit  # LitServe takes a second to import

        lit.serve(kind, options.port)


if __name__ == "__main__":
    main()
