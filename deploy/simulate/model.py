"""Replicas with queues under a load, and an autoscaler that watches them: exact event by event, compiled by numba.

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
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numba
import numpy as np
import yaml
from numpy.typing import NDArray

HERE = Path(__file__).parent
MEASURED = HERE / "service_times.json"
MANIFEST = HERE.parent / "kubernetes" / "hpa" / "hpa.yaml"

Floats = NDArray[np.float64]
_QUEUE = 64  # max_waiting of preprocess
_TICK = 15.0  # seconds: the autoscaler's period, and Prometheus' scrape interval


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
        """From the file that `deploy.simulate.measure` wrote; between the numbers of clients measured, linear."""
        content = json.loads(path.read_text(encoding="utf-8"))
        clients = [step["clients"] for step in content["steps"]]
        # A larger batch never takes less time than a smaller one: a measurement that says so is noise.
        times = np.maximum.accumulate([step["clients"] / step["answers_per_second"] for step in content["steps"]])
        batch = np.interp(np.arange(1, clients[-1] + 1), clients, times)
        alone = np.array(content["steps"][0]["seconds"])
        return Service(tuple(batch.tolist()), tuple((alone / alone.mean()).tolist()), float(content["start_seconds"]))


@dataclass(frozen=True)
class Policy:
    """An autoscaler. Rates of change are fractions and pods within a period in seconds, the larger counts.

    Attributes:
        target: of the signal.
        least, most: replicas.
        up_fraction, up_pods, up_period: how fast it may grow.
        down_fraction, down_period: how fast it may shrink.
        down_window: seconds over which the largest recommendation counts before it shrinks.
        node_seconds: from the decision until a pod starts: scheduling, and a machine where none is free.
        signal: "queue" for queue over compute, "busy" for the part of the time that a replica works.
    """

    target: float = 0.25
    least: int = 2
    most: int = 100
    up_fraction: float = 1.0
    up_pods: int = 4
    up_period: float = 30.0
    down_fraction: float = 0.1
    down_period: float = 60.0
    down_window: float = 600.0
    node_seconds: float = 20.0
    signal: str = "queue"

    @staticmethod
    def of_manifest(path: Path = MANIFEST) -> Policy:
        """The numbers that the cluster would use."""
        spec: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))["spec"]
        up, down = spec["behavior"]["scaleUp"], spec["behavior"]["scaleDown"]
        steps = {policy["type"]: policy for policy in up["policies"]}
        value = str(spec["metrics"][0]["external"]["target"]["value"])
        return Policy(
            target=float(value.removesuffix("m")) / 1000 if value.endswith("m") else float(value),
            least=spec["minReplicas"],
            most=spec["maxReplicas"],
            up_fraction=steps["Percent"]["value"] / 100,
            up_pods=steps["Pods"]["value"],
            up_period=steps["Percent"]["periodSeconds"],
            down_fraction=down["policies"][0]["value"] / 100,
            down_period=down["policies"][0]["periodSeconds"],
            down_window=down["stabilizationWindowSeconds"],
        )


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
        """A quantile of the latency, seconds, of what arrived in [start, end); NaN if nothing did."""
        inside = self.latency[(self.arrival >= start) & (self.arrival < end)]
        return float(np.quantile(inside, q)) if len(inside) else math.nan


def arrivals(rate: Callable[[Floats], Floats], seconds: float, rng: np.random.Generator) -> Floats:
    """Times of a Poisson process with a rate that changes, by thinning one second at a time."""
    edges = np.arange(0.0, seconds)
    counts = rng.poisson(rate(edges + 0.5) * np.minimum(1.0, seconds - edges))
    times = np.repeat(edges, counts) + rng.random(int(counts.sum()))
    times.sort()
    return np.asarray(times[times < seconds])


def _advance_python(
    server: int,
    until: float,
    free_at: Floats,
    queue: Floats,
    head: NDArray[np.int64],
    size: NDArray[np.int64],
    flying: NDArray[np.int64],
    batch_seconds: Floats,
    spread: Floats,
    sums: Floats,
    arrival_out: Floats,
    latency_out: Floats,
    done: int,
) -> int:
    """Let one replica start every batch that begins before ``until``; returns how many answers there are by now.

    A batch's answers are written when it starts, since its end is known then. ``sums``: waited, worked, busy seconds.
    """
    slots = queue.shape[1]
    while True:
        if free_at[server] <= until:
            flying[server] = 0
        if size[server] == 0 or free_at[server] > until:
            return done
        start = max(free_at[server], queue[server, head[server]])
        if start > until:
            return done
        rows = 0
        while rows < size[server] and rows < len(batch_seconds):
            if queue[server, (head[server] + rows) % slots] > start:
                break
            rows += 1
        seconds = batch_seconds[rows - 1] * spread[np.random.randint(0, len(spread))]
        for _ in range(rows):
            arrived = queue[server, head[server]]
            head[server] = (head[server] + 1) % slots
            arrival_out[done] = arrived
            latency_out[done] = start + seconds - arrived
            sums[0] += start - arrived
            sums[1] += seconds
            done += 1
        size[server] -= rows
        flying[server] = rows
        free_at[server] = start + seconds
        sums[2] += seconds


def _interval_python(
    times: Floats,
    end: float,
    serving: NDArray[np.int64],
    going: NDArray[np.int64],
    free_at: Floats,
    queue: Floats,
    head: NDArray[np.int64],
    size: NDArray[np.int64],
    flying: NDArray[np.int64],
    batch_seconds: Floats,
    spread: Floats,
    sums: Floats,
    arrival_out: Floats,
    latency_out: Floats,
    done: int,
    rejected: int,
) -> tuple[int, int]:
    """Everything between two looks of the autoscaler; returns the answers and rejections so far."""
    slots = queue.shape[1]
    for now in times:
        first = serving[np.random.randint(0, len(serving))]
        second = serving[np.random.randint(0, len(serving))]
        for server in (first, second):
            done = _advance(
                server,
                now,
                free_at,
                queue,
                head,
                size,
                flying,
                batch_seconds,
                spread,
                sums,
                arrival_out,
                latency_out,
                done,
            )
        if size[second] + flying[second] < size[first] + flying[first]:
            first, second = second, first
        if size[first] == slots:
            first = second
        if size[first] == slots:
            rejected += 1
            continue
        queue[first, (head[first] + size[first]) % slots] = now
        size[first] += 1
    for group in (serving, going):
        for server in group:
            done = _advance(
                server,
                end,
                free_at,
                queue,
                head,
                size,
                flying,
                batch_seconds,
                spread,
                sums,
                arrival_out,
                latency_out,
                done,
            )
    return done, rejected


def _seed_python(seed: int) -> None:
    """Seed the generator that compiled code uses; it is not NumPy's."""
    np.random.seed(seed)


