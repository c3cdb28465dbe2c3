"""What `fusion` tells Prometheus."""

from __future__ import annotations

from series import Counter, Histogram

# Around the quarter of a second of a portrait on one core.
_SECONDS = [0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 1.2, 2.0, 4.0, 8.0]


class Meters:
    """Counters and a histogram of this process; any thread may call."""

    def __init__(self) -> None:
        self._refused = Counter("face3d_refused_total", "Requests refused, by the step and the name of the error")
        self._fused = Counter("face3d_fused_total", "Signed pictures, by the way they were made")
        self._seconds = Histogram("face3d_fuse_seconds", "Time to draw, blend and sign one picture", _SECONDS)
        for way in ("short", "long"):
            self._fused.show(way=way)

    def refused(self, reason: str) -> None:
        """Count a request that was answered with an error."""
        self._refused.increment(step="fusion", reason=reason)

    def fused(self, way: str, seconds: float) -> None:
        """Note a picture that was signed."""
        self._fused.increment(way=way)
        self._seconds.observe(seconds)
