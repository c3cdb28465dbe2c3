"""Decodes pictures in worker processes that are held to limits, and replaces those that exceed them or crash.

A worker gets the file through shared memory and leaves the canvas and the picture there, so that pixels are copied
once. Processor time is limited by a timer in the kernel, memory by the address space, wall time by this side. Nothing
here imports a decoder: the model's own process never parses more of a file than its structure.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import exchange
import numpy as np
from numpy.typing import NDArray
from refusals import BadPicture, damaged, too_slow
from structure import Budget, Size

# Added to the priority of what decodes for long: a third of a processor's share beside one busy thread of the networks.
# More would make a large picture wait for ever on a busy server.
LOW_PRIORITY = 5
# Seconds of processor time after which a worker goes on at low priority. An ordinary telephone's picture takes 0.04 s.
OVERTIME = 0.25
# A worker is replaced after so many pictures: memory that a decoder has lost or scattered does not add up.
PICTURES_PER_WORKER = 2_000
# To start the parent of the workers: half a second on an idle machine, on one that loads all models at once ten.
START_SECONDS = 120.0

# Tries of a picture whose worker ends: two crashes are the picture's doing, but a worker may also be ended from
# outside, by the kernel for want of memory or together with the parent of all, and that is nobody's fault.
MAX_CRASHES, MAX_TRIES = 2, 4
_CRASHES = frozenset((signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL, signal.SIGFPE))

_PROGRAM = Path(__file__).resolve().with_name("decode_worker.py")


class CageError(Exception):
    """The workers cannot be started: what to look at."""


class _Ended(Exception):
    """The worker ended although it was within its limits: by which signal, where that is known."""

    def __init__(self, signal_number: int | None) -> None:
        super().__init__(signal_number)
        self.crashed = signal_number in _CRASHES


@dataclass(frozen=True)
class Decoded:
    """A decoded picture; the arrays are views that hold until the worker's next picture.

    Attributes:
        pixels: uint8 [h, w, 3] RGB, or None where it was not asked for.
        canvas: uint8 [3, 512, 512] RGB.
        geometry: float32 [6]: source width and height; source pixels per canvas pixel x, y; per picture pixel x, y.
        tiles: uint8 [n, 3, 512, 512], canvases of tiles; none unless they were asked for.
        looks: float32 [n, 6]: of each tile left, top, right and bottom border in source pixels, and source pixels per
            canvas pixel x, y.
    """

    pixels: NDArray[np.uint8] | None
    canvas: NDArray[np.uint8]
    geometry: NDArray[np.float32]
    tiles: NDArray[np.uint8]
    looks: NDArray[np.float32]


class WorkerSource:
    """Starts and ends workers by asking their parent process, which is itself started again when it has died."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    def start(self, memory: int, nice: int, channel: socket.socket, block: int) -> int:
        """Start a worker with its end of a channel and its block; return its process id.

        Raises:
            CageError: the parent process cannot be started.
        """
        request = {"start": memory, "nice": nice}
        answer = self._ask(request, [channel.fileno(), block]) or self._ask(request, [channel.fileno(), block])
        if answer is None:
            raise CageError(
                "the decoders' process ends as soon as it is started: its messages are in the server's log."
            )
        return int(answer["pid"])

    def end(self, pid: int) -> int | None:
        """Kill a worker; return the signal that it ended by, None where it is unknown."""
        answer = self._ask({"end": pid}, [])
        status = None if answer is None else answer["status"]
        return os.WTERMSIG(status) if status is not None and os.WIFSIGNALED(status) else None

    def close(self) -> None:
        """End the parent and with it every worker."""
        with self._lock:
            self._stop()

    def _ask(self, request: dict[str, Any], descriptors: list[int]) -> dict[str, Any] | None:
        """Ask the parent; None where it has died, which the next request mends."""
        with self._lock:
            try:
                if self._control is None:
                    self._launch()
                assert self._control is not None
                socket.send_fds(self._control, [json.dumps(request).encode()], descriptors)
                answer = exchange.receive(self._control)
            except OSError:
                answer = None
            if answer is None:
                self._stop()
            return answer

    def _launch(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [_python(), "-E", "-s", str(_PROGRAM), str(theirs.fileno()), str(self.max_bytes)],
                pass_fds=[theirs.fileno()],
                env=_environment(),
                stdin=subprocess.DEVNULL,
            )
        ours.settimeout(START_SECONDS)
        self._control = ours
        if exchange.receive(ours) is None:
            raise OSError("it has ended")

    def _stop(self) -> None:
        if self._control is not None:
            self._control.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process = self._control = None


