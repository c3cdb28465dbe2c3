"""Clients that change their mind, run out of time or die: their work is dropped, that of others is not."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import numpy as np
import psutil
import pytest
from tritonclient.grpc import service_pb2 as messages
from tritonclient.grpc import service_pb2_grpc

from server import shared_memory
from server.embedded import EmbeddedServer, ServerOptions, on_free_ports
from tests.server.calls import counter, every_process_stays, infer, raw, rows
from tests.server.repositories import ECHO, ensemble, python_model
from tests.servers import serving

# Works half a second for each request and notes its number in a file beside its code.
SLOW = """\
def execute(self, requests):
    answers = []
    for r in requests:
        x = pb_utils.get_input_tensor_by_name(r, 'x').as_numpy()
        with open(os.path.join(os.path.dirname(__file__), 'done'), 'a') as file:
            file.write(f'{x[0, 0]:.0f}\\n')
        time.sleep(0.5)
        answers.append(answer(r, x))
    return answers
"""
# Works until nobody wants the answer any more; notes that it has begun, and that.
PATIENT = """\
def note(self, word):
    with open(os.path.join(os.path.dirname(__file__), 'done'), 'a') as file:
        file.write(word + '\\n')

def execute(self, requests):
    r, end = requests[0], time.time() + 60
    self.note('begun')
    while not r.is_cancelled() and time.time() < end:
        time.sleep(0.02)
    if r.is_cancelled():
        self.note('dropped')
    return [pb_utils.InferenceResponse([], pb_utils.TritonError('nobody waits', pb_utils.TritonError.CANCELLED))]
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    repository = tmp_path_factory.mktemp("repository")
    for name in ("slow", "after"):
        folder = python_model(repository, name, SLOW, "dynamic_batching {}\n")
        # Small batches: what is in one is no longer in the queue.
        config = (folder / "config.pbtxt").read_text()
        (folder / "config.pbtxt").write_text(config.replace("max_batch_size: 8", "max_batch_size: 2"))
    python_model(repository, "patient", PATIENT)
    python_model(repository, "echo", ECHO)
    ensemble(repository, "chain", ["slow", "after"], "y", batch=2)
    with serving(on_free_ports(ServerOptions(repository=repository, exit_timeout=10))) as running:
        yield running


@pytest.fixture(scope="module")
def stub(server: EmbeddedServer) -> Iterator[Any]:
    with raw(server) as service:
        yield service


@pytest.fixture(autouse=True)
def _healthy_afterwards(server: EmbeddedServer) -> Iterator[None]:
    with every_process_stays(server):
        yield
    until(
        lambda: (
            not any(
                counter(server, "nv_inference_pending_request_count", model)
                for model in ("chain", "slow", "after", "patient")
            )
        )
    )
    assert infer(server, "echo", x=rows(2))["y"].tolist() == rows(2).tolist()


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def request(model: str, value: float) -> Any:
    tensor = messages.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=[1, 4])
    return messages.ModelInferRequest(model_name=model, inputs=[tensor], raw_input_contents=[rows(value).tobytes()])


def value_of(answer: Any) -> float:
    return float(np.frombuffer(answer.raw_output_contents[0], np.float32)[0])


def notes(server: EmbeddedServer, model: str) -> list[str]:
    """What a model has worked on so far."""
    path = server.options.repository / model / "1" / "done"
    return path.read_text().split() if path.exists() else []


def test_requests_that_are_cancelled_in_the_queue_are_not_worked_on(server: EmbeddedServer, stub: Any) -> None:
    first = stub.ModelInfer.future(request("slow", 1))
    until(lambda: "1" in notes(server, "slow"))
    unwanted = [stub.ModelInfer.future(request("slow", value)) for value in range(100, 120)]
    neighbour = stub.ModelInfer.future(request("slow", 2))
    for call in unwanted:
        call.cancel()
    assert all(call.cancelled() for call in unwanted)
    assert (value_of(first.result()), value_of(neighbour.result())) == (1, 2)
    # Some were in a batch before their clients thought better of it.
    assert len({str(value) for value in range(100, 120)} & set(notes(server, "slow"))) < 10


