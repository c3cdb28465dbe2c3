"""A service whose processes die, hang or are killed comes back by itself, every time."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from server.backoff import Backoff
from server.control import Control, ControlError
from server.probe import PORTRAIT, check
from tests.server.commands import FREE_PORTS, Command
from tests.server.repositories import ECHO, arithmetic, ensemble, python_model
from tests.service import Refusal, Service

SUPERVISED = (*FREE_PORTS, "--supervise", "0.5", "--supervisor-port", "0")
# Its process stops itself while the model is loaded, as often as the marker says: the start hangs.
STOPPING = """\
def initialize(self, args):
    marker = os.path.join(args['model_repository'], 'hang')
    if os.path.exists(marker):
        os.remove(marker)
        os.kill(os.getpid(), 19)
"""


@pytest.fixture
def commands() -> Iterator[list[Command]]:
    started: list[Command] = []
    yield started
    for command in started:
        command.process.kill()
        command.end()


def wait_until_answered(command: Command, control: Control, model: str, limit: float = 60) -> None:
    """Until the gateway passes requests on and the model answers one."""
    deadline = time.monotonic() + limit
    while True:
        with contextlib.suppress(ControlError):
            check(control, model, timeout=5)
            return
        assert command.process.poll() is None, command.errors
        assert time.monotonic() < deadline, command.errors
        time.sleep(0.05)


def metrics(command: Command, address: str) -> dict[str, float]:
    """The supervisor's page."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as page:
        lines = [line.split() for line in page.read().decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in lines}


def test_the_gateway_says_that_the_server_is_starting_after_each_of_three_deaths(
    tmp_path: Path, commands: list[Command]
) -> None:
    arithmetic(tmp_path)
    ensemble(tmp_path, "chain", ["arithmetic"])
    command = Command("--repository", str(tmp_path), *SUPERVISED)
    commands.append(command)
    public, gateway = Control(command.ready()), command.gateway_pid()
    address = command.supervisor()
    check(public, "chain")
    for _ in range(3):
        server = command.server_pid()
        assert server is not None
        os.kill(server, signal.SIGKILL)
        refused = b""
        while b"[ServerUnavailable] the server is starting" not in refused:
            try:
                check(public, "chain", timeout=5)
            except ControlError as error:
                refused = str(error).encode()
            assert command.process.poll() is None, command.errors
        wait_until_answered(command, public, "chain")
        assert command.server_pid() != server
    assert command.gateway_pid() == gateway
    seen = metrics(command, address)
    assert seen["face3d_restarts_total"] == 3
    assert (seen["face3d_failed_restarts_total"], seen["face3d_gateway_restarts_total"]) == (0, 0)
    assert seen["face3d_gateway_ready"] == 1, "the gateway's own page is part of it"


def test_a_start_that_hangs_is_tried_again(tmp_path: Path, commands: list[Command]) -> None:
    python_model(tmp_path, "stopping", STOPPING + ECHO)
    (tmp_path / "stopping" / "hang").touch()  # the first start hangs
    command = Command("--repository", str(tmp_path), *SUPERVISED)
    commands.append(command)
    public = Control(command.ready())
    hung = "trying again: the start has done nothing for"
    assert sum(line.startswith(hung) for line in command.errors) == 1, command.errors
    (tmp_path / "stopping" / "hang").touch()  # and so does the one after a death
    server = command.server_pid()
    assert server is not None
    os.kill(server, signal.SIGKILL)
    while command.server_pid() == server:
        time.sleep(0.01)
    wait_until_answered(command, public, "stopping")
    assert sum(line.startswith(hung) for line in command.errors) == 2, command.errors


def test_a_gateway_that_dies_is_started_again_on_the_same_ports(tmp_path: Path, commands: list[Command]) -> None:
    arithmetic(tmp_path)
    command = Command("--repository", str(tmp_path), *SUPERVISED)
    commands.append(command)
    public = Control(command.ready())
    address = command.supervisor()
    server = command.server_pid()
    for number in (signal.SIGKILL, signal.SIGSEGV):
        gateway = command.gateway_pid()
        os.kill(gateway, number)
        wait_until_answered(command, public, "arithmetic")
        assert command.gateway_pid() != gateway
    assert command.server_pid() == server
    assert metrics(command, address)["face3d_gateway_restarts_total"] == 2
    command.process.terminate()
    assert command.end() == 0


def test_no_process_is_left_when_the_service_is_killed(tmp_path: Path, commands: list[Command]) -> None:
    arithmetic(tmp_path, count=2)
    command = Command("--repository", str(tmp_path), *SUPERVISED)
    commands.append(command)
    command.ready()
    family = psutil.Process(command.process.pid).children(recursive=True)
    assert len(family) >= 4  # gateway, tritonserver, two stubs
    command.process.kill()
    command.process.wait()
    _, alive = psutil.wait_procs(family, timeout=60)
    assert [process.cmdline() for process in alive] == []