class Worker:
    """One worker process, started by its first picture or by `start`, and its block of shared memory; for one thread.

    Args:
        source: where processes come from.
        memory: bytes that a picture may take, beyond what the decoders occupy.
        nice: added to the priority from the start.
    """

    def __init__(self, source: WorkerSource, memory: int, nice: int = 0) -> None:
        self._source, self._memory, self._nice = source, memory, nice
        self._descriptor = _sealed_memory(exchange.block_bytes(source.max_bytes))
        self._block = exchange.Block(self._descriptor, source.max_bytes)
        self._channel: socket.socket | None = None
        self._pid = 0

    def decode(
        self,
        data: bytes,
        max_pixels: int,
        budget: Budget,
        picture: bool = True,
        size: Size = Size.WORKING,
        min_face: float = 0.0,
    ) -> Decoded:
        """Decode a file whose structure was accepted; its views hold until the next call.

        A worker that ends is replaced, and the picture tried again. With ``min_face``, the longer side of a face in
        source pixels, there are tiles for faces from that size on in place of the picture.

        Raises:
            BadPicture: as the decoders say, or beyond the budget, or the worker ended MAX_CRASHES or MAX_TRIES times.
        """
        crashes = 0
        for _ in range(MAX_TRIES):
            try:
                task = exchange.TASK.pack(len(data), max_pixels, budget.cpu, picture and not min_face, size, min_face)
                return self._decode(data, task, budget)
            except _Ended as ended:
                crashes += ended.crashed
                if crashes >= MAX_CRASHES:
                    break
        raise damaged("it crashes the decoder")

    def close(self) -> None:
        """End the process."""
        self._end()
        os.close(self._descriptor)

    def start(self) -> None:
        """Start the process.

        Raises:
            CageError: it cannot be started.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._pid = self._source.start(self._memory, self._nice, theirs, self._descriptor)
        self._channel, self._left, self._slowed = ours, PICTURES_PER_WORKER, False

    def _end(self) -> int | None:
        """End the process; return the signal that it had died of."""
        if self._channel is None:
            return None
        self._channel.close()
        self._channel = None
        return self._source.end(self._pid)

    def _decode(self, data: bytes, task: bytes, budget: Budget) -> Decoded:
        if self._channel is None:
            self.start()
        self._block.forget()
        self._block.put_file(data)
        try:
            answer = self._ask(task, budget.wall)
        finally:
            self._block.trim(len(data))
        self._left -= 1
        # A priority cannot be raised again without privileges.
        if self._slowed or self._left <= 0:
            self._end()
        if "tag" in answer:
            raise BadPicture(str(answer["tag"]), str(answer["sentence"]))
        height, width = answer["size"]
        geometry = np.array([*answer["source"], *answer["canvas_ratio"], *answer["ratio"]], np.float32)
        wanted = exchange.TASK.unpack(task)[3]
        pixels = self._block.picture(height, width) if wanted else None
        looks = np.array(answer["looks"], np.float32).reshape(-1, 6)
        return Decoded(pixels, self._block.canvas, geometry, self._block.tiles(len(looks)), looks)

    def _ask(self, task: bytes, wall: float) -> dict[str, Any]:
        """Send a task and wait for the answer, from OVERTIME on at low priority."""
        assert self._channel is not None
        end, used = time.monotonic() + wall, self._processor_time()
        try:
            self._channel.send(task)
            while True:
                left = max(0.001, end - time.monotonic())
                self._channel.settimeout(left if self._slowed else min(OVERTIME, left))
                try:
                    answer = exchange.receive(self._channel)
                    break
                except TimeoutError:
                    if time.monotonic() >= end:
                        raise
                    if self._processor_time() - used >= OVERTIME:
                        self._slow_down()
        except TimeoutError:
            self._end()
            raise too_slow() from None
        except (OSError, ValueError):
            answer = None
        if answer is None:
            ended_by = self._end()
            if ended_by == signal.SIGPROF:
                raise too_slow()
            raise _Ended(ended_by)
        return answer

    def _processor_time(self) -> float:
        """Read the processor time, seconds, that the process has used, by its clock; 0 when it has ended."""
        try:
            return time.clock_gettime(~self._pid << 3 | 2)  # as clock_getcpuclockid(3) makes it
        except OSError:
            return 0.0

    def _slow_down(self) -> None:
        if self._nice < LOW_PRIORITY:
            self._slowed = True
            with contextlib.suppress(OSError):  # it has ended meanwhile
                os.setpriority(os.PRIO_PROCESS, self._pid, LOW_PRIORITY)


def _sealed_memory(size: int) -> int:
    """Create nameless shared memory of a fixed size: a worker that shrank it would end the other side."""
    descriptor = os.memfd_create("face3d-picture", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, size)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    return descriptor


def _python() -> str:
    """Find the interpreter: a stub embeds Python and finds its packages by the first ``python3`` on PATH."""
    if Path(sys.executable or "").name.startswith("python"):
        return sys.executable
    found = shutil.which("python3")
    if found is None:
        raise CageError("there is no program called python3 on PATH, which the decoders run in.")
    return found


def _environment() -> dict[str, str]:
    """Return what the decoders' process needs of the environment: no key or address of the server is in it."""
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "LANG", "TMPDIR") if name in os.environ}
    return {**kept, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
