"""The pipeline's processes on a number of cores, event by event (SimPy).

Every piece of work occupies one core for its processor time; who finds none free waits his turn. Where a process of
Python holds its lock, its other threads wait. As in the service: a network's instance takes what has queued, up to its
largest batch, runs the rows side by side in lanes, sends each answer when it is there, and takes no new batch before
the last row is done; the regressor runs a batch as a whole, in threads; `align` cuts a batch side by side;
`postprocess` and the decoders have as many threads and workers as there are cores (one more of the latter). Clients
send their next picture when the last answer is there. What is left out: memory's bandwidth, caches and clocks, which
many busy cores share, and threads inside a run of a picture alone.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import simpy

from perf.cores.measured import Measured
from server.backends.onnxruntime.onnx_session import MOST_THREADS

Process: TypeAlias = "Generator[simpy.Event, Any, None]"

NETWORKS = ("detector", "regressor", "parser", "texture")
STAGES = ("preprocess", "decoder", "detector", "align", "regressor", "parser", "texture", "postprocess")
"""The path of a picture behind the gateway."""
BATCH = 8
SLICES = 4
"""Pieces that a thread's time is cut into: it takes the lock and a core for each anew."""
SPREAD = 0.15
"""Standard deviation of a piece's time over its mean: pictures differ."""


@dataclass(frozen=True)
class Layout:
    """Processes and threads of a server.

    Attributes:
        cores: of the machine.
        instances: model -> its processes, where there are more than one.
        most_threads: lanes and threads of a network at most.
    """

    cores: int
    instances: dict[str, int] = field(default_factory=dict)
    most_threads: int = MOST_THREADS

    @property
    def lanes(self) -> int:
        """Rows of a batch that run side by side: the service's rule."""
        return 1 if self.cores <= 2 else min(self.cores, self.most_threads)


@dataclass(frozen=True)
class Outcome:
    """What came of it: pictures a second, latencies in seconds, and how busy each part was, 0..1."""

    rate: float
    p50: float
    p99: float
    busy: dict[str, float]

    @property
    def tightest(self) -> str:
        """The part that was busy most of the time."""
        return max(self.busy, key=lambda name: self.busy[name])


class _Machine:
    """Cores, locks of processes, and how long each part was busy."""

    def __init__(self, measured: Measured, layout: Layout, seed: int) -> None:
        self.env = simpy.Environment()
        self.measured, self.layout = measured, layout
        self.cores = simpy.Resource(self.env, layout.cores)
        self.chance = np.random.default_rng(seed)
        self.busy: dict[str, float] = {}

    def seconds(self, name: str) -> float:
        """Draw the processor time of one picture in a process."""
        mean = self.measured.milliseconds.get(name, 0.0) / 1000
        return mean * max(0.2, float(self.chance.normal(1.0, SPREAD)))

    def compute(self, seconds: float) -> Process:
        """Occupy a core."""
        with self.cores.request() as core:
            yield core
            yield self.env.timeout(seconds)
        self.note("cores", seconds / self.layout.cores)

    def work(self, name: str, lock: simpy.Resource | None) -> Process:
        """Do one picture's work in one thread of a process: in slices, a part of each under the lock."""
        whole = self.seconds(name)
        share = self.measured.locked.get(name, 0.0) if lock is not None else 0.0
        for _ in range(SLICES):
            if lock is not None and share > 0:
                with lock.request() as turn:
                    yield turn
                    yield from self.compute(whole * share / SLICES)
            if share < 1:
                yield from self.compute(whole * (1 - share) / SLICES)
        if share > 0:
            self.note(f"lock of {name}", whole * share / self.layout.instances.get(name, 1))

    def note(self, part: str, seconds: float) -> None:
        """Add to the time that a part was busy."""
        self.busy[part] = self.busy.get(part, 0.0) + seconds


class _Threads:
    """A process whose threads take one picture each."""

    def __init__(self, machine: _Machine, name: str, threads: int) -> None:
        self._machine, self._name = machine, name
        count = machine.layout.instances.get(name, 1)
        self._slots = simpy.Resource(machine.env, threads * count)
        self._locks = [simpy.Resource(machine.env, 1) for _ in range(count)]

    def serve(self) -> Process:
        """Work on one picture."""
        with self._slots.request() as slot:
            yield slot
            lock = min(self._locks, key=lambda one: one.count + len(one.queue))
            yield from self._machine.work(self._name, lock)


