"""What `steady` tells Prometheus."""

from __future__ import annotations

from series import Counter


class Meters:
    """Counters of this process."""

    def __init__(self) -> None:
        self._refused = Counter("face3d_refused_total", "Requests refused, by the step and the name of the error")
        self._clips = Counter("face3d_clips_total", "Clips whose first frame came")

    def refused(self, reason: str) -> None:
        """Count a request that was answered with an error."""
        self._refused.increment(step="steady", reason=reason)

    def begun(self) -> None:
        """Count a clip."""
        self._clips.increment()
