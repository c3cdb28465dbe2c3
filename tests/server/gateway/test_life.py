"""The gateway before, between and after: while Triton is not there, when it dies, and when it is told to stop."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from deploy.exposition import parse
from server.embedded import EmbeddedServer, ServerOptions, on_free_ports
from server.errors import PortTaken
from server.gateway.process import GatewayOptions, GatewayProcess
from server.repository import ROOT
from tests.server.gateway.conftest import ask, wait_ready
from tests.server.repositories import ECHO, ensemble, python_model
from tests.servers import serving

# Answers once the file `open` is in its folder.
SLOW = """\
def initialize(self, args):
    self.gate = os.path.join(args['model_repository'], 'open')

def execute(self, requests):
    end = time.time() + 100
    while not os.path.exists(self.gate) and time.time() < end:
        time.sleep(0.02)
    return [answer(r, pb_utils.get_input_tensor_by_name(r, 'x').as_numpy()) for r in requests]
"""


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("repository")
    python_model(folder, "echo", ECHO)
    python_model(folder, "slow", SLOW, "dynamic_batching { max_queue_delay_microseconds: 100000 }\n")
    ensemble(folder, "quick", ("echo",), "y")
    ensemble(folder, "long", ("slow",), "y")
    return folder


@pytest.fixture
def gate(repository: Path) -> Iterator[Path]:
    """The file for which the ensemble `long` waits; it is there when the test is over."""
    path = repository / "slow" / "open"
    path.unlink(missing_ok=True)
    yield path
    path.touch()


@pytest.fixture
def free_ports() -> tuple[str, str]:
    """Two addresses at which nobody listens."""
    with socket.socket() as first, socket.socket() as second:
        first.bind(("127.0.0.1", 0))
        second.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{first.getsockname()[1]}", f"127.0.0.1:{second.getsockname()[1]}"


@pytest.fixture(scope="module")
def triton(repository: Path) -> Iterator[EmbeddedServer]:
    """The server behind the gateways of this file; a test that ends it starts it again."""
    with serving(on_free_ports(ServerOptions(repository=repository))) as running:
        yield running


@contextlib.contextmanager
def in_front_of(triton: EmbeddedServer, **options: Any) -> Iterator[GatewayProcess]:
    """A gateway of the test's own, ready."""
    repository = triton.options.repository
    made = GatewayOptions(triton.http, triton.grpc, repository=repository, status_port=0, **options)
    started = GatewayProcess(made).start()
    try:
        wait_ready(started)
        yield started
    finally:
        if started.poll() is None:
            started.kill()


def infer(gateway: GatewayProcess, model: str, timeout: float = 120) -> Any:
    """One request over gRPC: the values that came back, or the status and sentence."""
    request = pb.ModelInferRequest(model_name=model)
    request.inputs.add(name="x", datatype="FP32", shape=[1, 4])
    request.raw_input_contents.append(np.arange(4, dtype=np.float32).tobytes())
    with grpc.insecure_channel(gateway.grpc, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        try:
            answer = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=timeout)
        except grpc.RpcError as error:
            return error.code(), error.details()
    return np.frombuffer(answer.raw_output_contents[0], np.float32).tolist()


def infer_http(gateway: GatewayProcess, model: str) -> int:
    body = b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [0, 1, 2, 3]}]}'
    return ask(gateway.http, "POST", f"/v2/models/{model}/infer", body).status


def inside(gateway: GatewayProcess) -> int:
    """How many inference requests are inside the gateway."""
    assert gateway.status
    page = ask(gateway.status, "GET", "/metrics").body.decode()
    return int(next(sample.value for sample in parse(page) if sample.name == "face3d_gateway_in_flight"))


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_without_triton_requests_are_answered_at_once(repository: Path, free_ports: tuple[str, str]) -> None:
    with GatewayProcess(GatewayOptions(*free_ports, repository=repository)) as gateway:
        code, sentence = infer(gateway, "quick")
        assert code is grpc.StatusCode.UNAVAILABLE
        assert sentence.startswith("[ServerUnavailable] the server is starting")
        answer = ask(gateway.http, "POST", "/v2/models/quick/infer", b"{}")
        assert answer.status == 503
        assert answer.headers["Retry-After"] == "1"
        assert "[ServerUnavailable] the server is starting" in answer.error
        assert ask(gateway.http, "GET", "/v2/health/live").status == 200
        assert ask(gateway.http, "GET", "/v2/health/ready").status == 503
        assert ask(gateway.http, "GET", "/v2/models/quick/ready").status == 503
        assert ask(gateway.http, "GET", "/healthz").body == b"starting\n"


def test_triton_may_die_and_come_back_behind_it(triton: EmbeddedServer, gate: Path) -> None:
    with in_front_of(triton) as gateway:
        assert infer(gateway, "quick") == [0, 1, 2, 3]
        with ThreadPoolExecutor(2) as pool:
            waiting = [pool.submit(infer, gateway, "long"), pool.submit(infer_http, gateway, "long")]
            until(lambda: inside(gateway) == 2)
            triton.kill()
            triton.wait(60)
            code, sentence = waiting[0].result()
            assert code is grpc.StatusCode.UNAVAILABLE
            assert sentence.startswith("[ServerUnavailable] the server ended while it worked on this request")
            assert waiting[1].result() == 503
        until(lambda: ask(gateway.http, "GET", "/healthz").status == 503)
        assert infer(gateway, "quick")[1].startswith("[ServerUnavailable] the server is starting")
        triton.restart()
        wait_ready(gateway)
        assert infer(gateway, "quick") == [0, 1, 2, 3]
        assert infer_http(gateway, "quick") == 200


