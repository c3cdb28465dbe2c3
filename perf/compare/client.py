"""Clients of a server, in one process: `python -m perf.compare.client URL KIND CLIENTS SECONDS`.

Threads with a persistent connection each send the next picture as soon as the last response is there, the same for
every server. KIND is the encoding of a picture: ``raw`` (body), ``json`` (base64), ``face3d`` or ``embed`` (KServe v2
with binary tensors and the outputs of that ensemble). Prints JSON: of each response the completion and the latency in
seconds, and the index of its picture.
"""

from __future__ import annotations

import base64
import http.client
import json
import struct
import sys
import threading
import time

from perf import photos
from perf.machine import keep_heap

OUTPUTS = {
    "face3d": ("mesh", "coefficients", "landmarks", "face", "camera", "warnings"),
    "embed": ("embedding", "quality", "face", "embedder", "warnings"),
}


def encode(kind: str, data: bytes) -> tuple[bytes, dict[str, str]]:
    """Encode a request of one picture's file bytes: body and headers."""
    if kind == "raw":
        return data, {"Content-Type": "application/octet-stream"}
    if kind == "json":
        return json.dumps({"image": base64.b64encode(data).decode()}).encode(), {"Content-Type": "application/json"}
    payload = struct.pack("<I", len(data)) + data
    image = {"name": "image", "datatype": "BYTES", "shape": [1, 1], "parameters": {"binary_data_size": len(payload)}}
    outputs = [{"name": name, "parameters": {"binary_data": True}} for name in OUTPUTS[kind]]
    header = json.dumps({"inputs": [image], "outputs": outputs}).encode()
    return header + payload, {
        "Inference-Header-Content-Length": str(len(header)),
        "Content-Type": "application/octet-stream",
    }


def drive(url: str, kind: str, clients: int, seconds: float) -> list[tuple[float, float, int]]:
    """Keep ``clients`` requests in flight for ``seconds``, and wait for the last ones.

    Returns:
        of each response the completion and the latency in seconds, and the index of its picture.

    Raises:
        RuntimeError: the server refused a request; a comparison with errors is not valid.
    """
    address, _, path = url.removeprefix("http://").partition("/")
    requests = [encode(kind, data) for data in photos.mix().values()]
    done: list[tuple[float, float, int]] = []
    failures: list[str] = []
    number = iter(range(10**9))
    start = time.perf_counter()

    def work() -> None:
        try:
            send()
        except (OSError, http.client.HTTPException) as error:
            failures.append(f"{address}: {error}")

    def send() -> None:
        connection = http.client.HTTPConnection(address, timeout=120)
        while time.perf_counter() - start < seconds and not failures:
            index = next(number) % len(requests)
            body, headers = requests[index]
            sent = time.perf_counter()
            connection.request("POST", f"/{path}", body, headers)
            response = connection.getresponse()
            content = response.read()
            if response.status != 200:
                failures.append(f"{response.status}: {content[:200]!r}")
            now = time.perf_counter()
            done.append((now - start, now - sent, index))
        connection.close()

    threads = [threading.Thread(target=work) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise RuntimeError(failures[0])
    return done


if __name__ == "__main__":
    keep_heap()
    print(json.dumps(drive(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))))
