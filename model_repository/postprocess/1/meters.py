"""What `postprocess` tells Prometheus."""

from __future__ import annotations

from collections.abc import Iterable

from series import Counter, Histogram

# A mesh takes some 10 ms, a texture of 512 pixels 20, a preview 200.
_SECONDS = [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0]


class Meters:
    """Counters and histograms of this process."""

    def __init__(self) -> None:
        self._refused = Counter("face3d_refused_total", "Requests refused, by the step and the name of the error")
        self._warned = Counter("face3d_warnings_total", "Faces that were used although something is doubtful, by what")
        self._seconds = Histogram("face3d_file_seconds", "Time to write one file, by its kind", _SECONDS)

    def refused(self, reason: str) -> None:
        """Count a request that was answered with an error."""
        self._refused.increment(step="postprocess", reason=reason)

    def warned(self, kinds: Iterable[str]) -> None:
        """Count the kinds of doubt about a texture."""
        for kind in kinds:
            self._warned.increment(kind=kind)

    def written(self, file: str, seconds: float) -> None:
        """Note a file that was written: ``mesh``, ``texture_image`` or ``preview``."""
        self._seconds.observe(seconds, file=file)