class _Batches:
    """A model that takes what has queued as a batch, one batch at a time in each of its instances."""

    def __init__(self, machine: _Machine, name: str) -> None:
        self._machine, self._name = machine, name
        self._queue: list[simpy.Event] = []
        self._bell = machine.env.event()
        for _ in range(machine.layout.instances.get(name, 1)):
            machine.env.process(self._instance())

    def serve(self) -> Process:
        """Work on one picture, in a batch."""
        done = self._machine.env.event()
        self._queue.append(done)
        if not self._bell.triggered:
            self._bell.succeed()
        yield done

    def _instance(self) -> Process:
        env, lock = self._machine.env, simpy.Resource(self._machine.env, 1)
        while True:
            while not self._queue:
                if self._bell.triggered:
                    self._bell = env.event()
                yield self._bell
            batch, self._queue = self._queue[:BATCH], self._queue[BATCH:]
            start = env.now
            yield from self._whole(batch) if self._name == "regressor" else self._rows(batch, lock)
            self._machine.note(f"batches of {self._name}", (env.now - start) / self._instances)

    @property
    def _instances(self) -> int:
        return self._machine.layout.instances.get(self._name, 1)

    def _rows(self, batch: list[simpy.Event], lock: simpy.Resource) -> Process:
        """Run the rows side by side."""
        env = self._machine.env
        lanes = simpy.Resource(
            env, self._machine.layout.lanes if self._name in NETWORKS else self._machine.layout.cores
        )

        def row(done: simpy.Event) -> Process:
            with lanes.request() as lane:
                yield lane
                yield from self._machine.work(self._name, lock)
            done.succeed()

        yield simpy.AllOf(env, [env.process(row(done)) for done in batch])

    def _whole(self, batch: list[simpy.Event]) -> Process:
        """Run the batch as one, in threads."""
        env, threads = self._machine.env, self._machine.layout.lanes
        work = sum(self._machine.seconds(self._name) for _ in batch)
        serial = self._machine.measured.serial if threads > 1 else 1.0
        yield from self._machine.compute(work * serial)
        if serial < 1:
            part = work * (1 - serial) / threads
            yield simpy.AllOf(env, [env.process(self._machine.compute(part)) for _ in range(threads)])
        for done in batch:
            done.succeed()


def simulate(measured: Measured, layout: Layout, clients: int, seconds: float = 30.0, seed: int = 0) -> Outcome:
    """Keep ``clients`` pictures in flight for a simulated time, of which the first third does not count."""
    machine = _Machine(measured, layout, seed)
    gateway = _Threads(machine, "gateway", 10_000)
    triton = _Threads(machine, "tritonserver", 10_000)  # no Python: `Measured.locked` knows no lock of it
    parts: dict[str, _Threads | _Batches] = {
        "preprocess": _Threads(machine, "preprocess", layout.cores),
        "decoder": _Threads(machine, "decoder", layout.cores + 1),
        "postprocess": _Threads(machine, "postprocess", max(2, layout.cores)),
        **{name: _Batches(machine, name) for name in (*NETWORKS, "align")},
    }
    latencies: list[float] = []
    warm = seconds / 3

    def client() -> Process:
        while True:
            start = machine.env.now
            yield from gateway.serve()
            yield from triton.serve()
            for stage in STAGES:
                yield from parts[stage].serve()
            if machine.env.now >= warm:
                latencies.append(machine.env.now - start)

    for _ in range(clients):
        machine.env.process(client())
    machine.env.run(warm)
    machine.busy.clear()
    machine.env.run(seconds)
    p50, p99 = np.percentile(latencies, [50, 99])
    took = seconds - warm
    # What began before counts whole at its end, so that a part may seem busy for a little longer than there was time.
    busy = {name: min(1.0, used / took) for name, used in machine.busy.items()}
    return Outcome(len(latencies) / took, float(p50), float(p99), busy)
