"""What `postprocess` tells Prometheus: Triton puts it on its own /metrics page."""

from __future__ import annotations

import triton_python_backend_utils as pb_utils

# A mesh takes some 10 ms, a texture of 512 pixels 20, a preview 200.
_SECONDS = [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0]


class Meters:
    """Counters and histograms of this process. A call costs a message to the server, some 50 microseconds."""

    def __init__(self) -> None:
        # Not at the top of the file: the stub fills its module only after the model's modules were imported.
        counter, histogram = pb_utils.MetricFamily.COUNTER, pb_utils.MetricFamily.HISTOGRAM
        self._refused = pb_utils.MetricFamily(
            "face3d_refused_total", "Requests refused, by the step and the name of the client's exception", counter
        )
        self._reasons: dict[str, pb_utils.Metric] = {}
        self._seconds = pb_utils.MetricFamily("face3d_file_seconds", "Time to write one file, by its kind", histogram)
        self._files: dict[str, pb_utils.Metric] = {}

    def refused(self, reason: str) -> None:
        """Count a request that was answered with an error."""
        if reason not in self._reasons:
            self._reasons[reason] = self._refused.Metric(labels={"step": "postprocess", "reason": reason})
        self._reasons[reason].increment(1)

    def written(self, file: str, seconds: float) -> None:
        """Note a file that was written: ``mesh``, ``texture_image`` or ``preview``."""
        if file not in self._files:
            self._files[file] = self._seconds.Metric(labels={"file": file}, buckets=_SECONDS)
        self._files[file].observe(seconds)

    def close(self) -> None:
        """Let go of the metrics, then of their families, while the stub lives: at its exit they would crash it."""
        self._reasons.clear()
        self._files.clear()
        del self._refused, self._seconds
