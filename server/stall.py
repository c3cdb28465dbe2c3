"""Tells a start that hangs from one that is slow: it uses no processor time and logs nothing, however busy the machine.

On a machine with more work than cores the Python backend sometimes waits for ever for a model's process that itself
waits for the backend (both sleep on a lock in shared memory). No time limit tells the two apart: a start takes 3 s on
an idle machine and 10 s and more on a busy one.
"""

from __future__ import annotations

import time
from pathlib import Path

import psutil

# Share of one core below which a server counts as idle. Measured: 0.2 % for a server that waits for requests, 0.5 % for
# one whose model's process was stopped while it started, over 40 % while models load. Where the cores have eight
# times more work than they can do, a process that wants to run still gets 12 % of one.
_IDLE_SHARE = 0.03
# Seconds over which the share is taken at least. The kernel counts in steps of 10 ms: within half a second, two of
# twenty processes that wake up once would already be more than an idle server's share. No more than
# `embedded._IDLE_FOR`.
_LEAST = 1.0
# Seconds between two looks: reading the times of twenty processes takes 2 ms.
_INTERVAL = 0.5


def is_working(pid: int, seconds: float = 2.0) -> bool:
    """Watch whether a server or one of its models' processes does something within the next ``seconds``."""
    try:
        detector = StallDetector(pid)
    except psutil.NoSuchProcess:
        return False
    deadline = time.monotonic() + seconds
    time.sleep(_INTERVAL)
    detector.seconds()  # everything that was used up to now
    while time.monotonic() < deadline:
        time.sleep(_INTERVAL)
        if detector.seconds() == 0.0:
            return True
    return False


class StallDetector:
    """Watches a server and its models' processes from outside.

    Args:
        pid: process id of tritonserver.
        log: the file that it logs to, if that is known.
    """

    def __init__(self, pid: int, log: Path | None = None) -> None:
        self._process, self._log = psutil.Process(pid), log
        self._mark = self._looked = time.monotonic()
        self._cpu_at_mark, self._log_size = 0.0, 0

    def seconds(self) -> float:
        """Return the seconds since the last sign of work; 0 while there is any."""
        now = time.monotonic()
        if now - self._looked >= _INTERVAL:
            self._looked = now
            cpu, waits_for_disk = self._activity()
            size = self._log.stat().st_size if self._log is not None and self._log.exists() else 0
            # It is less where a process has ended: that is a sign of work, too.
            idle = _IDLE_SHARE * max(_LEAST, now - self._mark)
            worked = cpu < self._cpu_at_mark or cpu - self._cpu_at_mark > idle
            if worked or waits_for_disk or size != self._log_size:
                self._mark, self._cpu_at_mark, self._log_size = now, cpu, size
        return now - self._mark

    def _activity(self) -> tuple[float, bool]:
        """Add up the processor seconds of the living processes, and find whether one of them waits for a disk."""
        seconds, waits = 0.0, False
        try:
            processes = [self._process, *self._process.children(recursive=True)]
        except psutil.NoSuchProcess:
            return self._cpu_at_mark, False
        for process in processes:
            try:
                times = process.cpu_times()
                waits |= process.status() == psutil.STATUS_DISK_SLEEP
            except psutil.NoSuchProcess:
                continue
            seconds += times.user + times.system
        return seconds, waits
