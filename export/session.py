"""ONNX Runtime sessions on the CPU as the service runs them, and a timer that compares graphs in turns."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from server.backends.onnxruntime.integer_products import EXACT_KERNELS

Feed = dict[str, NDArray[Any]]
THREADS = 1 if len(os.sched_getaffinity(0)) <= 2 else 2
"""The service's number of threads for a network on one or two cores (`default_threads` of the server's backend). On
more cores, where a single picture gets all of them, two: only ratios are measured here."""


class Runnable(Protocol):
    """The part of ``ort.InferenceSession`` that is used here."""

    def get_inputs(self) -> list[Any]:
        """Return name, type and shape of each input."""
        ...

    def get_outputs(self) -> list[Any]:
        """Return name, type and shape of each output."""
        ...

    def run(self, names: Sequence[str] | None, feed: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """Run once; return the named outputs, for None all of them."""
        ...


def loaded(model: onnx.ModelProto | Path, threads: int = THREADS, exact: bool = False) -> ort.InferenceSession:
    """Load a graph in ONNX Runtime; `exact`: with integer kernels that never saturate, and without VNNI are slower."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    # Idle threads of one session must not use the cores of another one that is being timed.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if exact:
        options.add_session_config_entry(EXACT_KERNELS, "1")
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])


class Session:
    """A loaded graph, or an object with the same methods: `session(feed)` returns outputs by name."""

    def __init__(self, model: onnx.ModelProto | Path | Runnable, threads: int = THREADS, exact: bool = False) -> None:
        self._session = loaded(model, threads, exact) if isinstance(model, (onnx.ModelProto, Path)) else model
        self.outputs = [output.name for output in self._session.get_outputs()]
        self.inputs = [value.name for value in self._session.get_inputs()]

    def __call__(self, feed: Mapping[str, NDArray[Any]]) -> Feed:
        """Run once; entries of `feed` that are no inputs of this graph are ignored."""
        results = self._session.run(None, {name: feed[name] for name in self.inputs})
        return dict(zip(self.outputs, results, strict=True))


def with_outputs(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """Copy a graph and add the named float tensors to its outputs."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    present = {value.name for value in copy.graph.output}
    inputs = {value.name for value in copy.graph.input}
    for name in names:
        if name not in present | inputs:
            copy.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    return copy


def median_seconds(sessions: Mapping[str, Session], feed: Feed, rounds: int = 7) -> dict[str, float]:
    """Measure the median processor seconds of one run of each session, in turns, so that other load affects all alike.

    Processor time limits throughput, and wall-clock time includes that of other processes.
    """
    times: dict[str, list[float]] = {name: [] for name in sessions}
    for name, session in sessions.items():
        session(feed)
        times[name] = []
    for _ in range(rounds):
        for name, session in sessions.items():
            start = time.process_time()
            session(feed)
            times[name].append(time.process_time() - start)
    return {name: float(np.median(values)) for name, values in times.items()}


def stack(feeds: Sequence[Feed]) -> Feed:
    """Concatenate feeds along the batch."""
    return {name: np.concatenate([feed[name] for feed in feeds]) for name in feeds[0]}
