"""A pause between two runs, in which requests come together that are one batch then.

A batch may be much cheaper a row than rows alone, as its weights are read once. Triton's own delay before a batch holds
back a single client as well. Here a process waits only while the others keep every core busy: no core is idle for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable

STEP = 0.003
"""Seconds between two looks at the cores: for so long one may be idle in vain."""


class Gathering:
    """Waits after a run while the machine is busy.

    Args:
        most_seconds: of a pause after a run of one row; 0 for none. After several rows that many times as long: they
            have come during the last one, so that more can be expected.
        most_rows: of a run; after one of so many there is no pause.
        busy: whether other threads keep every core busy.
        sleep, clock: of the operating system.
    """

    def __init__(
        self,
        most_seconds: float,
        most_rows: int,
        busy: Callable[[], bool],
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most_seconds, self._most_rows = most_seconds, most_rows
        self._busy, self._sleep, self._clock = busy, sleep, clock

    def after(self, rows: int) -> None:
        """Pause after a run of ``rows`` rows."""
        if rows >= self._most_rows:
            return
        end = self._clock() + self._most_seconds * rows
        while self._clock() < end and self._busy():
            self._sleep(STEP)
