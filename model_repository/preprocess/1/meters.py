"""What `preprocess` tells Prometheus."""

from __future__ import annotations

from series import Counter, Histogram

# Around the 5 ms of a portrait, the 40 of a telephone's picture, and what a hostile PNG of 65 megapixels takes.
_SECONDS = [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0]
_MEGAPIXELS = [0.1, 0.3, 1, 2, 4, 8, 12, 24, 48, 65]


class Meters:
    """Counters and histograms of this process; any thread may call."""

    def __init__(self) -> None:
        self._refused = Counter("face3d_refused_total", "Requests refused, by the step and the name of the error")
        self._refused.show(step="preprocess", reason="Overloaded")
        self._seconds = Histogram("face3d_decode_seconds", "Time to decode one picture", _SECONDS)
        self._megapixels = Histogram("face3d_picture_megapixels", "Pictures that came in, at full size", _MEGAPIXELS)

    def refused(self, reason: str) -> None:
        """Count a request that was answered with an error."""
        self._refused.increment(step="preprocess", reason=reason)

    def decoded(self, seconds: float, pixels: int) -> None:
        """Note a picture that was decoded."""
        self._seconds.observe(seconds)
        self._megapixels.observe(pixels / 1e6)
