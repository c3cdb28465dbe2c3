"""The stubs' shared memory in /dev/shm: room for it, names of our own, and nothing left of a server that was killed.

Triton's Python backend makes one region for each instance and leaves it there when a stub or the server is killed.
Regions get a prefix that says whose they are (PID namespace and process id) and a lock that is held as long as their
server lives, so that what a dead server left can be removed by the next one without touching anybody else's.
"""

from __future__ import annotations

import contextlib
import fcntl
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
_PREFIX, _LOCK = "face3d", "lock"
_NAME = re.compile(rf"^{_PREFIX}-(\d+)-(\d+)-[0-9a-f]+-")


def _namespace() -> int:
    """Return the number of this PID namespace: containers may share /dev/shm without sharing process ids."""
    return Path("/proc/self/ns/pid").stat().st_ino


def new_prefix() -> str:
    """Make a prefix for one server's regions, unique on the machine."""
    return f"{_PREFIX}-{_namespace()}-{os.getpid()}-{secrets.token_hex(4)}-"


def claim(prefix: str) -> int:
    """Show that a server with this prefix lives, and return the descriptor that shows it until it is closed.

    A lock on a file tells the living from the dead across PID namespaces as well: containers that follow each other may
    share /dev/shm, and the kernel lets go of a lock with the process that holds it.
    """
    descriptor = os.open(SHM / f"{prefix}{_LOCK}", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)  # another's `sweep` may hold it for a moment
    return descriptor


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
    # A lock goes last: as long as it is there, it tells of what is still to be removed.
    found = [path for place in (Path(tempfile.gettempdir()), SHM) for path in place.glob(f"{_PREFIX}-*")]
    for path in sorted(found, key=lambda path: path.name.endswith(_LOCK)):
        with contextlib.suppress(FileNotFoundError):  # another start removes the same
            if _is_left(path.name) and path.lstat().st_uid == os.getuid():
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)
                removed += 1
    return removed


def _is_left(name: str) -> bool:
    """Return whether a name belongs to a server that no longer lives.

    Its lock tells; without one, its process id does where that is of this PID namespace.
    """
    match = _NAME.match(name)
    if match is None:
        return False
    with contextlib.suppress(OSError):  # no such file, or another user's
        descriptor = os.open(SHM / f"{match[0]}{_LOCK}", os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        finally:
            os.close(descriptor)
        return True
    return int(match[1]) == _namespace() and not Path(f"/proc/{match[2]}").exists()


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
