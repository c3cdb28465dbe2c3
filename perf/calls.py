"""Requests with NVIDIA's own client, so that what is measured is the service and not ours."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import np_to_triton_dtype

OUTPUTS = ("mesh", "coefficients", "landmarks", "face", "camera", "warnings")
"""What a client asks for who wants a mesh and the numbers."""


class Calls:
    """Synchronous calls over one gRPC channel; may be used by many threads."""

    def __init__(self, address: str) -> None:
        self.client = triton.InferenceServerClient(address)

    def ask(self, model: str, inputs: Mapping[str, Any], outputs: Sequence[str]) -> dict[str, Any]:
        """One request; inputs and outputs without the batch axis, file bytes as they are."""
        tensors = []
        for name, value in inputs.items():
            array = np.array([value], np.object_) if isinstance(value, bytes) else np.asarray(value)
            tensor = triton.InferInput(name, [1, *array.shape], np_to_triton_dtype(array.dtype))
            tensor.set_data_from_numpy(array[None])
            tensors.append(tensor)
        asked = [triton.InferRequestedOutput(name) for name in outputs]
        result = self.client.infer(model, tensors, outputs=asked, client_timeout=120)
        return {name: result.as_numpy(name)[0] for name in outputs}

    def statistics(self) -> dict[str, dict[str, float]]:
        """Model -> pictures, executions, and milliseconds in the queue and in computing, since the start."""
        found: dict[str, dict[str, float]] = {}
        for entry in self.client.get_inference_statistics(as_json=True)["model_stats"]:
            stats = entry.get("inference_stats", {})
            parts = {
                part: int(stats.get(part, {}).get("ns", 0)) / 1e6
                for part in ("queue", "compute_input", "compute_infer", "compute_output", "success")
            }
            counts = {"count": int(entry.get("inference_count", 0)), "runs": int(entry.get("execution_count", 0))}
            before = found.get(entry["name"], {})
            found[entry["name"]] = {key: value + before.get(key, 0.0) for key, value in (parts | counts).items()}
        return found


def settled(read: Callable[[], dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Statistics when they have stopped changing: Triton counts a request a moment after its answer."""
    seen = read()
    for _ in range(20):
        time.sleep(0.3)
        before, seen = seen, read()
        if seen == before:
            break
    return seen


def together(call: Callable[[int], object], clients: int, seconds: float) -> tuple[list[float], int]:
    """Keep ``clients`` calls in flight for so long; their latencies in seconds, and how many failed."""
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
            except Exception:  # whatever went wrong is an answer that a client did not get
                failed += 1
            else:
                latencies.append(time.perf_counter() - start)
            number += clients

    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(work, range(clients)))
    return latencies, failed