def test_an_ensemble_goes_no_further_when_it_is_cancelled(server: EmbeddedServer, stub: Any) -> None:
    call = stub.ModelInfer.future(request("chain", 300))
    neighbour = stub.ModelInfer.future(request("chain", 4))
    until(lambda: "300" in notes(server, "slow"))
    call.cancel()
    assert value_of(neighbour.result()) == 4
    assert "4" in notes(server, "after")
    assert "300" not in notes(server, "after")


@pytest.mark.parametrize("how", ["cancel", "deadline", "close"])
def test_a_model_can_see_that_nobody_waits(server: EmbeddedServer, stub: Any, how: str) -> None:
    before = notes(server, "patient")
    begun, dropped = [*before, "begun"], [*before, "begun", "dropped"]
    with grpc.insecure_channel(server.grpc) as channel:
        own = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        call = own.ModelInfer.future(request("patient", 5), timeout=3 if how == "deadline" else None)
        until(lambda: notes(server, "patient") in (begun, dropped))
        if how == "cancel":
            call.cancel()
        if how == "deadline":
            assert call.exception().code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert infer(server, "echo", x=rows(3))["y"].tolist() == rows(3).tolist()
    until(lambda: notes(server, "patient") == dropped)


def test_two_hundred_that_cancel_leave_no_memory_and_no_region(server: EmbeddedServer, stub: Any) -> None:
    def cancelled() -> None:
        before = len(notes(server, "patient"))
        call = stub.ModelInfer.future(request("patient", 5))
        until(lambda: len(notes(server, "patient")) == before + 1)
        call.cancel()
        until(lambda: len(notes(server, "patient")) == before + 2)

    for _ in range(20):  # what is allocated once
        cancelled()
    regions, memory = shared_memory.regions(server.shm_prefix), psutil.Process(server.pid).memory_info().rss
    for _ in range(200):
        cancelled()
    assert shared_memory.regions(server.shm_prefix) == regions
    assert psutil.Process(server.pid).memory_info().rss < memory + (8 << 20)


def killed_client(server: EmbeddedServer, code: str) -> None:
    """Run a client until it says that everything is sent, then kill it."""
    process = subprocess.Popen([sys.executable, "-c", code, server.grpc, server.http], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"sent\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()


def test_the_work_of_a_client_that_was_killed_is_dropped(server: EmbeddedServer) -> None:
    dropped, worked = notes(server, "patient").count("dropped"), len(notes(server, "slow"))
    killed_client(
        server,
        """
import sys, time, numpy as np, tritonclient.grpc as g
t = g.InferInput("x", [1, 4], "FP32"); t.set_data_from_numpy(np.full((1, 4), 900, np.float32))
c = g.InferenceServerClient(sys.argv[1])
for model in ["patient"] + ["slow"] * 20: c.async_infer(model, [t], lambda result, error: None)
time.sleep(1); print("sent", flush=True); time.sleep(60)
""",
    )
    assert infer(server, "slow", x=rows(6))["y"].tolist() == rows(6).tolist()
    until(lambda: notes(server, "patient").count("dropped") == dropped + 1)
    assert notes(server, "slow")[worked:].count("900") < 20


def test_a_client_over_http_that_was_killed_harms_nobody(server: EmbeddedServer) -> None:
    killed_client(
        server,
        """
import json, socket, sys, time
host, port = sys.argv[2].split(":")
body = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [7, 7, 7, 7]}]}).encode()
head = f"POST /v2/models/slow/infer HTTP/1.1\\r\\nHost: x\\r\\nContent-Length: {len(body)}\\r\\n\\r\\n".encode()
open_ones = [socket.create_connection((host, int(port))) for _ in range(6)]
for s in open_ones[:4]: s.sendall(head + body)
for s in open_ones[4:]: s.sendall(head + body[:20])
time.sleep(0.2); print("sent", flush=True); time.sleep(60)
""",
    )
    assert infer(server, "slow", x=rows(8))["y"].tolist() == rows(8).tolist()
