"""The stubs' shared memory in /dev/shm: room for it, names of our own, and nothing left of a server that was killed.

Triton's Python backend makes one region for each instance and leaves it there when a stub or the server is killed.
Regions get a prefix that says whose they are (PID namespace and process id), so that what a dead server left can be
removed by the next one without touching anybody else's.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import signal
import tempfile
from pathlib import Path

from server import stub_processes
from server.errors import SharedMemoryTooSmall

SHM = Path("/dev/shm")
_PREFIX = "face3d"
_NAME = re.compile(rf"^{_PREFIX}-(\d+)-(\d+)-[0-9a-f]+-")


def _namespace() -> int:
    """Return the number of this PID namespace: containers may share /dev/shm without sharing process ids."""
    return Path("/proc/self/ns/pid").stat().st_ino


def new_prefix() -> str:
    """Make a prefix for one server's regions, unique on the machine."""
    return f"{_PREFIX}-{_namespace()}-{os.getpid()}-{secrets.token_hex(4)}-"


def regions(prefix: str) -> list[Path]:
    """Find the regions whose names start with ``prefix``."""
    return [path for path in SHM.iterdir() if path.name.startswith(prefix)] if SHM.is_dir() else []


def remove(prefix: str) -> int:
    """Remove the regions of a server that has ended; how many there were."""
    found = regions(prefix)
    for path in found:
        path.unlink(missing_ok=True)
    return len(found)


def sweep() -> int:
    """Remove what this user's servers left whose process no longer lives; returns how many things there were.

    Regions in /dev/shm, the folders of the same name that servers have among the temporary files, and the processes of
    models that outlived their tritonserver.
    """
    removed = 0
    for pid, prefix in stub_processes.orphans().items():
        if _is_left(prefix):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            removed += 1
    for place in (SHM, Path(tempfile.gettempdir())):
        for path in place.glob(f"{_PREFIX}-{_namespace()}-*"):
            if _is_left(path.name) and path.lstat().st_uid == os.getuid():
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)
                removed += 1
    return removed


def _is_left(name: str) -> bool:
    """Return whether a name belongs to a server of this PID namespace whose process no longer lives."""
    match = _NAME.match(name)
    return match is not None and int(match[1]) == _namespace() and not Path(f"/proc/{match[2]}").exists()


def check_room(needed: int) -> None:
    """Refuse to start when /dev/shm has less than ``needed`` bytes free.

    Without this a stub dies by SIGBUS in the middle of a request. Containers get 64 MB unless told otherwise.

    Raises:
        SharedMemoryTooSmall: with the two numbers.
    """
    if not SHM.is_dir():
        raise SharedMemoryTooSmall("/dev/shm does not exist and the models' processes exchange tensors through it.")
    free = shutil.disk_usage(SHM).free
    if free < needed:
        raise SharedMemoryTooSmall(
            f"/dev/shm has {free >> 20} MB free and the models' processes need about {needed >> 20} MB: start the "
            f"container with --shm-size={needed >> 20}m or more, or remove what is in it."
        )
