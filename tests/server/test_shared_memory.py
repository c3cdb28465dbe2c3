"""Names in /dev/shm: ours alone, and nothing of a dead server stays."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from server import shared_memory
from server.errors import SharedMemoryTooSmall


def test_removes_only_what_has_the_prefix() -> None:
    one, other = shared_memory.new_prefix(), shared_memory.new_prefix()
    try:
        for prefix in (one, one, other):
            (shared_memory.SHM / f"{prefix}{os.urandom(4).hex()}").touch()
        assert shared_memory.remove(one) == 2
        assert shared_memory.regions(one) == []
        assert len(shared_memory.regions(other)) == 1
    finally:
        shared_memory.remove(other)


def test_sweeps_what_a_dead_process_left_and_nothing_of_a_living_one() -> None:
    code = (
        "import tempfile; from server import shared_memory as s; p = s.new_prefix(); print(p); "
        "(s.SHM / (p + 'region')).touch(); tempfile.mkdtemp(prefix=p)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    dead, living = run.stdout.strip(), shared_memory.new_prefix()
    (shared_memory.SHM / f"{living}region").touch()
    try:
        assert len(shared_memory.regions(dead)) == 1
        assert shared_memory.sweep() >= 2
        assert shared_memory.regions(dead) == []
        assert not list(Path(tempfile.gettempdir()).glob(f"{dead}*"))
        assert len(shared_memory.regions(living)) == 1
    finally:
        shared_memory.remove(living)


@pytest.mark.parametrize("alive", [True, False])
def test_a_lock_tells_the_living_from_the_dead_of_another_pid_namespace(alive: bool) -> None:
    """Containers that follow each other, or run side by side, may share /dev/shm: process ids say nothing there."""
    prefix = f"face3d-1-1-{os.urandom(4).hex()}-"  # its process id, 1, lives here
    claimed = shared_memory.claim(prefix)
    (shared_memory.SHM / f"{prefix}region").touch()
    try:
        if not alive:
            os.close(claimed)
        shared_memory.sweep()
        assert len(shared_memory.regions(prefix)) == (2 if alive else 0)
    finally:
        shared_memory.remove(prefix)
        if alive:
            os.close(claimed)


def test_refuses_to_start_without_room() -> None:
    shared_memory.check_room(0)
    with pytest.raises(SharedMemoryTooSmall, match=r"^/dev/shm has \d+ MB free .* need about 1048576 MB"):
        shared_memory.check_room(1 << 40)