# Decorators without types would take the types of what they decorate.
_advance: Callable[..., int] = numba.njit()(_advance_python)
_interval: Callable[..., tuple[int, int]] = numba.njit()(_interval_python)
_seed: Callable[[int], None] = numba.njit()(_seed_python)


def simulate(
    service: Service,
    policy: Policy,
    rate: Callable[[Floats], Floats],
    seconds: float,
    seed: int = 0,
    replicas: int | None = None,
    scaling: bool = True,
) -> Outcome:
    """Run it.

    Args:
        service: what a replica does.
        policy: the autoscaler.
        rate: seconds -> requests a second, vectorised.
        seconds: how long.
        seed: the same seed gives the same outcome.
        replicas: how many serve at the start; None for the least.
        scaling: False keeps them.
    """
    rng = np.random.default_rng(seed)
    _seed(seed)
    times = arrivals(rate, seconds, rng)
    most = max(policy.most, replicas or 0)
    free_at, queue = np.zeros(most), np.zeros((most, _QUEUE))
    head, size, flying = (np.zeros(most, np.int64) for _ in range(3))
    arrival_out, latency_out = np.zeros(len(times)), np.zeros(len(times))
    batch, spread, sums = np.array(service.batch_seconds), np.array(service.spread), np.zeros(3)

    serving = list(range(replicas or policy.least))
    starting: list[tuple[float, int]] = []  # (when it serves, which)
    going: list[int] = []
    spare = [index for index in range(most - 1, -1, -1) if index not in serving]
    scaler = Scaler(policy)
    done = rejected = 0
    history: list[tuple[float, float, float, float]] = []
    seen: list[tuple[float, float, float, int]] = [(0.0, 0.0, 0.0, len(serving))]
    for tick in range(1, math.ceil(seconds / _TICK) + 1):
        begin, end = (tick - 1) * _TICK, min(tick * _TICK, seconds)
        now_serving = [index for when, index in starting if when <= begin]
        starting = [entry for entry in starting if entry[0] > begin]
        serving += now_serving
        low, high = np.searchsorted(times, [begin, end])
        groups = (np.array(serving, np.int64), np.array(going, np.int64))
        state = (free_at, queue, head, size, flying, batch, spread, sums, arrival_out, latency_out)
        done, rejected = _interval(times[low:high], end, *groups, *state, done, rejected)
        empty = [index for index in going if size[index] == 0 and free_at[index] <= end]
        spare += empty
        going = [index for index in going if index not in empty]

        seen.append((sums[0], sums[1], sums[2], len(serving)))
        signal = _signal(seen, policy.signal)
        history.append((end, (high - low) / (end - begin), len(serving), signal))
        if not scaling:
            continue
        wanted = scaler.look(end, signal, len(serving) + len(starting))
        while wanted > len(serving) + len(starting) and spare:
            starting.append((end + policy.node_seconds + service.start_seconds, spare.pop()))
        while wanted < len(serving) + len(starting):
            if starting:
                spare.append(starting.pop()[1])
            else:
                going.append(serving.pop())
    ticks, rates, counts, signals = (np.array(column) for column in zip(*history, strict=True))
    left = int(size.sum())
    return Outcome(
        len(times), done, rejected, left, arrival_out[:done], latency_out[:done], ticks, rates, counts, signals
    )


