"""The frames of a clip as they are sent, and those of them that a head is made of."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from typing import Final, TypeVar

import numpy as np

from face3d_client._errors import BadOption, NoFace
from face3d_client._person import Person
from face3d_client._protocol.calls import Call, Place
from face3d_client._protocol.codec import build_frame
from face3d_client._protocol.options import PersonOptions
from face3d_client._tracking import Clip, TrackedFrame

__all__ = ["FrameCalls", "KeyFrames", "head_options", "in_threads"]

T = TypeVar("T")

# Degrees of yaw that a key frame stands for: one a step, so that the sides are seen as well as the front.
_STEP: Final = 15.0
_MOST: Final = 6  # key frames: beyond 45 degrees to a side a frame adds little
_RECENT: Final = 3  # pictures that are kept until their answer is there: one is read ahead


class FrameCalls:
    """The calls of one clip, a frame ahead of what is sent, so that the last one is known as such.

    Attributes:
        begun: whether the server has taken a frame; until then each is sent as the first one.
    """

    def __init__(self, rate: float, smoothing: float, score_threshold: float | None = None) -> None:
        """Choose the clip's number; the arguments are those of `Face3DClient.track`.

        Raises:
            BadOption: a rate or smoothing that the server does not take.
        """
        if not 1 <= rate <= 240 or not 0 <= smoothing <= 2:
            raise BadOption(f"frame_rate={rate!r}, smoothing={smoothing!r}: 1 to 240 and 0 to 2 are needed.")
        self.begun = False
        self._rate, self._smoothing, self._threshold = rate, smoothing, score_threshold
        self._clip = secrets.randbelow(2**63 - 1) + 1  # found by nobody else

    def of(self, images: Iterable[bytes]) -> Iterator[tuple[int, Call]]:
        """Yield the index and the call of each frame."""
        held: bytes | None = None
        index = 0
        for image in images:
            if held is not None:
                yield index, self._call(held, last=False)
                index += 1
            held = image
        if held is not None:
            yield index, self._call(held, last=True)

    async def of_async(self, images: AsyncIterable[bytes]) -> AsyncIterator[tuple[int, Call]]:
        """Yield the index and the call of each frame."""
        held: bytes | None = None
        index = 0
        async for image in images:
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
    """The frames of a clip, and the pictures that identity and texture are made of: the best of each step of yaw.

    Attributes:
        frames: those in which the face was found.
        missed: how many others there were.
    """

    def __init__(self) -> None:
        self.frames: list[TrackedFrame] = []
        self.missed = 0
        self._recent: dict[int, bytes] = {}
        self._best: dict[int, tuple[TrackedFrame, bytes]] = {}

    def through(self, pictures: Iterable[bytes]) -> Iterator[bytes]:
        """Yield the pictures of a clip, remembering each until its result is there."""
        for index, picture in enumerate(pictures):
            self._recent[index] = picture
            self._recent.pop(index - _RECENT, None)
            yield picture

    def offer(self, frame: TrackedFrame | None) -> None:
        """Take the next frame's result, and keep its picture where it is the best of its step so far."""
        if frame is None:
            self.missed += 1
            return
        self.frames.append(frame)
        step = round(float(np.degrees(frame.coefficients.angles[1])) / _STEP)
        if step not in self._best or _worth(frame) > _worth(self._best[step][0]):
            self._best[step] = frame, self._recent[frame.index]

    def pictures(self, path: str | os.PathLike[str]) -> list[bytes]:
        """Return the best pictures, frontal ones first.

        Args:
            path: of the clip, for the sentence of the error.

        Raises:
            NoFace: in no frame.
        """
        if not self.frames:
            raise NoFace(f"no frame of {path} shows a face. Give a video in which somebody looks into the camera.")
        return [self._best[step][1] for step in sorted(self._best, key=abs)[:_MOST]]

    def clip(self, person: Person) -> Clip:
        """Make the clip of the person whom the pictures show."""
        return Clip(person, tuple(self.frames), self.missed)


def head_options(options: PersonOptions) -> PersonOptions:
    """Copy options, for a head that can be animated."""
    return {**options, "rig": "arkit", "mesh": "head", "pose": "canonical"}


async def in_threads(items: Iterator[T]) -> AsyncIterator[T]:
    """Take each item in a thread, so that a slow one does not hold up the loop.

    Whoever is cancelled waits for the item that is being taken: what it is read from can be closed then.
    """
    end = object()
    while True:
        taking = asyncio.ensure_future(asyncio.to_thread(next, items, end))
        try:
            item = await asyncio.shield(taking)
        except asyncio.CancelledError:
            await asyncio.wait([taking])
            raise
        if item is end:
            return
        yield item  # type: ignore[misc]  # one of `items`, as it is not the end


def _worth(frame: TrackedFrame) -> float:
    """How well a frame shows a face at rest, 0..1."""
    quality = frame.quality
    return quality.size * quality.sharpness * quality.cover * (1 - 0.5 * float(frame.blendshapes.max()))