def test_told_to_stop_it_answers_what_is_inside_and_refuses_the_rest(triton: EmbeddedServer, gate: Path) -> None:
    with in_front_of(triton) as gateway, ThreadPoolExecutor(13) as pool:
        begun = [pool.submit(infer, gateway, "long") for _ in range(6)]
        begun_http = [pool.submit(infer_http, gateway, "long") for _ in range(6)]
        until(lambda: inside(gateway) == 12)
        drained = pool.submit(gateway.drain, 60)
        until(lambda: ask(gateway.http, "GET", "/v2/health/ready").status == 503)
        assert ask(gateway.http, "GET", "/healthz").body == b"draining\n"
        code, sentence = infer(gateway, "quick")
        assert code is grpc.StatusCode.UNAVAILABLE
        assert sentence.startswith("[ServerUnavailable] the server is shutting down")
        assert infer_http(gateway, "quick") == 503
        gate.touch()
        assert [one.result() for one in begun] == [[0, 1, 2, 3]] * 6
        assert [one.result() for one in begun_http] == [200] * 6
        assert drained.result()


def test_what_takes_longer_than_the_exit_timeout_is_given_up(triton: EmbeddedServer, gate: Path) -> None:
    with in_front_of(triton, exit_timeout=0.2) as gateway, ThreadPoolExecutor(1) as pool:
        begun = pool.submit(infer, gateway, "long")
        until(lambda: inside(gateway) == 1)
        assert not gateway.drain(60)
        assert begun.result()[0] in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


def test_a_second_signal_ends_it_at_once(triton: EmbeddedServer, gate: Path) -> None:
    with in_front_of(triton) as gateway, ThreadPoolExecutor(1) as pool:
        begun = pool.submit(infer, gateway, "long")
        until(lambda: inside(gateway) == 1)
        os.kill(gateway.pid, signal.SIGTERM)
        until(lambda: ask(gateway.http, "GET", "/healthz").body == b"draining\n")
        assert gateway.poll() is None
        os.kill(gateway.pid, signal.SIGINT)
        until(lambda: gateway.poll() is not None)
        assert gateway.poll() == 1
        assert begun.result()[0] in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


def test_an_idle_gateway_ends_with_status_0(repository: Path, free_ports: tuple[str, str]) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        gateway = GatewayProcess(GatewayOptions(*free_ports, repository=repository)).start()
        os.kill(gateway.pid, number)
        until(lambda process=gateway: process.poll() is not None)  # type: ignore[misc]
        assert gateway.poll() == 0


@pytest.mark.parametrize("kind", ["http", "grpc", "status"])
def test_a_port_that_is_taken_is_named(repository: Path, free_ports: tuple[str, str], kind: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ports: dict[str, Any] = {f"{kind}_port": taken.getsockname()[1]}
        with pytest.raises(PortTaken, match=rf"port {taken.getsockname()[1]} \({kind}\).*--{kind}-port"):
            GatewayProcess(GatewayOptions(*free_ports, repository=repository, **ports)).start()


def test_two_gateways_cannot_share_a_port(repository: Path, free_ports: tuple[str, str]) -> None:
    with GatewayProcess(GatewayOptions(*free_ports, repository=repository)) as first:
        for kind, address in (("http", first.http), ("grpc", first.grpc)):
            ports: dict[str, Any] = {f"{kind}_port": int(address.rpartition(":")[2])}
            with pytest.raises(PortTaken):
                GatewayProcess(GatewayOptions(*free_ports, repository=repository, **ports)).start()


def test_one_that_died_is_started_again_on_its_ports(triton: EmbeddedServer) -> None:
    with in_front_of(triton) as gateway:
        ports = {
            kind: int(address.rpartition(":")[2]) for kind, address in (("http", gateway.http), ("grpc", gateway.grpc))
        }
        stop = threading.Event()
        thread = threading.Thread(target=lambda: [infer(gateway, "quick", 1) for _ in iter(stop.is_set, True)])
        thread.start()
        os.kill(gateway.pid, signal.SIGKILL)
        until(lambda: gateway.poll() is not None)
        options = GatewayOptions(
            triton.http,
            triton.grpc,
            repository=triton.options.repository,
            http_port=ports["http"],
            grpc_port=ports["grpc"],
        )
        with GatewayProcess(options) as again:
            stop.set()
            thread.join()
            wait_ready(again)
            assert infer(again, "quick") == [0, 1, 2, 3]


def test_it_ends_with_the_process_that_started_it(repository: Path, free_ports: tuple[str, str]) -> None:
    program = textwrap.dedent(f"""
        import sys, time
        from pathlib import Path
        from server.gateway.process import GatewayOptions, GatewayProcess
        options = GatewayOptions({free_ports[0]!r}, {free_ports[1]!r}, repository=Path({str(repository)!r}))
        print(GatewayProcess(options).start().pid, flush=True)
        time.sleep(60)
    """)
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
    until(lambda: not _alive(pid))


def _alive(pid: int) -> bool:
    """Whether a process runs; one that ended and that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
