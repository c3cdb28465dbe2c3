"""What `merge` tells Prometheus."""

from __future__ import annotations

from series import Counter, Histogram

_PHOTOGRAPHS = [1, 2, 3, 4, 5, 6, 7, 8]
# Different people have about 0, photographs of one person 0.3 and more.
_COSINES = [-0.1, 0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8]
# Two photographs take some 0.3 s of one core.
_SECONDS = [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2]


class Meters:
    """Counters and histograms of this process."""

    def __init__(self) -> None:
        self._refused = Counter("face3d_refused_total", "Requests refused, by the step and the name of the error")
        self._photographs = Histogram(
            "face3d_person_photographs", "Photographs of one person in a request that was joined", _PHOTOGRAPHS
        )
        self._similarity = Histogram(
            "face3d_person_similarity", "Lowest mean cosine of a photograph with the others of its request", _COSINES
        )
        self._seconds = Histogram("face3d_merge_seconds", "Time to join the textures of one person", _SECONDS)

    def refused(self, reason: str) -> None:
        """Count a request that was answered with an error."""
        self._refused.increment(step="merge", reason=reason)

    def compared(self, lowest: float) -> None:
        """Note how like the least like photograph is."""
        self._similarity.observe(lowest)

    def joined(self, photographs: int) -> None:
        """Note how many photographs became one identity."""
        self._photographs.observe(photographs)

    def textured(self, seconds: float) -> None:
        """Note how long a texture took."""
        self._seconds.observe(seconds)
