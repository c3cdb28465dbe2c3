"""Deadlines and retries of both clients."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass
from typing import Final

from face3d_client._errors import Face3DError, Overloaded, RequestError, ServerUnavailable, Timeout

__all__ = ["MORE_TIME", "Budget", "Deadline", "Retry"]

MORE_TIME: Final = "Allow more time (--timeout; in Python: timeout=...) or send fewer pictures at once."
"""Ends the sentence of an error about a deadline."""

# Seconds for which an address is asked again that has never answered: a connection lost by chance, no restart.
_UNKNOWN_OUTAGE: Final = 2.0


@dataclass(frozen=True)
class Retry:
    """How often and how patiently a failed call is sent again.

    Only what may pass by itself is retried: UNAVAILABLE and RESOURCE_EXHAUSTED (HTTP 429, 502, 503, or no connection).
    Every pause is drawn at random between a half of a bound and all of it; the bound doubles from `base` to `cap`, so
    that clients that failed together do not come back together. `Retry(attempts=1)` means never.

    A server that is down (`ServerUnavailable`) is mostly being started again, and asking costs it nothing meanwhile:
    such a call is sent again for `outage` seconds, which neither `attempts` nor `budget` counts. Where nothing has ever
    answered this client, the address is probably wrong, and it is asked again for two seconds at most.

    Attributes:
        attempts: calls in all, the first one included.
        base: bound of the first pause in seconds.
        cap: largest bound of a pause in seconds.
        budget: retries that all calls of one client may have in hand together. A retry takes one, two successes give
            one back; with none left, errors are raised at once: a server in trouble is not made worse by retries.
        outage: seconds for which a server that is down is asked again, once it has answered this client or says itself
            that it is starting or shutting down. The default outlives a restart, which takes up to ten, and the revival
            of a model's process that came before it and did not help. 0: as any other failure.
    """

    attempts: int = 4
    base: float = 0.1
    cap: float = 2.0
    budget: int = 20
    outage: float = 20.0

    def __post_init__(self) -> None:
        if self.attempts < 1 or not 0 < self.base <= self.cap or self.budget < 0 or not 0 <= self.outage < float("inf"):
            raise ValueError("Retry: attempts >= 1, 0 < base <= cap, budget >= 0 and outage >= 0 are needed")


class Deadline:
    """A moment on the monotonic clock that a call, with all its retries, must not pass."""

    def __init__(self, seconds: float) -> None:
        self._seconds = self.checked(seconds)
        self._end = time.monotonic() + seconds
        self._down_since: float | None = None

    @staticmethod
    def checked(seconds: float) -> float:
        """Return the number if it can be a timeout: positive and finite.

        Raises:
            ValueError: it cannot.
        """
        if not 0 < seconds < float("inf"):
            raise ValueError(f"timeout is a positive number of seconds, not {seconds!r}")
        return seconds

    def outage(self) -> float:
        """Return the seconds since this was first asked: for how long the call has met a server that is down."""
        now = time.monotonic()
        self._down_since = self._down_since or now
        return now - self._down_since

    def over(self) -> bool:
        """Tell whether the moment has passed."""
        return time.monotonic() >= self._end

    def left(self) -> float:
        """Return the seconds left.

        Raises:
            Timeout: none are.
        """
        rest = self._end - time.monotonic()
        if rest <= 0:
            raise self.error()
        return rest

    def left_or(self, least: float) -> float:
        """Return the seconds left, or `least` where fewer are."""
        return max(self._end - time.monotonic(), least)

    def error(self) -> Timeout:
        """Make the exception that says that this deadline has passed."""
        return Timeout(
            f"no answer within {self._seconds:g} s. {MORE_TIME}",
            status="DEADLINE_EXCEEDED",
        )


class Budget:
    """One client's count of the retries it may still make, and whether its server is known; safe between threads."""

    def __init__(self, policy: Retry) -> None:
        self._policy = policy
        self._left = float(policy.budget)
        self._lock = threading.Lock()
        self._server_known = False

    def server_answered(self) -> None:
        """Note that there is a server at the address."""
        self._server_known = True

    def succeeded(self) -> None:
        """Note a success: the server is known, and half a retry comes back."""
        self._server_known = True
        if self._left < self._policy.budget:  # read without the lock: a stale value costs half a retry at most
            with self._lock:
                self._left = min(self._left + 0.5, float(self._policy.budget))

    def pause(self, error: Face3DError, attempt: int, deadline: Deadline) -> float | None:
        """Choose the seconds to wait before sending again, or None if the error is final.

        Args:
            error: what the attempt ended with.
            attempt: number of attempts made so far, from 1.
            deadline: a pause that would pass it is not begun.
        """
        if _comes_from_a_server(error):
            self._server_known = True
        if not error.retryable or self._policy.attempts == 1:
            return None
        outage_left = self._outage_left(error, deadline)
        if outage_left <= 0 and attempt >= self._policy.attempts:
            return None
        bound = min(self._policy.cap, self._policy.base * 2 ** min(attempt - 1, 30))
        seconds = random.uniform(bound / 2, bound)
        if outage_left > 0:
            seconds = min(seconds, outage_left)  # the last attempt is made when the outage has lasted too long
        try:
            if seconds >= deadline.left():
                return None
        except Timeout:
            return None
        return seconds if outage_left > 0 or self._take() else None

    def _outage_left(self, error: Face3DError, deadline: Deadline) -> float:
        """Return the seconds for which a server that is down is still asked again; 0 or less for other errors."""
        if not isinstance(error, ServerUnavailable):
            return 0.0
        longest = self._policy.outage if self._server_known else min(self._policy.outage, _UNKNOWN_OUTAGE)
        return longest - deadline.outage()

    def _take(self) -> bool:
        """Take a retry, if there is one."""
        with self._lock:
            if self._left < 1:
                return False
            self._left -= 1
            return True


def _comes_from_a_server(error: Face3DError) -> bool:
    """Tell whether an error shows that a server of this service is at the address."""
    if isinstance(error, ServerUnavailable):
        return error.retryable and error.answered
    return isinstance(error, RequestError | Overloaded)
