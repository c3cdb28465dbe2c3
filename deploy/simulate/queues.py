"""Replicas with queues, exact event by event, compiled by numba."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

QUEUE = 64
"""Requests that may wait for a replica: `max_waiting` of preprocess."""


class Replicas(NamedTuple):
    """The state of all replicas, and what they have answered.

    Attributes:
        free_at: [n] seconds, when the batch that a replica works on is done.
        queue: [n, QUEUE] arrival times, a ring; ``head`` and ``size`` [n] say where it begins and how many wait.
        in_flight: [n] requests in the batch that a replica works on.
        batch_seconds, spread: as in `Service`.
        sums: seconds waited, worked and busy so far.
        arrival, latency: [requests] of what was answered, in seconds.
    """

    free_at: Floats
    queue: Floats
    head: Integers
    size: Integers
    in_flight: Integers
    batch_seconds: Floats
    spread: Floats
    sums: Floats
    arrival: Floats
    latency: Floats

    @classmethod
    def idle(cls, count: int, requests: int, batch_seconds: Floats, spread: Floats) -> Replicas:
        """Make ``count`` replicas without work, with room for the answers to ``requests``."""
        head, size, in_flight = (np.zeros(count, np.int64) for _ in range(3))
        out = (np.zeros(requests), np.zeros(requests))
        return cls(
            np.zeros(count), np.zeros((count, QUEUE)), head, size, in_flight, batch_seconds, spread, np.zeros(3), *out
        )


def _advance_python(server: int, until: float, replicas: Replicas, done: int) -> int:
    """Let one replica start every batch that begins before ``until``; returns how many answers there are by now.

    A batch's answers are written when it starts, since its end is known then.
    """
    r = replicas
    slots = r.queue.shape[1]
    while True:
        if r.free_at[server] <= until:
            r.in_flight[server] = 0
        if r.size[server] == 0 or r.free_at[server] > until:
            return done
        start = max(r.free_at[server], r.queue[server, r.head[server]])
        if start > until:
            return done
        rows = 0
        while rows < r.size[server] and rows < len(r.batch_seconds):
            if r.queue[server, (r.head[server] + rows) % slots] > start:
                break
            rows += 1
        seconds = r.batch_seconds[rows - 1] * r.spread[np.random.randint(0, len(r.spread))]
        for _ in range(rows):
            arrived = r.queue[server, r.head[server]]
            r.head[server] = (r.head[server] + 1) % slots
            r.arrival[done] = arrived
            r.latency[done] = start + seconds - arrived
            r.sums[0] += start - arrived
            r.sums[1] += seconds
            done += 1
        r.size[server] -= rows
        r.in_flight[server] = rows
        r.free_at[server] = start + seconds
        r.sums[2] += seconds


def _interval_python(
    times: Floats, end: float, serving: Integers, going: Integers, replicas: Replicas, done: int, rejected: int
) -> tuple[int, int]:
    """Run everything between two looks of the autoscaler; returns the answers and rejections so far."""
    r = replicas
    slots = r.queue.shape[1]
    for now in times:
        first = serving[np.random.randint(0, len(serving))]
        second = serving[np.random.randint(0, len(serving))]
        for server in (first, second):
            done = _advance(server, now, replicas, done)
        if r.size[second] + r.in_flight[second] < r.size[first] + r.in_flight[first]:
            first, second = second, first
        if r.size[first] == slots:
            first = second
        if r.size[first] == slots:
            rejected += 1
            continue
        r.queue[first, (r.head[first] + r.size[first]) % slots] = now
        r.size[first] += 1
    for group in (serving, going):
        for server in group:
            done = _advance(server, end, replicas, done)
    return done, rejected


def _seed_python(seed: int) -> None:
    """Seed the generator that compiled code uses; it is not NumPy's."""
    np.random.seed(seed)


# Decorators without types would take the types of what they decorate.
_advance: Callable[..., int] = numba.njit()(_advance_python)
interval: Callable[..., tuple[int, int]] = numba.njit()(_interval_python)
set_seed: Callable[[int], None] = numba.njit()(_seed_python)
