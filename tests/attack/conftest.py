"""The real service for the attack suite, and what must hold after every attack."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from server.probe import PORTRAIT
from server.service import Service
from tests.server.calls import every_process_stays

MIB = 1 << 20
# What the gateway may grow to by its own bounds (server/gateway/limits.py, MAX_HELD), in bytes.
MAX_MEMORY = 3 << 30


@pytest.fixture(scope="session")
def photo() -> bytes:
    """A portrait of 9 KB."""
    return PORTRAIT.read_bytes()


@pytest.fixture
def attacked(running_service: Service) -> Iterator[Service]:
    """The real service; fails when its tritonserver, a model's process or its gateway has died under the attack."""
    assert running_service.gateway is not None
    gateway, restarts = running_service.gateway.pid, running_service.gateway.restarts
    with every_process_stays(running_service.triton):
        yield running_service
    assert (running_service.gateway.pid, running_service.gateway.restarts) == (gateway, restarts)
    assert psutil.Process(gateway).memory_info().rss < MAX_MEMORY


def peak_memory(pid: int) -> int:
    """The most bytes of memory that a process has ever had."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) << 10
    raise AssertionError("no VmHWM")
