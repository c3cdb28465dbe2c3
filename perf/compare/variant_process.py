"""One variant as a process: `python -m perf.compare.variant_process NAME [--product PRODUCT] [--port P]`.

``eager_loop``, ``eager_loop_same`` and ``bare_onnx`` have no server: they read lines of JSON,
``{"clients": 4, "seconds": 6}``, and answer each with a line of JSON, a list of completions; that many requests are
always waiting, and the loop takes the oldest.
The others serve HTTP on the port.
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
from perf.compare.names import BENTOML, FASTAPI, LOOPS, NAMES, PRODUCTS, SERVICE
from perf.compare.pipelines import Pipeline, pipeline
from server.arguments import whole_number

Completion = tuple[float, float, int]  # seconds after the start, latency in seconds, index of the picture


def loop(kind: str, product: str) -> None:
    """Answer the lines of stdin until it ends, with one kind of pipeline."""
    pipe = pipeline(kind, product)
    files = list(photos.mix().values())
    for data in files:
        pipe.run(data)
    print("ready", flush=True)
    for line in sys.stdin:
        window = json.loads(line)
        print(json.dumps(_closed_loop(pipe, kind, files, window["clients"], window["seconds"])), flush=True)


def _closed_loop(pipe: Pipeline, kind: str, files: list[bytes], clients: int, seconds: float) -> list[Completion]:
    """Keep ``clients`` requests waiting for ``seconds``; ONNX gets a worker a core, eager PyTorch is one loop."""
    workers = min(clients, len(os.sched_getaffinity(0))) if kind == "onnx_parallel" else 1
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
            if workers > 1:
                pipe.run(data, alone=False)  # type: ignore[call-arg]
            else:
                pipe.run(data)
            now = time.perf_counter()
            with lock:
                done.append((now - start, now - asked, index % len(files)))
                if now - start < seconds:
                    waiting.append((now, number))
                    number += 1

    with ThreadPoolExecutor(workers) as pool:
        for future in [pool.submit(work) for _ in range(workers)]:
            future.result()
    return done


def fastapi(kind: str, product: str, port: int) -> None:
    """Serve eager networks; one thread computes, as PyTorch itself uses every core."""
    import uvicorn
    from fastapi import FastAPI, Request, Response

    pipe = pipeline(kind, product)
    pool = ThreadPoolExecutor(1)
    app = FastAPI()

    async def reconstruct(request: Request) -> Response:
        data = await request.body()
        answer = await asyncio.get_running_loop().run_in_executor(pool, pipe.run, data)
        return Response(answer.pack(), media_type="application/octet-stream")

    # Annotations are strings here and their names are local: FastAPI reads them as they are.
    reconstruct.__annotations__ = {"request": Request, "return": Response}
    app.post("/predict", response_model=None)(reconstruct)
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", access_log=False)


def main() -> None:
    """Run the variant that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=[name for name in NAMES if name != SERVICE])
    parser.add_argument("--product", choices=PRODUCTS, default=PRODUCTS[0])
    parser.add_argument("--port", type=whole_number(0, 65535), default=0)
    options = parser.parse_args()
    if options.name in LOOPS:
        loop(LOOPS[options.name], options.product)
    elif options.name in FASTAPI:
        fastapi(FASTAPI[options.name], options.product, options.port)
    elif options.name == BENTOML:
        from perf.compare import bento  # as below

        bento.serve(options.product, options.port)
    else:
        from perf.compare import lit  # LitServe takes a second to import

        lit.serve(options.name.removeprefix("litserve_"), options.product, options.port)


if __name__ == "__main__":
    main()
