"""What `align` tells Prometheus."""

from __future__ import annotations

from collections.abc import Iterable

from series import Counter, Histogram

_FACES = [0, 1, 2, 4, 8, 16, 32, 64]
# From what is barely found to a face that fills a large picture; warnings begin below 100.
_PIXELS = [32, 64, 100, 150, 224, 350, 512, 800, 1200, 2000]
# Warnings begin at 30.
_DEGREES = [5, 10, 15, 20, 30, 45, 60, 90]


class Meters:
    """Counters and histograms of this process."""

    def __init__(self) -> None:
        self._refused = Counter("face3d_refused_total", "Requests refused, by the step and the name of the error")
        self._warned = Counter("face3d_warnings_total", "Faces that were used although something is doubtful, by what")
        self._found = Histogram(
            "face3d_faces_per_picture", "Faces found in a picture with a score from the threshold on", _FACES
        )
        self._pixels = Histogram(
            "face3d_face_pixels", "Shorter side of the box of the face that was used, in source pixels", _PIXELS
        )
        self._yaw = Histogram(
            "face3d_face_yaw_degrees", "Turn to the side of the face that was used, either way", _DEGREES
        )

    def refused(self, reason: str) -> None:
        """Count a request that was answered with an error."""
        self._refused.increment(step="align", reason=reason)

    def found(self, faces: int) -> None:
        """Note how many faces a picture has."""
        self._found.observe(faces)

    def aligned(self, pixels: float, yaw: float, kinds: Iterable[str]) -> None:
        """Note a face that was cut out, and the kinds of doubt about it."""
        self._pixels.observe(pixels)
        self._yaw.observe(abs(yaw))
        for kind in kinds:
            self._warned.increment(kind=kind)
