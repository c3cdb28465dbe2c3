"""The gateway beside a tritonserver that was started by a plain command line, as in the GPU container."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from server.control import Control, ControlError
from server.embedded import ServerOptions, choose_ports
from server.probe import check
from tests.server.repositories import arithmetic
from tests.servers import serving

# What the container's entry point does, with the server of the wheel on free ports.
PROGRAM = """\
import sys
from deploy.docker import beside
from server.gateway.process import GatewayOptions
http, grpc, public, *command = sys.argv[1:]
options = GatewayOptions(f"127.0.0.1:{http}", f"127.0.0.1:{grpc}", http_port=int(public), models=("arithmetic",))
sys.exit(beside.serve(command, options))
"""


@pytest.fixture
def started(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], Control]]:
    """The two beside each other, with the gateway's HTTP endpoint."""
    arithmetic(tmp_path / "repository")
    with serving(
        ServerOptions(repository=tmp_path / "repository", http_port=0, grpc_port=0, metrics_port=0)
    ) as lender:  # its command line and environment, but for the ports, serve once more
        words, environment = psutil.Process(lender.pid).cmdline(), psutil.Process(lender.pid).environ()
        ports = choose_ports(dict.fromkeys(("http", "grpc", "metrics", "public"), ("127.0.0.1", 0)))
        command = [_with_port(word, ports) for word in words if "shm-region" not in word]
        command.append(f"--backend-config=python,shm-region-prefix-name={lender.shm_prefix}beside")
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *(str(ports[kind]) for kind in ("http", "grpc", "public")), *command],
            env=environment,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        try:
            yield process, Control(f"127.0.0.1:{ports['public']}")
        finally:
            process.terminate()
            process.wait(60)


def _with_port(word: str, ports: dict[str, int]) -> str:
    name, _, _ = word.partition("=")
    kind = name.removeprefix("--").removesuffix("-port")
    return f"{name}={ports[kind]}" if name.endswith("-port") and kind in ports else word


def wait_for(control: Control, wanted: str) -> None:
    """Ask until the answer is this: "" for an inference that succeeds, or part of the refusal's text."""
    deadline, refusal = time.monotonic() + 60, "not asked"
    while wanted not in refusal or bool(wanted) != bool(refusal):
        assert time.monotonic() < deadline, refusal
        try:
            check(control, "arithmetic", timeout=5)
            refusal = ""
        except ControlError as error:
            refusal = str(error)
        time.sleep(0.01)


def triton_of(process: subprocess.Popen[str]) -> int:
    children = psutil.Process(process.pid).children()
    (pid,) = (child.pid for child in children if "tritonserver" in child.name())
    return int(pid)


def lives(orphan: int) -> bool:
    """Whether a process without a parent runs; one that has ended may wait to be collected by the first process."""
    try:
        process = psutil.Process(orphan)
        return bool(process.ppid() == 1 and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def test_it_serves_comes_back_and_ends_when_told(started: tuple[subprocess.Popen[str], Control]) -> None:
    process, control = started
    wait_for(control, "")
    first = triton_of(process)
    stubs = [child.pid for child in psutil.Process(first).children()]
    for stub in stubs:  # so that it does not notice the end of its server
        os.kill(stub, signal.SIGSTOP)
    os.kill(first, signal.SIGKILL)
    wait_for(control, "ServerUnavailable")
    wait_for(control, "")
    family = psutil.Process(process.pid).children(recursive=True)
    assert first not in {child.pid for child in family}
    assert stubs
    assert not any(lives(stub) for stub in stubs)
    process.terminate()
    assert process.wait(60) == 0
    _, alive = psutil.wait_procs(family, timeout=20)
    assert not alive


def test_a_command_that_never_serves_ends_it(tmp_path: Path) -> None:
    words = ["1", "1", "0", sys.executable, "-c", "import sys; sys.exit(3)"]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 1
    assert "error: tritonserver ended with status 3 before it served" in done.stderr
