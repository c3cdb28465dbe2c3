"""Counters and histograms of a model's process, which Triton puts on its own /metrics page.

The source is deploy/configurations/shared/series.py; `make configs` copies it into the version folders that use it, as
a version folder is complete by itself. A call costs a message to the server, some 50 microseconds.

One call at a time in a process: Triton 2.51 keeps the message of a metric in the metric itself, and the server ends by
SIGSEGV when a second thread writes it while the first one's is read.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Sequence

import triton_python_backend_utils as pb_utils

_one_call = threading.Lock()


class Counter:
    """A series that counts, one for each set of labels."""

    def __init__(self, name: str, description: str) -> None:
        # The stub fills its module only after the model's modules were imported, so not at the top of this file.
        self._family = pb_utils.MetricFamily(name, description, pb_utils.MetricFamily.COUNTER)
        _keep(self._family)
        self._metrics: dict[tuple[tuple[str, str], ...], pb_utils.Metric] = {}

    def show(self, **labels: str) -> None:
        """Put a series on the page before it counts anything, so that an alert sees its first step."""
        with _one_call:
            self._metric(labels)

    def increment(self, **labels: str) -> None:
        """Count one."""
        with _one_call:
            self._metric(labels).increment(1)

    def _metric(self, labels: dict[str, str]) -> pb_utils.Metric:
        key = tuple(sorted(labels.items()))
        if key not in self._metrics:
            self._metrics[key] = self._family.Metric(labels=labels)
            _keep(self._metrics[key])
        return self._metrics[key]


class Histogram:
    """A distribution over buckets, one for each set of labels."""

    def __init__(self, name: str, description: str, buckets: Sequence[float]) -> None:
        self._family = pb_utils.MetricFamily(name, description, pb_utils.MetricFamily.HISTOGRAM)
        _keep(self._family)
        self._buckets = list(buckets)
        self._metrics: dict[tuple[tuple[str, str], ...], pb_utils.Metric] = {}

    def observe(self, value: float, **labels: str) -> None:
        """Note one value."""
        key = tuple(sorted(labels.items()))
        with _one_call:
            if key not in self._metrics:
                self._metrics[key] = self._family.Metric(labels=labels, buckets=self._buckets)
                _keep(self._metrics[key])
            self._metrics[key].observe(value)


def _keep(thing: object) -> None:
    """Keep a family or metric past the end of this process: its destructor never runs.

    Triton 2.51 counts the users of a series by family object, not by name. When one process deletes its metric, the
    series is freed under all others that have it, those of the next version and of other instances among them, and
    their next call ends the server (SIGSEGV, or an abort in pthread_mutex_lock). So nothing is deleted, and a series
    goes on where it stood when a model is loaded again.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))
