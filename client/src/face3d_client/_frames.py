"""The frames of a clip as they are sent, and those of them that a head is made of."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np

from face3d_client._errors import BadOption
from face3d_client._protocol.calls import Call, Place
from face3d_client._protocol.codec import build_frame
from face3d_client._tracking import TrackedFrame

__all__ = ["FrameCalls", "KeyFrames"]

# Degrees of yaw that a key frame stands for: one a step, so that the sides are seen as well as the front.
_STEP: Final = 15.0
_MOST: Final = 6  # key frames: beyond 45 degrees to a side a frame adds little
_RECENT: Final = 3  # pictures that are kept until their answer is there: one is read ahead


class FrameCalls:
    """The calls of one clip, a frame ahead of what is sent, so that the last one is known as such.

    Attributes:
        begun: whether the server has taken a frame; until then each is sent as the first one.
    """

    def __init__(
        self, images: Iterable[bytes], rate: float, smoothing: float, score_threshold: float | None = None
    ) -> None:
        """Choose the clip's number; the arguments are those of `Face3DClient.track`.

        Raises:
            BadOption: a rate or smoothing that the server does not take.
        """
        if not 1 <= rate <= 240 or not 0 <= smoothing <= 2:
            raise BadOption(f"frame_rate={rate!r}, smoothing={smoothing!r}: 1 to 240 and 0 to 2 are needed.")
        self.begun = False
        self._images, self._rate, self._smoothing, self._threshold = images, rate, smoothing, score_threshold
        self._clip = secrets.randbelow(2**63 - 1) + 1  # found by nobody else

    def __iter__(self) -> Iterator[tuple[int, Call]]:
        """Yield the index and the call of each frame."""
        held: bytes | None = None
        index = 0
        for image in self._images:
            if held is not None:
                yield index, self._call(held, last=False)
                index += 1
            held = image
        if held is not None:
            yield index, self._call(held, last=True)

    def _call(self, image: bytes, last: bool) -> Call:
        place = Place(self._clip, not self.begun, last)
        return build_frame(image, place, self._rate, self._smoothing, self._threshold)


class KeyFrames:
    """The pictures that identity and texture are made of: the best frame of each step of yaw."""

    def __init__(self) -> None:
        self._recent: dict[int, bytes] = {}
        self._best: dict[int, tuple[TrackedFrame, bytes]] = {}

    def through(self, pictures: Iterable[bytes]) -> Iterator[bytes]:
        """Yield the pictures of a clip, remembering each until its result is there."""
        for index, picture in enumerate(pictures):
            self._recent[index] = picture
            self._recent.pop(index - _RECENT, None)
            yield picture

    def offer(self, frame: TrackedFrame) -> None:
        """Keep a frame's picture where it is the best of its step so far."""
        step = round(float(np.degrees(frame.coefficients.angles[1])) / _STEP)
        if step not in self._best or _worth(frame) > _worth(self._best[step][0]):
            self._best[step] = frame, self._recent[frame.index]

    def pictures(self) -> list[bytes]:
        """Return the best pictures, frontal ones first."""
        return [self._best[step][1] for step in sorted(self._best, key=abs)[:_MOST]]


def _worth(frame: TrackedFrame) -> float:
    """How well a frame shows a face at rest, 0..1."""
    quality = frame.quality
    return quality.size * quality.sharpness * quality.cover * (1 - 0.5 * float(frame.blendshapes.max()))
