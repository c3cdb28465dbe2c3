"""What `preprocess` tells Prometheus: Triton puts it on its own /metrics page."""

from __future__ import annotations

import ctypes
import threading
from typing import TypeVar

import triton_python_backend_utils as pb_utils

# Around the 5 ms of a portrait, the 40 of a telephone's picture, and what a hostile PNG of 65 megapixels takes.
_SECONDS = [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0]
_MEGAPIXELS = [0.1, 0.3, 1, 2, 4, 8, 12, 24, 48, 65]

T = TypeVar("T")


class Meters:
    """Counters and histograms of this process. A call costs a message to the server, some 50 microseconds.

    One call at a time: Triton 2.51 keeps the message of a metric in the metric itself, and the server ends by SIGSEGV
    when a second thread writes it while the first one's is read.
    """

    def __init__(self) -> None:
        # Not at the top of the file: the stub fills its module only after the model's modules were imported.
        counter, histogram = pb_utils.MetricFamily.COUNTER, pb_utils.MetricFamily.HISTOGRAM
        self._refused = _for_good(
            pb_utils.MetricFamily(
                "face3d_refused_total", "Requests refused, by the step and the name of the client's exception", counter
            )
        )
        self._lock = threading.Lock()
        self._reasons: dict[str, pb_utils.Metric] = {}
        self._of("Overloaded")  # there from the start, so that the first one is a step that an alert sees
        seconds = _for_good(pb_utils.MetricFamily("face3d_decode_seconds", "Time to decode one picture", histogram))
        megapixels = _for_good(
            pb_utils.MetricFamily("face3d_picture_megapixels", "Pictures that came in, at full size", histogram)
        )
        self._seconds = _for_good(seconds.Metric(labels={}, buckets=_SECONDS))
        self._megapixels = _for_good(megapixels.Metric(labels={}, buckets=_MEGAPIXELS))

    def refused(self, reason: str) -> None:
        """Count a request that was answered with an error."""
        with self._lock:
            self._of(reason).increment(1)

    def _of(self, reason: str) -> pb_utils.Metric:
        if reason not in self._reasons:
            labels = {"step": "preprocess", "reason": reason}
            self._reasons[reason] = _for_good(self._refused.Metric(labels=labels))
        return self._reasons[reason]

    def decoded(self, seconds: float, pixels: int) -> None:
        """Note a picture that was decoded."""
        with self._lock:
            self._seconds.observe(seconds)
            self._megapixels.observe(pixels / 1e6)


def _for_good(thing: T) -> T:
    """Keep a family or metric past the end of this process: its destructor never runs.

    Triton 2.51 counts the users of a series by family object, not by name. When one process deletes its metric, the
    series is freed under all others that have it, those of the next version and of other instances among them, and
    their next call ends the server (SIGSEGV, or an abort in pthread_mutex_lock). So nothing is deleted, and a series
    goes on where it stood when a model is loaded again.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))
    return thing
