"""The program that decodes: a parent that has all decoders loaded, and the workers that it forks on request.

    python3 decode_worker.py CONTROL_FD MAX_BYTES

The parent never touches a stranger's bytes. It forks a worker in a few milliseconds, where a new interpreter with
NumPy, Pillow and OpenCV takes half a second. It has one thread, so forking is safe. It ends when the model's process
does, and its workers end with it.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import resource
import signal
import socket
import sys
import warnings
from pathlib import Path
from typing import Any, NoReturn

import cv2
import exchange
from pictures import FORMATS, canvas_of, decode_checked, sample, tiles_of_picture
from PIL import Image
from refusals import BadPicture, too_much_memory
from structure import Limits, Size

_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
# glibc's numbers for: from this size on, a piece of memory is a mapping of its own; so much may stay free at the end.
_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD = -3, -1
# A picture of 2048 x 2048 pixels has 12 MiB.
_KEPT_PICTURE, _KEPT_HEAP = 16 << 20, 32 << 20
# The socket, the shared memory, standard input and outputs, and a few to spare for a decoder's temporary needs.
_MAX_FILES = 16
# The kernel ends the process with the highest number first when memory runs out: a decoder, never the server.
_OUT_OF_MEMORY_SCORE = 1000


def main() -> int:
    """Serve requests for workers until the model's process ends."""
    _die_with(os.getppid())
    for number in (signal.SIGINT, signal.SIGTERM):  # sent to a whole group; the model's process says when to end
        signal.signal(number, signal.SIG_IGN)
    control = socket.socket(fileno=int(sys.argv[1]))
    _load_decoders()
    _share_memory()
    _keep_memory()
    exchange.send(control, {"ready": True})
    while True:
        data, descriptors, _, _ = socket.recv_fds(control, exchange.MAX_MESSAGE, 2)
        if not data:
            return 0
        request = json.loads(data)
        if "start" in request:
            exchange.send(control, {"pid": _fork(control, descriptors, request, int(sys.argv[2]))})
        else:
            exchange.send(control, {"status": _end(request["end"])})


def _fork(control: socket.socket, descriptors: list[int], request: dict[str, Any], max_bytes: int) -> int:
    """Start a worker; return its process id."""
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            control.close()
            _die_with(parent)
            _confine(request["start"], request["nice"])
            _work(socket.socket(fileno=descriptors[0]), exchange.Block(descriptors[1], max_bytes))
        finally:
            os._exit(1)  # whatever went wrong: never back into the parent's loop
    for descriptor in descriptors:
        os.close(descriptor)
    return pid


def _end(pid: int) -> int | None:
    """Kill a worker if it still lives; return how it ended, as waitpid tells it."""
    try:
        os.kill(pid, signal.SIGKILL)
        return os.waitpid(pid, 0)[1]
    except (ProcessLookupError, ChildProcessError):
        return None


def _load_decoders() -> None:
    """Load every decoder and the colour transform, so that no worker has to."""
    cv2.setNumThreads(1)
    warnings.filterwarnings("ignore", module="PIL")
    for kind in FORMATS:
        canvas_of(decode_checked(sample(kind), Limits()))


def _share_memory() -> None:
    """Leave what is loaded by now on pages that the workers share with this process.

    Python's collector writes into every object that it looks at, and so gives each worker a copy: it no longer looks
    at these. Every module stays as long as the process does, so that there is nothing to collect.
    """
    gc.collect()
    gc.freeze()
    ctypes.CDLL(None).malloc_trim(0)  # what the samples took


def _keep_memory() -> None:
    """Use the memory of one picture for the next.

    As a rule glibc gives megabytes back as soon as they are free, and the kernel then clears as many for the next
    picture: a quarter of the time of this model. Larger pictures are given back as ever.
    """
    libc = ctypes.CDLL(None)
    libc.mallopt(_M_MMAP_THRESHOLD, _KEPT_PICTURE)
    libc.mallopt(_M_TRIM_THRESHOLD, _KEPT_HEAP)


def _die_with(parent: int) -> None:
    """End with the parent, also where it was killed."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _confine(memory: int, nice: int) -> None:
    """Set the limits of a worker: nothing that a decoder needs, and little else.

    Args:
        memory: bytes of address space beyond what the decoders occupy already.
        nice: added to the priority.
    """
    with contextlib.suppress(OSError):  # a sandbox may not have it
        Path("/proc/self/oom_score_adj").write_text(str(_OUT_OF_MEMORY_SCORE))
    quiet = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):  # decoders complain about hostile files, a line each
        os.dup2(quiet, standard)
    os.close(quiet)
    space = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + memory
    for limit, value in (
        (resource.RLIMIT_AS, space),
        (resource.RLIMIT_NOFILE, _MAX_FILES),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NPROC, 0),
    ):
        resource.setrlimit(limit, (value, value))
    ctypes.CDLL(None).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    os.nice(nice)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)


def _work(channel: socket.socket, block: exchange.Block) -> NoReturn:
    """Decode one picture after the other until the model's process closes the channel."""
    while True:
        data = channel.recv(exchange.MAX_MESSAGE)
        if not data:
            os._exit(0)
        size, max_pixels, seconds, wanted, handed_on, min_face = exchange.TASK.unpack(data)
        # The kernel ends this process by SIGPROF when it has used so much processor time for this picture.
        signal.setitimer(signal.ITIMER_PROF, seconds)
        answer = _decoded(block, size, Limits(max_pixels=max_pixels, size=Size(handed_on)), wanted, min_face)
        signal.setitimer(signal.ITIMER_PROF, 0)
        exchange.send(channel, answer)


def _decoded(block: exchange.Block, size: int, limits: Limits, wanted: bool, min_face: float) -> dict[str, Any]:
    """Decode the file in the block into the block; return the message that says how it went."""
    try:
        # Pillow raises at twice this number, in some formats before its own decoder allocates the canvas.
        Image.MAX_IMAGE_PIXELS = limits.max_pixels // 2
        picture = decode_checked(block.file(size), limits)
        _, ratio = canvas_of(picture, block.canvas)
        height, width = picture.pixels.shape[:2]
        if wanted:
            block.picture(height, width)[:] = picture.pixels
        looks = tiles_of_picture(picture, min_face, block.tiles) if min_face else []
    except BadPicture as error:
        return _refusal(error)
    except MemoryError:
        return _refusal(too_much_memory())
    return {
        "size": [height, width],
        "source": list(picture.source),
        "ratio": list(picture.ratio),
        "canvas_ratio": list(ratio),
        # In the digits of single precision, so that a message holds those of all tiles.
        "looks": [[float(f"{value:.7g}") for value in (*look.view, *look.ratio)] for look in looks],
    }


def _refusal(error: BadPicture) -> dict[str, Any]:
    return {"tag": error.tag, "sentence": str(error)}


if __name__ == "__main__":
    sys.exit(main())
