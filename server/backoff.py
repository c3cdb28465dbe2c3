"""How long to wait before something that has ended is started again."""

from __future__ import annotations

import time

# Seconds of life after which an end was not caused by the start: the next start comes at once.
_MIN_UPTIME_S = 5.0
# The first wait after a short life, in seconds, doubled for each further one up to the ceiling. A start takes 3 to 5 s,
# and a service shall be back within 10 s of every death.
_FIRST_S, _CEILING_S = 0.25, 2.0


class Backoff:
    """Counts short lives in a row, and never gives up: what ended a server a hundred times may be over by now."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._short_lives = 0

    def started(self) -> None:
        """Note that a life has begun."""
        self._began = time.monotonic()

    def delay(self) -> float:
        """Return the seconds to wait after an end or a failed start: 0, then 0.25, 0.5, 1, 2, 2, ..."""
        short = time.monotonic() - self._began < _MIN_UPTIME_S
        self._short_lives = self._short_lives + 1 if short else 0
        if self._short_lives == 0:
            return 0.0
        return min(_CEILING_S, _FIRST_S * 2.0 ** min(self._short_lives - 1, 10))
