"""What `preprocess` tells Prometheus: Triton puts it on its own /metrics page."""

from __future__ import annotations

import triton_python_backend_utils as pb_utils

# Around the 5 ms of a portrait, the 40 of a telephone's picture, and what a hostile PNG of 65 megapixels takes.
_SECONDS = [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0]
_MEGAPIXELS = [0.1, 0.3, 1, 2, 4, 8, 12, 24, 48, 65]


class Meters:
    """Counters and histograms of this process. A call costs a message to the server, some 50 microseconds."""

    def __init__(self) -> None:
        # Not at the top of the file: the stub fills its module only after the model's modules were imported.
        counter, histogram = pb_utils.MetricFamily.COUNTER, pb_utils.MetricFamily.HISTOGRAM
        self._refused = pb_utils.MetricFamily(
            "face3d_refused_total", "Requests refused, by the step and the name of the client's exception", counter
        )
        self._reasons: dict[str, pb_utils.Metric] = {}
        # Families are kept: a metric dies with its family.
        self._families = (
            pb_utils.MetricFamily("face3d_decode_seconds", "Time to decode one picture", histogram),
            pb_utils.MetricFamily("face3d_picture_megapixels", "Pictures that came in, at full size", histogram),
        )
        self._seconds = self._families[0].Metric(labels={}, buckets=_SECONDS)
        self._megapixels = self._families[1].Metric(labels={}, buckets=_MEGAPIXELS)

    def refused(self, reason: str) -> None:
        """Count a request that was answered with an error."""
        if reason not in self._reasons:
            self._reasons[reason] = self._refused.Metric(labels={"step": "preprocess", "reason": reason})
        self._reasons[reason].increment(1)

    def decoded(self, seconds: float, pixels: int) -> None:
        """Note a picture that was decoded."""
        self._seconds.observe(seconds)
        self._megapixels.observe(pixels / 1e6)

    def close(self) -> None:
        """Let go of the metrics, then of their families, while the stub lives: at its exit they would crash it."""
        self._reasons.clear()
        del self._seconds, self._megapixels
        del self._refused, self._families
