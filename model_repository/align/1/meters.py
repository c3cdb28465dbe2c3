"""What `align` tells Prometheus: Triton puts it on its own /metrics page."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from typing import TypeVar

import triton_python_backend_utils as pb_utils

_FACES = [0, 1, 2, 4, 8, 16]
# From what is barely found to a face that fills a large picture; warnings begin below 100.
_PIXELS = [32, 64, 100, 150, 224, 350, 512, 800, 1200, 2000]
# Warnings begin at 30.
_DEGREES = [5, 10, 15, 20, 30, 45, 60, 90]


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
        self._warned = _for_good(
            pb_utils.MetricFamily(
                "face3d_warnings_total", "Faces that were used although something was doubtful, by what it was", counter
            )
        )
        self._counters: dict[str, pb_utils.Metric] = {}
        found = _for_good(
            pb_utils.MetricFamily(
                "face3d_faces_per_picture", "Faces found in a picture with a score from the threshold on", histogram
            )
        )
        pixels = _for_good(
            pb_utils.MetricFamily(
                "face3d_face_pixels", "Shorter side of the box of the face that was used, in source pixels", histogram
            )
        )
        yaw = _for_good(
            pb_utils.MetricFamily(
                "face3d_face_yaw_degrees", "Turn to the side of the face that was used, either way", histogram
            )
        )
        self._found = _for_good(found.Metric(labels={}, buckets=_FACES))
        self._pixels = _for_good(pixels.Metric(labels={}, buckets=_PIXELS))
        self._yaw = _for_good(yaw.Metric(labels={}, buckets=_DEGREES))

    def refused(self, reason: str) -> None:
        """Count a request that was answered with an error."""
        if reason not in self._counters:
            labels = {"step": "align", "reason": reason}
            self._counters[reason] = _for_good(self._refused.Metric(labels=labels))
        self._counters[reason].increment(1)

    def found(self, faces: int) -> None:
        """Note how many faces a picture has."""
        self._found.observe(faces)

    def aligned(self, pixels: float, yaw: float, kinds: Iterable[str]) -> None:
        """Note a face that was cut out, and the kinds of doubt about it."""
        self._pixels.observe(pixels)
        self._yaw.observe(abs(yaw))
        for kind in kinds:
            if kind not in self._counters:
                self._counters[kind] = _for_good(self._warned.Metric(labels={"kind": kind}))
            self._counters[kind].increment(1)


def _for_good(thing: T) -> T:
    """Keep a family or metric past the end of this process: its destructor never runs.

    Triton 2.51 counts the users of a series by family object, not by name. When one process deletes its metric, the
    series is freed under all others that have it, those of the next version and of other instances among them, and
    their next call ends the server (SIGSEGV, or an abort in pthread_mutex_lock). So nothing is deleted, and a series
    goes on where it stood when a model is loaded again.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))
    return thing
