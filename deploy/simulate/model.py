"""Replicas with queues under a load, and an autoscaler that watches them: exact event by event.

A replica takes what has queued, up to its largest batch, works on it for a time and answers it whole: what Triton's
dynamic batcher does with no delay. The time for a batch of b is b over the measured answers a second of b clients,
times a factor drawn from the measured spread. An arrival asks two replicas at random and goes to the one with less in
flight (`BalancedFace3DClient` looks at all its servers; two are known to be nearly as good and cheap to simulate);
where both queues are full it is rejected and counted.

The autoscaler is Kubernetes' HorizontalPodAutoscaler: every 15 s, desired = ceil(replicas x signal / target) unless
the signal is within a tenth of the target, within the policies and stabilisation windows of the manifest. The signal is
what Prometheus would show then: the ratio of the last minute, a scrape late. New replicas serve after a start-up delay;
replicas that go finish what they have.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from deploy.simulate.autoscaler import TICK, Policy, Scaler, signal_of
from deploy.simulate.queues import Floats, Replicas, interval, set_seed

MEASURED = Path(__file__).parent / "service_times.json"


@dataclass(frozen=True)
class Service:
    """What a replica does.

    Attributes:
        batch_seconds: [b - 1] = seconds for a batch of b.
        spread: factors with mean 1 that a batch's time is multiplied by, drawn with equal probability.
        start_seconds: from a pod's start until it answers.
    """

    batch_seconds: tuple[float, ...]
    spread: tuple[float, ...]
    start_seconds: float

    @property
    def capacity(self) -> float:
        """Answers a second of a replica that always works on the best batch."""
        return max((index + 1) / seconds for index, seconds in enumerate(self.batch_seconds))

    @staticmethod
    def measured(path: Path = MEASURED) -> Service:
        """Read the file that `deploy.simulate.measure` wrote; between the numbers of clients measured, linear."""
        content = json.loads(path.read_text(encoding="utf-8"))
        clients = [step["clients"] for step in content["steps"]]
        # A larger batch never takes less time than a smaller one: a measurement that says so is noise.
        times = np.maximum.accumulate([step["clients"] / step["answers_per_second"] for step in content["steps"]])
        batch = np.interp(np.arange(1, clients[-1] + 1), clients, times)
        alone = np.array(content["steps"][0]["seconds"])
        return Service(tuple(batch.tolist()), tuple((alone / alone.mean()).tolist()), float(content["start_seconds"]))


@dataclass
class Outcome:
    """What happened.

    Attributes:
        arrived, answered, rejected, left: requests; `left` were in the system when time was over.
        arrival: seconds, of the answered ones.
        latency: seconds, of the answered ones, in the same order.
        ticks: seconds of every look of the autoscaler.
        rate: arrivals a second, replicas: serving, signal: as the autoscaler saw it; one a tick.
    """

    arrived: int
    answered: int
    rejected: int
    left: int
    arrival: Floats
    latency: Floats
    ticks: Floats = field(default_factory=lambda: np.zeros(0))
    rate: Floats = field(default_factory=lambda: np.zeros(0))
    replicas: Floats = field(default_factory=lambda: np.zeros(0))
    signal: Floats = field(default_factory=lambda: np.zeros(0))

    def quantile(self, q: float, start: float = 0.0, end: float = math.inf) -> float:
        """Return a quantile of the latency, seconds, of what arrived in [start, end); NaN if nothing did."""
        inside = self.latency[(self.arrival >= start) & (self.arrival < end)]
        return float(np.quantile(inside, q)) if len(inside) else math.nan


def arrivals(rate: Callable[[Floats], Floats], seconds: float, rng: np.random.Generator) -> Floats:
    """Draw the times of a Poisson process with a rate that changes, by thinning one second at a time."""
    edges = np.arange(0.0, seconds)
    counts = rng.poisson(rate(edges + 0.5) * np.minimum(1.0, seconds - edges))
    times = np.repeat(edges, counts) + rng.random(int(counts.sum()))
    times.sort()
    return np.asarray(times[times < seconds])


class _Cluster:
    """Which replicas serve, start, finish and are spare."""

    def __init__(self, most: int, serving: int) -> None:
        self.serving = list(range(serving))
        self.starting: list[tuple[float, int]] = []  # (when it serves, which)
        self.going: list[int] = []
        self._spare = [index for index in range(most - 1, -1, -1) if index not in self.serving]

    @property
    def wanted(self) -> int:
        """How many serve or will."""
        return len(self.serving) + len(self.starting)

    def begin(self, now: float) -> None:
        """Let those serve whose start is over."""
        self.serving += [index for when, index in self.starting if when <= now]
        self.starting = [entry for entry in self.starting if entry[0] > now]

    def retire(self, replicas: Replicas, now: float) -> None:
        """Take back those that were told to go and have finished."""
        empty = [index for index in self.going if replicas.size[index] == 0 and replicas.free_at[index] <= now]
        self._spare += empty
        self.going = [index for index in self.going if index not in empty]

    def scale(self, count: int, ready_at: float) -> None:
        """Start or end replicas until ``count`` serve or will."""
        while count > self.wanted and self._spare:
            self.starting.append((ready_at, self._spare.pop()))
        while count < self.wanted:
            if self.starting:
                self._spare.append(self.starting.pop()[1])
            else:
                self.going.append(self.serving.pop())


def simulate(
    service: Service,
    policy: Policy,
    rate: Callable[[Floats], Floats],
    seconds: float,
    seed: int = 0,
    replicas: int | None = None,
    scaling: bool = True,
) -> Outcome:
    """Run a load against replicas and their autoscaler.

    Args:
        service: what a replica does.
        policy: the autoscaler.
        rate: seconds -> requests a second, vectorised.
        seconds: how long.
        seed: the same seed gives the same outcome.
        replicas: how many serve at the start; None for the least.
        scaling: False keeps them.
    """
    set_seed(seed)
    times = arrivals(rate, seconds, np.random.default_rng(seed))
    most = max(policy.most, replicas or 0)
    state = Replicas.idle(most, len(times), np.array(service.batch_seconds), np.array(service.spread))
    cluster, scaler = _Cluster(most, replicas or policy.least), Scaler(policy)
    done = rejected = 0
    history: list[tuple[float, float, float, float]] = []
    seen: list[tuple[float, float, float, int]] = [(0.0, 0.0, 0.0, len(cluster.serving))]
    for tick in range(1, math.ceil(seconds / TICK) + 1):
        begin, end = (tick - 1) * TICK, min(tick * TICK, seconds)
        cluster.begin(begin)
        low, high = np.searchsorted(times, [begin, end])
        groups = (np.array(cluster.serving, np.int64), np.array(cluster.going, np.int64))
        done, rejected = interval(times[low:high], end, *groups, state, done, rejected)
        cluster.retire(state, end)
        waited, worked, busy = state.sums
        seen.append((waited, worked, busy, len(cluster.serving)))
        signal = signal_of(seen, policy.signal)
        history.append((end, (high - low) / (end - begin), len(cluster.serving), signal))
        if scaling:
            ready_at = end + policy.node_seconds + service.start_seconds
            cluster.scale(scaler.look(end, signal, cluster.wanted), ready_at)
    columns = (np.array(column) for column in zip(*history, strict=True))
    left = int(state.size.sum())
    return Outcome(len(times), done, rejected, left, state.arrival[:done], state.latency[:done], *columns)