def _signal(seen: Sequence[tuple[float, float, float, int]], kind: str) -> float:
    """Over the last minute, up to one tick ago: Prometheus scrapes, evaluates, and is asked."""
    newest = max(len(seen) - 2, 0)
    oldest = max(newest - 4, 0)
    waited, worked, busy = (seen[newest][i] - seen[oldest][i] for i in range(3))
    if kind == "busy":
        replica_seconds = sum(entry[3] for entry in seen[oldest + 1 : newest + 1]) * _TICK
        return busy / replica_seconds if replica_seconds else 0.0
    return waited / worked if worked > 0 else 0.0


class Scaler:
    """The decisions of a HorizontalPodAutoscaler, one look after the other."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._recommended: list[tuple[float, int]] = []
        self._changes: list[tuple[float, int]] = []  # (when, by how many)

    def look(self, now: float, signal: float, replicas: int) -> int:
        """How many replicas there should be."""
        policy = self._policy
        ratio = signal / policy.target
        desired = replicas if abs(ratio - 1) <= 0.1 else math.ceil(replicas * ratio)
        desired = min(max(desired, policy.least), policy.most)
        self._recommended = [entry for entry in self._recommended if entry[0] > now - policy.down_window]
        self._recommended.append((now, desired))
        if desired < replicas:
            # Shrink to the largest recommendation of the window only.
            desired = min(replicas, max(count for _, count in self._recommended))
        if desired > replicas:
            grown = sum(by for when, by in self._changes if when > now - policy.up_period and by > 0)
            base = replicas - grown
            desired = min(desired, base + max(math.ceil(base * policy.up_fraction), policy.up_pods))
            desired = max(desired, replicas)
        elif desired < replicas:
            shrunk = -sum(by for when, by in self._changes if when > now - policy.down_period and by < 0)
            base = replicas + shrunk
            desired = max(desired, base - max(math.floor(base * policy.down_fraction), 1))
            desired = min(desired, replicas)
        if desired != replicas:
            self._changes = [entry for entry in self._changes if entry[0] > now - 600] + [(now, desired - replicas)]
        return desired
