"""Clips: films and animated pictures, frame by frame, in and out.

Films are read and written by OpenCV, which is an extra (``pip install face3d-client[clips]``) and carries no types, so
it is imported by name; animated pictures by Pillow. Both decode in this process: they are for clips of your own.
"""

from __future__ import annotations

import importlib
import struct
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageSequence, UnidentifiedImageError

from face3d_client._errors import BadImage, ImageTooLarge
from face3d_client._images import MAX_PIXELS

__all__ = ["CLIP_RESULTS", "CLIP_SUFFIXES", "Clip", "is_clip", "open_clip", "write_clip"]

Frame = NDArray[np.uint8]
"""uint8 (H, W, 3), RGB."""

CLIP_SUFFIXES: Final = (".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm")
CLIP_RESULTS: Final = (".mp4", ".mov", ".webp")
"""Files that `write_clip` makes: both kinds carry XMP, which says how the clip was made."""

_ANIMATED: Final = ("GIF", "WEBP", "PNG")
_FALLBACK_RATE: Final = 25.0  # of a film that does not say
# The identifier of XMP in a file of boxes: the XMP specification, part 3, on MPEG-4.
_XMP_BOX: Final = uuid.UUID("be7acfcb-97a9-42e8-9c71-999491e3afac").bytes
_XMP: Final = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"'
    ' Iptc4xmpExt:DigitalSourceType="http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"/>'
    '</rdf:RDF></x:xmpmeta><?xpacket end="r"?>'
).encode()


@dataclass(frozen=True)
class Clip:
    """A clip that is open.

    Attributes:
        rate: frames a second.
        frames: gives each frame once, in order.
    """

    rate: float
    frames: Iterator[Frame]


def is_clip(path: Path) -> bool:
    """Tell whether a file is a film by its name, or a picture with more than one frame."""
    if path.suffix.lower() in CLIP_SUFFIXES:
        return True
    if path.suffix.lower() not in (".gif", ".webp", ".png", ".apng"):
        return False
    try:
        with Image.open(path, formats=_ANIMATED) as opened:
            return bool(getattr(opened, "is_animated", False))
    except (OSError, SyntaxError, ValueError):
        return False


@contextmanager
def open_clip(path: Path) -> Iterator[Clip]:
    """Open a clip.

    Raises:
        BadImage: it cannot be read as a clip.
        ImageTooLarge: its frames have more pixels than the service takes.
        ModuleNotFoundError: a film, and OpenCV is not installed.
        OSError: the file cannot be read.
    """
    with path.open("rb"):  # the reason in the system's words, and no address in place of a file
        pass
    if path.suffix.lower() in CLIP_SUFFIXES:
        yield from _film(path)
    else:
        yield from _animated_picture(path)


def _film(path: Path) -> Iterator[Clip]:
    cv2 = _opencv()
    film = cv2.VideoCapture(str(path.resolve()), cv2.CAP_FFMPEG)
    try:
        if not film.isOpened():
            raise BadImage(f"{path} cannot be read as a film. Convert it to MP4 (H.264).")
        _check_size(path, int(film.get(cv2.CAP_PROP_FRAME_WIDTH)), int(film.get(cv2.CAP_PROP_FRAME_HEIGHT)))
        rate = float(film.get(cv2.CAP_PROP_FPS))

        def frames() -> Iterator[Frame]:
            while True:
                there, frame = film.read()
                if not there:
                    return
                yield np.ascontiguousarray(frame[:, :, ::-1])

        yield Clip(rate if 0 < rate < 1000 else _FALLBACK_RATE, frames())
    finally:
        film.release()


def _animated_picture(path: Path) -> Iterator[Clip]:
    try:
        opened = Image.open(path, formats=_ANIMATED)
    except (UnidentifiedImageError, SyntaxError, ValueError) as error:
        raise BadImage(f"{path} cannot be read as a clip: {error}.") from error
    with opened:
        _check_size(path, *opened.size)
        opened.load()  # WebP tells a frame's time only then
        milliseconds = float(opened.info.get("duration", 0)) or 1000 / _FALLBACK_RATE
        yield Clip(1000 / milliseconds, (np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(opened)))


def write_clip(path: Path, rate: float, frames: Iterator[Frame]) -> int:
    """Write frames as a clip that appears whole or not at all; returns their number.

    Args:
        path: its suffix is one of `CLIP_RESULTS`.
        rate: frames a second.
        frames: all of one size.

    Raises:
        ValueError: another suffix.
        BadImage: there is no frame, or it cannot be written.
    """
    write = _WRITERS.get(path.suffix.lower())
    if write is None:
        raise ValueError(f"{path}: a clip is written as {', '.join(CLIP_RESULTS)}.")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".face3d-{uuid.uuid4().hex}{path.suffix.lower()}")
    try:
        count = write(temporary, rate, frames)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return count


def _write_film(path: Path, rate: float, frames: Iterator[Frame]) -> int:
    cv2, film, count = _opencv(), None, 0
    try:
        for frame in frames:
            if film is None:
                film = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), rate, frame.shape[1::-1])
                if not film.isOpened():
                    raise BadImage(f"a film of {frame.shape[1]} x {frame.shape[0]} pixels cannot be written.")
            film.write(np.ascontiguousarray(frame[:, :, ::-1]))
            count += 1
    finally:
        if film is not None:
            film.release()
    if not count:
        raise BadImage("the clip has no frame.")
    body = b"uuid" + _XMP_BOX + _XMP
    with path.open("ab") as file:
        file.write(struct.pack(">I", 4 + len(body)) + body)
    return count


def _write_webp(path: Path, rate: float, frames: Iterator[Frame]) -> int:
    count = 0

    def pictures() -> Iterator[Image.Image]:
        nonlocal count
        for frame in frames:
            count += 1
            yield Image.fromarray(frame)

    rest = pictures()
    first = next(rest, None)
    if first is None:
        raise BadImage("the clip has no frame.")
    first.save(
        path, "WEBP", save_all=True, append_images=rest, duration=round(1000 / rate), loop=0, quality=85, xmp=_XMP
    )
    return count


_WRITERS: Final[dict[str, Callable[[Path, float, Iterator[Frame]], int]]] = {
    ".mp4": _write_film,
    ".mov": _write_film,
    ".webp": _write_webp,
}


def _opencv() -> Any:
    try:
        return importlib.import_module("cv2")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("films need OpenCV: pip install 'face3d-client[clips]'.") from error


def _check_size(path: Path, width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise ImageTooLarge(f"the frames of {path} have {width} x {height} pixels; at most 65 megapixels are read.")
