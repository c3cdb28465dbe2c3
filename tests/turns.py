"""Lets a test run while no other worker of pytest-xdist runs one: for what it sees of the whole machine.

Two files are locked. A test that runs beside others holds ``running`` in common, one that must be alone holds it by
itself; ``entry`` is held while a test waits for the other, so that no
further test starts before one that must be alone.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def turn(folder: Path, *, alone: bool) -> Iterator[None]:
    """Wait for a turn and keep it.

    Args:
        folder: where the workers of one run find the same files.
        alone: wait until no other test runs, and let none start.
    """
    with contextlib.ExitStack() as running:
        with _locked(folder / "entry", fcntl.LOCK_EX):
            running.enter_context(_locked(folder / "running", fcntl.LOCK_EX if alone else fcntl.LOCK_SH))
        yield


@contextlib.contextmanager
def _locked(path: Path, how: int) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, how)
        yield
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)  # closing is not enough where a forked child has the file open too
        os.close(descriptor)
