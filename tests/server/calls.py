"""Small calls to a running server for tests: one FP32 tensor in, arrays out, each call on its own connection."""

from __future__ import annotations

import contextlib
import re
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import tritonclient.grpc as triton_grpc
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2_grpc

from server import stub_processes
from server.embedded import EmbeddedServer

_TYPES = {"float32": "FP32", "int64": "INT64", "float64": "FP64"}


def infer(
    server: EmbeddedServer, model: str, outputs: Sequence[str] = (), timeout: float | None = 60, **inputs: NDArray[Any]
) -> dict[str, NDArray[Any]]:
    """One request by gRPC; the outputs by name (all that the model has when none is named)."""
    tensors = []
    for name, value in inputs.items():
        tensor = triton_grpc.InferInput(name, value.shape, _TYPES[value.dtype.name])
        tensor.set_data_from_numpy(value)
        tensors.append(tensor)
    wanted = [triton_grpc.InferRequestedOutput(name) for name in outputs] or None
    with triton_grpc.InferenceServerClient(server.grpc) as client:
        result = client.infer(model, tensors, outputs=wanted, client_timeout=timeout)
        names = [output.name for output in result.get_response().outputs]
        return {name: result.as_numpy(name) for name in names}


@contextlib.contextmanager
def raw(server: EmbeddedServer) -> Iterator[Any]:
    """Triton's gRPC service without a client that checks what is sent."""
    options = [("grpc.max_receive_message_length", -1)]  # a texture alone has 3 MiB
    with grpc.insecure_channel(server.grpc, options=options) as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


@contextlib.contextmanager
def every_process_stays(server: EmbeddedServer) -> Iterator[None]:
    """Fail when tritonserver or one of its models' processes has ended meanwhile, also if it was replaced."""
    before = stub_processes.stubs(server.pid)
    yield
    assert server.poll() is None, server.log()[-2000:]
    assert stub_processes.stubs(server.pid) == before, "a process was lost"


def at_once(count: int, call: Callable[[int], Any]) -> list[Any]:
    """Run ``call(0)`` ... ``call(count - 1)`` at the same time; results, or exceptions in their place."""

    def guarded(index: int) -> Any:
        try:
            return call(index)
        except Exception as error:
            return error

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(guarded, range(count)))


def rows(*values: float) -> NDArray[np.float32]:
    """One row of four equal numbers for each value: an ``x`` for the arithmetic model."""
    return np.repeat(np.array(values, np.float32)[:, None], 4, axis=1)


def counter(server: EmbeddedServer, metric: str, model: str) -> float:
    """The value of a metric of one model on the server's metrics page, summed over its versions; 0 if absent."""
    with urllib.request.urlopen(f"http://{server.metrics}/metrics", timeout=10) as page:
        text = page.read().decode()
    lines = re.findall(rf'^{metric}{{[^}}]*model="{model}"[^}}]*}} (\S+)$', text, re.MULTILINE)
    return sum(float(value) for value in lines)


def settled_counter(server: EmbeddedServer, metric: str, model: str) -> float:
    """The value of a metric once it stands still: Triton counts a request shortly after it has answered it."""
    value = counter(server, metric, model)
    while True:
        time.sleep(0.2)
        before, value = value, counter(server, metric, model)
        if value == before:
            return value
