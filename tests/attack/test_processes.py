"""Processes that are killed, crash or stop under load: no neighbour loses a request, and the service is soon back."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from server import shared_memory
from tests.attack import neighbours
from tests.attack.processes import FAULTS, Fault
from tests.server.commands import FREE_PORTS, Command
from tests.service import Refusal, Service

SUPERVISED = (*FREE_PORTS, "--supervise", "0.5", "--supervisor-port", "0", "--exit-timeout", "60")
_BACK_WITHIN = 10.0
_LIMIT = 90.0  # after which a fault counts as one that the service does not outlive
# A handful each time the suite runs: one of each kind of process.
FEW = ("regressor killed", "tritonserver crashes", "gateway killed", "all decoders killed", "align stopped")
# Which of the faults the soak takes, "0:16" for the first sixteen: where the machine is lent for minutes only.
FIRST, LAST = (int(part) if part else None for part in os.environ.get("FACE3D_SOAK_FAULTS", ":").split(":"))
# On a machine that others keep busy a start takes longer than the ten seconds that are promised for one of its own.
AT_LEISURE = os.environ.get("FACE3D_SOAK_AT_LEISURE") == "1"


@contextlib.contextmanager
def service_of_its_own() -> Iterator[Command]:
    """`python -m server --supervise`, told to stop at the end; fails when it leaves anything behind."""
    command = Command(*SUPERVISED)
    try:
        command.ready()
        yield command
        family = psutil.Process(command.process.pid).children(recursive=True)
        command.process.terminate()
        assert command.end(120) == 0, command.errors[-20:]
        _, alive = psutil.wait_procs(family, timeout=10)
        assert [process.cmdline() for process in alive] == []
        assert left_behind(command.process.pid) == []
    finally:
        command.process.kill()
        command.end()


def left_behind(pid: int) -> list[str]:
    """Regions in /dev/shm and folders among the temporary files of a service that has ended."""
    mark = f"-{pid}-"
    places = [*shared_memory.regions("face3d"), *Path("/tmp").glob("face3d-*")]
    return [path.name for path in places if mark in path.name]


def seconds_until_back(command: Command, fault: Fault, photo: bytes, struck: list[int]) -> float:
    """Until what was struck has been replaced, where it must be, and a request is answered at the first try."""
    began = time.monotonic()
    while True:
        assert command.process.poll() is None, command.errors[-20:]
        assert time.monotonic() - began < _LIMIT, (fault.what, command.errors[-20:])
        replaced = not fault.replaces or (fault.victims(command) and not set(struck) & set(fault.victims(command)))
        if replaced:
            with contextlib.suppress(Refusal):
                Service(command.grpc).ask(photo, outputs=("coefficients",), timeout=10)
                return time.monotonic() - began
        time.sleep(0.05)


def settle(command: Command) -> None:
    """Return when every process that a fault may strike is there: a revival ends after the first answer."""
    deadline = time.monotonic() + _LIMIT
    while not all(fault.victims(command) for fault in FAULTS):
        assert time.monotonic() < deadline, command.errors[-20:]
        time.sleep(0.1)


def suffer(faults: list[Fault], photo: bytes, *, at_leisure: bool) -> None:
    """Let faults happen one after the other, with four neighbours at work during each.

    Args:
        at_leisure: whether the service may take longer to come back than on a machine of its own, and neighbours wait.
    """
    times: dict[str, float] = {}
    patience = _LIMIT if at_leisure else None
    with service_of_its_own() as command:
        http = command.http
        for fault in faults:
            settle(command)
            with neighbours.at_work(http, command.grpc, photo, least=2, patience=patience) as found:
                time.sleep(0.5)  # requests are inside
                struck = fault.strike(command)
                assert struck, (fault.what, command.errors[-20:])
                times[fault.what] = seconds_until_back(command, fault, photo, struck)
            said = [line for line in command.errors if line.startswith("supervisor: ")][-3:]
            print(f"\n{said}\n{fault.what}: back after {times[fault.what]:.1f} s; {found}", flush=True)
            if found.lost:
                print("\n".join(command.errors[-20:]))
            assert not found.lost, (fault.what, found.lost)
    print(f"{len(times)} faults, longest time back {max(times.values()):.1f} s")
    late = {what: seconds for what, seconds in times.items() if seconds > _BACK_WITHIN}
    assert at_leisure or not late, late


def test_no_neighbour_loses_a_request_to_one_fault_of_each_kind(photo: bytes) -> None:
    suffer([fault for fault in FAULTS if fault.what in FEW], photo, at_leisure=True)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_no_neighbour_loses_a_request_to_thirty_faults(photo: bytes) -> None:
    assert len(FAULTS) >= 30
    suffer(FAULTS[FIRST:LAST], photo, at_leisure=AT_LEISURE)