def test_a_model_that_cannot_be_loaded_at_the_first_start_ends_a_supervised_service_too(
    tmp_path: Path, commands: list[Command]
) -> None:
    python_model(tmp_path, "sick", "def initialize(self, args):\n    raise ValueError('the topology is missing')")
    commands.append(Command("--repository", str(tmp_path), *SUPERVISED))
    assert commands[0].end() == 1
    own = [line for line in commands[0].errors if not line.startswith("gateway: ")]
    assert own[-1] == "error: the model 'sick' failed to load: the topology is missing"


def test_a_model_that_cannot_be_loaded_after_a_death_is_tried_until_it_can(
    tmp_path: Path, commands: list[Command]
) -> None:
    folder = arithmetic(tmp_path)
    command = Command("--repository", str(tmp_path), *SUPERVISED)
    commands.append(command)
    public = Control(command.ready())
    address = command.supervisor()
    aside = tmp_path.with_name("aside.onnx")
    (folder / "1" / "model.onnx").rename(aside)
    server = command.server_pid()
    assert server is not None
    os.kill(server, signal.SIGKILL)
    again = "supervisor: tritonserver could not be started again, the next try follows: "
    deadline = time.monotonic() + 60
    while sum(line.startswith(again) for line in command.errors) < 4:
        assert time.monotonic() < deadline, command.errors
        assert command.process.poll() is None, command.errors
        time.sleep(0.05)
    with pytest.raises(urllib.error.HTTPError, match="503"):
        urllib.request.urlopen(f"http://{address}/healthz", timeout=10).close()
    aside.rename(folder / "1" / "model.onnx")
    wait_until_answered(command, public, "arithmetic")
    assert metrics(command, address)["face3d_failed_restarts_total"] >= 4


def test_waits_grow_to_a_ceiling_and_end_after_a_long_life(monkeypatch: pytest.MonkeyPatch) -> None:
    backoff = Backoff()
    assert [backoff.delay() for _ in range(100)][:6] == [0.25, 0.5, 1.0, 2.0, 2.0, 2.0]
    assert backoff.delay() == 2.0
    now = time.monotonic()
    backoff.started()
    monkeypatch.setattr(time, "monotonic", lambda: now + 60)
    assert backoff.delay() == 0.0
    backoff.started()
    assert backoff.delay() == 0.25


def end_by_signal(command: Command) -> None:
    """SIGKILL, as the kernel sends it where memory is short."""
    server = command.server_pid()
    if server is not None:
        os.kill(server, signal.SIGKILL)


def end_by_request(command: Command) -> None:
    """A classification of a BYTES output: tritonserver 2.51 divides by zero. (The gateway refuses it.)"""
    picture = PORTRAIT.read_bytes()
    payload = len(picture).to_bytes(4, "little") + picture
    size = {"binary_data_size": len(payload)}
    image = {"name": "image", "datatype": "BYTES", "shape": [1, 1], "parameters": size}
    wanted = {"name": "warnings", "parameters": {"classification": 1}}
    header = json.dumps({"inputs": [image], "outputs": [wanted]}).encode()
    request = urllib.request.Request(
        f"http://{command.triton_http}/v2/models/face3d/infer",
        header + payload,
        {"Inference-Header-Content-Length": str(len(header))},
    )
    with contextlib.suppress(OSError):
        urllib.request.urlopen(request, timeout=30).close()


@pytest.mark.soak
def test_the_real_service_is_back_within_ten_seconds_after_each_of_a_hundred_deaths() -> None:
    deaths = int(os.environ.get("FACE3D_SOAK_DEATHS", "100"))
    command = Command(*SUPERVISED)
    seconds: list[float] = []
    try:
        command.ready()
        address = command.supervisor()
        service = Service(command.grpc)
        for number in range(deaths):
            server = command.server_pid()
            (end_by_request if number % 2 else end_by_signal)(command)
            began = time.monotonic()
            while True:
                assert command.process.poll() is None, command.errors
                with contextlib.suppress(Refusal):
                    service.ask(PORTRAIT.read_bytes(), outputs=("coefficients",), timeout=10)
                    if command.server_pid() != server:  # the old one may have answered a last time
                        break
                time.sleep(0.05)
            seconds.append(time.monotonic() - began)
        seen = metrics(command, address)
    finally:
        command.process.terminate()
        status = command.end()
    tries = sum("trying again" in line for line in command.errors)
    print(
        f"\n{deaths} deaths, back after {sorted(seconds)[deaths // 2]:.1f} s (median), {max(seconds):.1f} s (longest), "
    )
    print(f"{tries} starts tried again; supervisor: {seen}")
    assert seen["face3d_restarts_total"] == deaths
    # On a machine that others keep busy a start takes longer than the ten seconds that are promised for one of its own.
    assert os.environ.get("FACE3D_SOAK_AT_LEISURE") == "1" or max(seconds) < 10
    assert status == 0
