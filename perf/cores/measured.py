"""What the simulation is fed with: processor time by process, Python's lock, and threads inside the regressor."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from perf import folders, photos
from perf.compare.bare_onnx import Sessions
from perf.compare.repository_steps import RepositorySteps
from perf.owners import processor_times
from server.backends.onnxruntime import parts
from server.embedded import ServerOptions, on_free_ports
from server.service import PublicOptions, Service

CLIENTS = 16
_LATE = 1e-4
"""Seconds by which a thread that wakes is late where it had to wait for Python's lock; a free one takes 0.00006."""


@dataclass(frozen=True)
class Measured:
    """What a default request costs.

    Attributes:
        milliseconds: process -> processor time a picture: names of models, ``gateway``, ``tritonserver``, ``decoder``.
        locked: process -> the part of its time during which it holds Python's lock, 0..1.
        serial: part of a run of the regressor that more threads do not shorten, 0..1.
        rate: pictures a second with `CLIENTS` clients.
        cores: that all this was measured on.
    """

    milliseconds: dict[str, float]
    locked: dict[str, float]
    serial: float
    rate: float
    cores: int

    def as_json(self) -> dict[str, Any]:
        """Return the fields as JSON has them."""
        return asdict(self)


def measure(seconds: float) -> Measured:
    """Measure on the real server, and the lock and the threads in this process.

    Args:
        seconds: of each of the two measurements of the server.
    """
    milliseconds, rate = _by_process(seconds)
    return Measured(milliseconds, _locks(), _serial_part(), rate, len(os.sched_getaffinity(0)))


def _by_process(seconds: float) -> tuple[dict[str, float], float]:
    """Return processor milliseconds a picture by process, with one client, and the rate with `CLIENTS`."""
    with Service(on_free_ports(ServerOptions()), PublicOptions(status_port=0)) as service:
        url = f"http://{service.http}/v2/models/face3d/infer"
        _drive(url, 4, min(seconds, 3.0))  # warm-up
        before = processor_times(os.getpid())
        done = _drive(url, 1, seconds)
        spent = {name: used - before.get(name, 0.0) for name, used in processor_times(os.getpid()).items()}
        milliseconds = {name: 1000 * used / len(done) for name, used in spent.items() if 1000 * used >= len(done) / 10}
        inside = [when for when, _, _ in _drive(url, CLIENTS, seconds) if when <= seconds]
    return milliseconds, len(inside) / max(inside)


def _drive(url: str, clients: int, seconds: float) -> list[list[float]]:
    """Keep requests in flight from another process; return completion, latency and picture of each."""
    command = [sys.executable, "-m", "perf.compare.client", url, "face3d", str(clients), str(seconds)]
    done: list[list[float]] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    return done


def _locks() -> dict[str, float]:
    """Estimate the part of its time that each Python process holds Python's lock, by running its step beside a probe.

    The gateway's event loop and preprocess, which only hands files on, are taken to hold it always.
    """
    steps, sessions = RepositorySteps(), Sessions(1)
    pictures, data = steps.pictures, photos.mix()["jpeg-1MP-a"]
    picture = pictures.decode(data, steps.limits)
    canvas, ratio = pictures.canvas_of(picture)
    faces = sessions.run("detector", canvas=canvas, geometry=pictures.geometry_of(picture, ratio))["faces"]
    crop, crop_hd, context = steps.align(picture.pixels, picture.source, faces)
    regressed = sessions.run("regressor", crop=crop, context=context)
    found = sessions.run("parser", crop=crop, fingerprint=regressed["fingerprint"])
    feed = {"crop_hd": crop_hd, "shapes": regressed["shapes"], "context": context, "parts": found["parts"]}
    batch = {name: np.asarray(value)[None] for name, value in feed.items()}
    painter = _texture_session()
    names = ("texture", "places")
    painted = {name: value[0] for name, value in zip(names, painter.run(names, batch), strict=True)}
    return {
        "gateway": 1.0,
        "preprocess": 1.0,
        "align": lock_share(lambda: steps.align(picture.pixels, picture.source, faces)),
        "texture": lock_share(lambda: painter.run(names, batch)),
        "postprocess": lock_share(lambda: steps.reconstruction(regressed, painted, found["parts"], crop_hd, context)),
    }


def _texture_session() -> Any:
    """Open the texture network as the server does: in parts where they are there."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    path = Path(folders.newest("texture")) / "model.onnx"

    def opened(file: Path, how: ort.SessionOptions) -> ort.InferenceSession:
        return ort.InferenceSession(file, how, providers=["CPUExecutionProvider"])

    return parts.open_parts(path, options, opened) or opened(path, options)


def lock_share(step: Callable[[], object], seconds: float = 2.0) -> float:
    """Estimate the part of a step's time during which it holds Python's lock, 0..1.

    A thread repeats the step; another sleeps again and again and is late whenever it has to wait for the lock. The
    part of its wakings that are late is what is wanted: it needs a core of its own.
    """
    step()
    stop = threading.Event()

    def repeat() -> None:
        while not stop.is_set():
            step()

    before = sys.getswitchinterval()
    worker = threading.Thread(target=repeat)
    worker.start()
    try:
        sys.setswitchinterval(1e-4)  # so that the probe's own waiting is short
        late = _late_wakings(seconds)
    finally:
        stop.set()
        worker.join()
        sys.setswitchinterval(before)
    return late


def _late_wakings(seconds: float) -> float:
    late = total = 0
    end = time.perf_counter() + seconds
    while (asleep := time.perf_counter()) < end:
        time.sleep(0.0005)
        total += 1
        late += time.perf_counter() - asleep > 0.0005 + _LATE
    return late / max(total, 1)


def _serial_part(rounds: int = 30) -> float:
    """Return the part of a regressor's run that a second thread does not shorten, by Amdahl's law."""
    one, two = Sessions(1), Sessions(2)
    crop = np.random.default_rng(0).integers(0, 255, (3, 224, 224)).astype(np.uint8)
    context = np.array([*_FACE, 1, 1, 0, 0, 0.5, 0.5, 0, 0], np.float32)
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for sessions, taken in zip((one, two), times, strict=True):
            start = time.perf_counter()
            sessions.run("regressor", crop=crop, context=context)
            taken.append(time.perf_counter() - start)
    alone, shared = (float(np.min(taken)) for taken in times)
    return float(np.clip(2 * shared / alone - 1, 0.0, 1.0))


_FACE = (60, 50, 164, 180, 1, 81, 81, 143, 81, 112, 117, 87, 150, 137, 150)
"""A face in the middle of a crop of 224: box, score and five points."""
