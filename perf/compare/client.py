"""The clients of a server, as one process: `python -m perf.compare.client URL KIND CLIENTS SECONDS`.

Threads with one kept connection each send the next picture as soon as an answer is there. The same for every server;
KIND says how a picture is wrapped: ``raw`` (body), ``json`` (base64) or ``triton`` (KServe v2 with binary tensors).
Prints JSON: for each answer when it came (s), how long it took (s), and which picture it was.
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

OUTPUTS = ("mesh", "coefficients", "landmarks", "face", "camera", "warnings")


def wrapped(kind: str, data: bytes) -> tuple[bytes, dict[str, str]]:
    """Body and headers of a request."""
    if kind == "raw":
        return data, {"Content-Type": "application/octet-stream"}
    if kind == "json":
        return json.dumps({"image": base64.b64encode(data).decode()}).encode(), {"Content-Type": "application/json"}
    payload = struct.pack("<I", len(data)) + data
    image = {"name": "image", "datatype": "BYTES", "shape": [1, 1], "parameters": {"binary_data_size": len(payload)}}
    outputs = [{"name": name, "parameters": {"binary_data": True}} for name in OUTPUTS]
    head = json.dumps({"inputs": [image], "outputs": outputs}).encode()
    return head + payload, {
        "Inference-Header-Content-Length": str(len(head)),
        "Content-Type": "application/octet-stream",
    }


def drive(url: str, kind: str, clients: int, seconds: float) -> list[tuple[float, float, int]]:
    """Keep ``clients`` requests in flight for so long, and wait for the last ones.

    Raises:
        RuntimeError: an answer was not 200; a comparison with errors in it is none.
    """
    address, _, path = url.removeprefix("http://").partition("/")
    requests = [wrapped(kind, data) for data in photos.mix().values()]
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
            asked = time.perf_counter()
            connection.request("POST", f"/{path}", body, headers)
            answer = connection.getresponse()
            content = answer.read()
            if answer.status != 200:
                failures.append(f"{answer.status}: {content[:200]!r}")
            now = time.perf_counter()
            done.append((now - start, now - asked, index))
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
    print(json.dumps(drive(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))))
