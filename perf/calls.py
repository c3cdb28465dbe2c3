"""Requests with NVIDIA's client, so that measurements do not depend on the project's own."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import np_to_triton_dtype

OUTPUTS = ("mesh", "coefficients", "landmarks", "face", "camera", "warnings")
"""Outputs of a client that needs the mesh and the numbers."""


class Calls:
    """Sends synchronous requests over one gRPC channel; may be used by many threads."""

    def __init__(self, address: str) -> None:
        self.client = triton.InferenceServerClient(address)

    def ask(self, model: str, inputs: Mapping[str, Any], outputs: Sequence[str]) -> dict[str, Any]:
        """Send one request.

        Args:
            model: of the repository.
            inputs: name -> array without the batch axis, or file bytes.
            outputs: names.

        Returns:
            name -> array without the batch axis.

        Raises:
            InferenceServerException: the server refused the request.
        """
        tensors = []
        for name, value in inputs.items():
            array = np.array([value], np.object_) if isinstance(value, bytes) else np.asarray(value)
            tensor = triton.InferInput(name, [1, *array.shape], np_to_triton_dtype(array.dtype))
            tensor.set_data_from_numpy(array[None])
            tensors.append(tensor)
        requested = [triton.InferRequestedOutput(name) for name in outputs]
        result = self.client.infer(model, tensors, outputs=requested, client_timeout=120)
        return {name: result.as_numpy(name)[0] for name in outputs}

    def statistics(self) -> dict[str, dict[str, float]]:
        """Return model -> pictures, executions, and milliseconds in queue and computation, since the server started."""
        totals: dict[str, dict[str, float]] = {}
        for entry in self.client.get_inference_statistics(as_json=True)["model_stats"]:
            stats = entry.get("inference_stats", {})
            parts = {
                part: int(stats.get(part, {}).get("ns", 0)) / 1e6
                for part in ("queue", "compute_input", "compute_infer", "compute_output", "success")
            }
            counts = {"count": int(entry.get("inference_count", 0)), "runs": int(entry.get("execution_count", 0))}
            before = totals.get(entry["name"], {})
            totals[entry["name"]] = {key: value + before.get(key, 0.0) for key, value in (parts | counts).items()}
        return totals


def settled_statistics(read: Callable[[], dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Read statistics until they stop changing: Triton counts a request shortly after its response."""
    latest = read()
    for _ in range(20):
        time.sleep(0.3)
        before, latest = latest, read()
        if latest == before:
            break
    return latest


def timed(call: Callable[[], object], rounds: int) -> list[float]:
    """Return the seconds of each of ``rounds`` calls, after one warm-up."""
    call()
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return seconds


def run_concurrently(call: Callable[[int], object], clients: int, seconds: float) -> tuple[list[float], int]:
    """Keep ``clients`` calls in flight for ``seconds``; return latencies in seconds and the number of failures."""
    latencies: list[float] = []
    failed = 0
    end = time.perf_counter() + seconds

    def work(first: int) -> None:
        nonlocal failed
        number = first
        while time.perf_counter() < end:
            start = time.perf_counter()
            try:
                call(number)
            except Exception:  # any error is a request without a response
                failed += 1
            else:
                latencies.append(time.perf_counter() - start)
            number += clients

    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(work, range(clients)))
    return latencies, failed
