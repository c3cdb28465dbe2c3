"""Frames of a video file, read by OpenCV: an extra (``pip install face3d-client[video]``)."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from face3d_client._errors import BadImage, ImageTooLarge

__all__ = ["Video", "open_video"]

MAX_SECONDS: Final = 120.0
"""Length of a clip: 3,600 frames at 30 a second, some minutes of two cores."""
MAX_SIDE: Final = 4096
"""Pixels of a frame's longer side: DCI 4K."""
_SENT_SIDE: Final = 1280  # of a frame as it is sent: a head that fills a third of it has the 512 pixels of its crop
_QUALITY: Final = 92  # of the JPEG


@dataclass(frozen=True, eq=False)
class Video:
    """A video that is being read.

    Attributes:
        rate: frames a second that are given out.
    """

    rate: float
    _capture: Any
    _cv2: Any
    _every: int
    _most: int

    def frames(self) -> Iterator[bytes]:
        """Yield every frame that is wanted as a JPEG file.

        Raises:
            ImageTooLarge: the video is longer than was allowed.
        """
        for number in range(self._most * self._every + 1):
            if not self._capture.grab():
                return
            if number % self._every:
                continue
            if number >= self._most * self._every:
                break
            found, picture = self._capture.retrieve()
            if found:
                yield self._jpeg(picture)
        raise ImageTooLarge("the clip is longer than is read: cut it, or allow more seconds or fewer frames.")

    def _jpeg(self, picture: NDArray[np.uint8]) -> bytes:
        scale = _SENT_SIDE / max(picture.shape[:2])
        if scale < 1:
            size = (round(picture.shape[1] * scale), round(picture.shape[0] * scale))
            picture = self._cv2.resize(picture, size, interpolation=self._cv2.INTER_AREA)
        _, data = self._cv2.imencode(".jpg", picture, [self._cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
        return bytes(data)


@contextmanager
def open_video(path: str | os.PathLike[str], every: int = 1, seconds: float = MAX_SECONDS) -> Iterator[Video]:
    """Open a video file.

    Only files of this machine: a name that is none is refused, since OpenCV would take it for an address or a pattern.

    Args:
        path: of the file.
        every: give out every n-th frame.
        seconds: the longest clip that is read.

    Raises:
        BadImage: not a video that OpenCV reads.
        ImageTooLarge: larger frames than `MAX_SIDE`.
        ModuleNotFoundError: OpenCV is not installed.
        OSError: the file is not there.
    """
    cv2: Any = importlib.import_module("cv2")
    file = Path(path).resolve(strict=True)
    if not file.is_file():
        raise BadImage(f"{path} is no file. Give a video file.")
    capture = cv2.VideoCapture(str(file), cv2.CAP_FFMPEG)
    try:
        rate, width, height = (
            float(capture.get(what)) for what in (cv2.CAP_PROP_FPS, cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
        )
        if not capture.isOpened() or not 1 <= rate <= 1000 or width < 1:
            raise BadImage(f"{path} is no video that can be read here. Give an MP4, MOV, WebM or AVI file.")
        if max(width, height) > MAX_SIDE:
            raise ImageTooLarge(f"{path} has frames of {width:.0f} x {height:.0f} pixels: at most {MAX_SIDE} a side.")
        yield Video(rate / every, capture, cv2, every, int(seconds * rate / every) + 1)
    finally:
        capture.release()
