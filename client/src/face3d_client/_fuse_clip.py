"""One person's face on every frame of a clip."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image

from face3d_client._clips import Frame, open_clip, write_clip
from face3d_client._detection import DetectedFace
from face3d_client._errors import BadFace, ConsentRequired, NoFace, NoSuchFace, RequestError
from face3d_client._ordered import ordered_map

__all__ = ["MAX_FRAMES", "ClipResult", "Tracker", "fuse_frames"]

MAX_FRAMES: Final = 1500
"""Frames of a clip that are fused by default: a minute. What follows is left out, and said so."""
_QUALITY: Final = 95  # of the JPEG that a frame travels as


@dataclass(frozen=True)
class ClipResult:
    """What became of a clip.

    Attributes:
        path: the file.
        frames: how many it has.
        fused: on how many of them the face was put; the others are as they were.
        complete: whether it has all frames of the clip.
    """

    path: Path
    frames: int
    fused: int
    complete: bool


class Tracker:
    """Finds one person's face in frame after frame, by where it was.

    Args:
        first: which face of the first frame that has one, by its number in the order of score. None: the largest.
    """

    def __init__(self, first: int | None = None) -> None:
        self._first = first
        self._last: DetectedFace | None = None

    def choose(self, faces: Sequence[DetectedFace]) -> int | None:
        """Choose a face of the next frame: its number, or None where the person is not there.

        A face is the same person's where its middle is within one box of where it was last seen.

        Raises:
            NoFace: the first frame with a face has none of that number.
        """
        if not faces:
            return None
        if self._last is None:
            if self._first is None:
                found = max(faces, key=lambda face: face.size)
            elif self._first < len(faces):
                found = faces[self._first]
            else:
                raise NoFace(f"the first frame with a face has {len(faces)}, and none of number {self._first}.")
        else:
            last = self._last
            found = min(faces, key=lambda face: _distance(face, last))
            if _distance(found, last) > last.size:
                return None
        self._last = found
        return found.index


def _distance(one: DetectedFace, other: DetectedFace) -> float:
    """Return the distance of the boxes' middles in pixels."""
    middles = [(face.box[:2] + face.box[2:]) / 2 for face in (one, other)]
    return float(np.linalg.norm(middles[0] - middles[1]))


def fuse_frames(
    detect: Callable[[bytes], Sequence[DetectedFace]],
    fuse: Callable[[bytes, int], Image.Image],
    clip: Path,
    out: Path,
    *,
    target_face: int | None,
    concurrency: int,
    max_frames: int,
    on_frame: Callable[[int], Any] | None,
) -> ClipResult:
    """Read a clip, fuse the frames that show the person, and write the result; a few frames are in memory at a time.

    Args:
        detect: finds the faces of a frame's file.
        fuse: puts the face on the face of this number in a frame's file.
        clip, out: files, see `Face3DClient.fuse_clip`, as the further arguments.

    Raises:
        RequestError: the one of a frame, where not one could be fused.
    """
    tracker, fused, complete = Tracker(target_face), 0, True
    refusal: RequestError | None = None

    def asked(frames: Iterator[Frame]) -> Iterator[tuple[Frame, bytes, int | None]]:
        for frame in frames:
            data = _file(frame)
            yield frame, data, tracker.choose(detect(data))

    def one(asked: tuple[Frame, bytes, int | None]) -> tuple[Frame, bool]:
        nonlocal refusal
        frame, data, face = asked
        if face is None:
            return frame, False
        try:
            return np.asarray(fuse(data, face)), True
        except (NoFace, BadFace, NoSuchFace) as error:  # of this frame, unless it is so of every one
            refusal = error
            return frame, False

    def done(frames: Iterator[Frame]) -> Iterator[Frame]:
        nonlocal fused, complete
        for number, (frame, new) in enumerate(ordered_map(one, asked(islice(frames, max_frames)), concurrency), 1):
            fused += new
            if on_frame is not None:
                on_frame(number)
            yield frame
        if refusal is not None and not fused:
            raise refusal
        complete = next(frames, None) is None

    with open_clip(clip) as opened:
        count = write_clip(out, opened.rate, done(opened.frames))
    return ClipResult(out, count, fused, complete)


def _file(frame: Frame) -> bytes:
    out = io.BytesIO()
    Image.fromarray(frame).save(out, "JPEG", quality=_QUALITY, subsampling=0)
    return out.getvalue()


def check_statement(consent: str) -> None:
    """Refuse a clip without a consent statement before its first frame is read.

    Raises:
        ConsentRequired: it is empty.
    """
    if not consent.strip():
        raise ConsentRequired("a fused clip needs a consent statement: say who agreed to it, and to what.")
