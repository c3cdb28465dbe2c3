"""Turns requests away while many wait behind `preprocess`, so that no queue of the service grows without bound.

Triton 2.51 can bound a queue by itself (`default_queue_policy`), but a model with any such policy waits up to half a
second now and then: its batcher then asks for an idle instance, and misses the news that there is one when the answer
is quicker than the news. On busy cores that cost half of the throughput. So no model has a policy. Decoding is
several times faster than what follows, and turning away is faster still: so the bound is held here, at the door.
"""

from __future__ import annotations

import re
import threading
import time
import urllib.error
import urllib.request

_PENDING = re.compile(r'^nv_inference_pending_request_count\{model="(\w+)".*\} (\d+)', re.MULTILINE)


class Overloaded(Exception):
    """More requests wait than will be answered soon; ``tag`` is the client's exception."""

    tag = "Overloaded"

    def __init__(self) -> None:
        super().__init__("the server has more pictures than it can take now. Send fewer at once, or later.")


class Admission:
    """Asks Triton's own metrics page how many requests wait.

    Args:
        page: address of the metrics page; empty: all are let in.
        models: the models whose queues count.
        most: requests that may wait for them together.
    """

    INTERVAL = 0.25  # seconds between two looks while requests come; a look takes 3 ms of the server

    def __init__(self, page: str, models: frozenset[str], most: int) -> None:
        self._page, self._models, self._most = page, models, most
        self._lock = threading.Lock()
        self._next = 0.0
        self._waiting = 0

    def room(self) -> int:
        """Return how many more requests may go on now; what went on since the last look counts as waiting."""
        with self._lock:
            return self._room()

    def _room(self) -> int:
        now = time.monotonic()
        # A look for each call once it is full, or a burst would keep the door shut until the next one.
        if now >= self._next or self._waiting >= self._most:
            self._waiting = self._look()
            self._next = now + self.INTERVAL
        return max(0, self._most - self._waiting)

    def let_in(self, count: int) -> None:
        """Note that ``count`` requests go on."""
        with self._lock:
            self._waiting += count

    def _look(self) -> int:
        """Read how many requests wait for the models now; 0 where the page cannot be read."""
        if not self._page:
            return 0
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(self._page, timeout=1) as answer:
                text = answer.read().decode()
        except (urllib.error.URLError, OSError):
            return 0
        return sum(int(count) for model, count in _PENDING.findall(text) if model in self._models)
