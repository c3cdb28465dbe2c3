"""What `postprocess` tells Prometheus: Triton puts it on its own /metrics page."""

from __future__ import annotations

import ctypes
from typing import TypeVar

import triton_python_backend_utils as pb_utils

# A mesh takes some 10 ms, a texture of 512 pixels 20, a preview 200.
_SECONDS = [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0]

T = TypeVar("T")


class Meters:
    """Counters and histograms of this process. A call costs a message to the server, some 50 microseconds."""

    def __init__(self) -> None:
        # Not at the top of the file: the stub fills its module only after the model's modules were imported.
        counter, histogram = pb_utils.MetricFamily.COUNTER, pb_utils.MetricFamily.HISTOGRAM
        self._refused = _for_good(
            pb_utils.MetricFamily(
                "face3d_refused_total", "Requests refused, by the step and the name of the client's exception", counter
            )
        )
        self._reasons: dict[str, pb_utils.Metric] = {}
        self._seconds = _for_good(
            pb_utils.MetricFamily("face3d_file_seconds", "Time to write one file, by its kind", histogram)
        )
        self._files: dict[str, pb_utils.Metric] = {}

    def refused(self, reason: str) -> None:
        """Count a request that was answered with an error."""
        if reason not in self._reasons:
            labels = {"step": "postprocess", "reason": reason}
            self._reasons[reason] = _for_good(self._refused.Metric(labels=labels))
        self._reasons[reason].increment(1)

    def written(self, file: str, seconds: float) -> None:
        """Note a file that was written: ``mesh``, ``texture_image`` or ``preview``."""
        if file not in self._files:
            self._files[file] = _for_good(self._seconds.Metric(labels={"file": file}, buckets=_SECONDS))
        self._files[file].observe(seconds)


def _for_good(thing: T) -> T:
    """Keep a family or metric past the end of this process: its destructor never runs.

    Triton 2.51 counts the users of a series by family object, not by name. When one process deletes its metric, the
    series is freed under all others that have it, those of the next version and of other instances among them, and
    their next call ends the server (SIGSEGV, or an abort in pthread_mutex_lock). So nothing is deleted, and a series
    goes on where it stood when a model is loaded again.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))
    return thing
