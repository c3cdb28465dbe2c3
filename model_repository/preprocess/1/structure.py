"""What a picture file is made of and what decoding it will cost, read from its bytes before any decoder sees them.

Decoders trust counts that a file states: a hundred bytes can ask for minutes of work. So the structure of each format
is checked here, by scanners that do a bounded amount of work themselves, and the processor time and memory that
decoding takes are estimated. The estimates are for a core that decodes a baseline JPEG in 5 ms per megapixel; the
factors beside them were measured with Pillow 12.3 and OpenCV 4.11 on photographs with sensor noise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

import bmff_structure
import bmp_structure
import jpeg_structure
import line_ends
import png_structure
import tiff_structure
import webp_structure
from cost import Cost
from refusals import SEND, BadPicture, too_many_pixels, too_much_memory, too_slow

# Four times what the most expensive picture that people send takes: 65 megapixels as an interlaced PNG with alpha in
# 16 bits or as a progressive JPEG without subsampling at quality 98 are 2 to 3 s.
MAX_SECONDS = 10.0
# As long as clients wait for an answer.
MAX_WALL_SECONDS = 120.0
# What a JPEG can have. Decoders spend time and memory on each row, however short it is.
MAX_SIDE = 65_535
# 65 megapixels at the four bytes a pixel that Pillow uses (260 MB), their copy as RGB (195 MB), half of it while it is
# scaled (49 MB), and the coefficients of a progressive JPEG instead of these: 390 MB without subsampling, 520 MB for
# four inks. What is left is for unpacked strips of a TIFF.
MAX_MEMORY = 768 << 20
# Long side of the pictures that are handed on: what the detector and the crops of a face of a quarter of it need, and
# what a texture that is larger than the usual one is taken from, which has at most so many pixels (4096 x 3072).
WORKING_SIDE, FINE_SIDE, FINE_PIXELS = 2048, 4096, 12 << 20
# Of a whole picture: one of a 12-megapixel telephone, with some room.
WHOLE_PIXELS = 16_000_000

_SCANNERS: tuple[tuple[bytes, Callable[[bytes], Cost]], ...] = (
    (b"\xff\xd8\xff", jpeg_structure.scan),
    (b"\x89PNG\r\n\x1a\n", png_structure.scan),
    (b"RIFF", webp_structure.scan),
    (b"BM", bmp_structure.scan),
    (b"II", tiff_structure.scan),
    (b"MM", tiff_structure.scan),
)


class Size(IntEnum):
    """How large a picture is handed on: at WORKING_SIDE, at FINE_SIDE, or as it is."""

    WORKING = 0
    FINE = 1
    WHOLE = 2


@dataclass(frozen=True)
class Limits:
    """What is refused whatever it costs, and how large a picture is handed on.

    Attributes:
        max_bytes: of the file.
        max_pixels: of the picture.
        size: of what is handed on.
    """

    max_bytes: int = 32 << 20
    max_pixels: int = 65_000_000
    size: Size = Size.WORKING

    @property
    def smallest_scaled_side(self) -> int:
        """What has to be left of a JPEG's long side where it is reduced while it is decoded."""
        if self.size is Size.WHOLE:
            return MAX_SIDE
        return jpeg_structure.SMALLEST_FINE_SIDE if self.size is Size.FINE else jpeg_structure.SMALLEST_SCALED_SIDE

    def side_for(self, width: int, height: int) -> int:
        """The long side at most of a picture of these sides when it is handed on."""
        if self.size is Size.WHOLE:
            return max(width, height)
        if self.size is Size.WORKING:
            return WORKING_SIDE
        return min(FINE_SIDE, int((FINE_PIXELS * max(width, height) / min(width, height)) ** 0.5))


def inspect(data: bytes, limits: Limits) -> Cost:
    """Check the size and the structure of a picture file and estimate what decoding it takes.

    A file that no scanner knows costs nothing: the decoders refuse it by its first bytes.

    Raises:
        BadPicture: empty, a damaged structure, or one beyond a limit of its format (``BadImage``); too many bytes or
            pixels (``ImageTooLarge``); more than MAX_SECONDS or MAX_MEMORY (``BadImage``).
    """
    if not data:
        raise BadPicture("BadImage", f"the picture is empty (0 bytes): {SEND}.")
    if len(data) > limits.max_bytes:
        raise BadPicture(
            "ImageTooLarge",
            f"the file has {len(data) / 2**20:.1f} MiB and the limit is {limits.max_bytes / 2**20:g} MiB: "
            "send a smaller or more compressed picture.",
        )
    scan = _scanner(data)
    if scan is None:
        return Cost(0, 0, 0.0, 0)
    try:
        cost = jpeg_structure.scan(data, limits.smallest_scaled_side) if scan is jpeg_structure.scan else scan(data)
    except BadPicture:
        if scan is jpeg_structure.scan and (refusal := line_ends.translated(data)) is not None:
            raise refusal from None
        raise
    if cost.pixels > limits.max_pixels:
        raise too_many_pixels(cost.pixels, limits.max_pixels)
    if cost.side > MAX_SIDE:
        raise BadPicture(
            "ImageTooLarge",
            f"the picture has a side of {cost.side} pixels and the limit is {MAX_SIDE}: cut it, or scale it down.",
        )
    if cost.seconds > MAX_SECONDS:
        raise too_slow()
    if cost.memory > MAX_MEMORY:
        raise too_much_memory()
    return cost


def _scanner(data: bytes) -> Callable[[bytes], Cost] | None:
    if data[4:8] == b"ftyp":
        return bmff_structure.scan
    return next((scan for magic, scan in _SCANNERS if data.startswith(magic)), None)


def without_film(data: bytes) -> bytes:
    """Cut off the film that motion photos carry behind their picture, which nothing here reads."""
    if data.startswith(b"\xff\xd8\xff"):
        return jpeg_structure.without_film(data)
    if bmff_structure.brand(data) is not None:
        return data[: bmff_structure.picture_end(data)]
    return data


@dataclass(frozen=True)
class Budget:
    """What a decoder may use for one picture: processor time and wall time in seconds."""

    cpu: float
    wall: float


def budget(cost: Cost) -> Budget:
    """Return the limits for decoding a picture of an estimated cost.

    Six times the estimate, as processors differ by two to three and a file may be unusual, and half a second for what
    the estimate leaves out (colour profiles, the first use of a decoder). Wall time is generous: on a busy server a
    large picture, at its low priority, gets a tenth of a core. It is there for a worker that does nothing at all.
    """
    cpu = 0.5 + 6 * cost.seconds
    return Budget(cpu, min(MAX_WALL_SECONDS, 20.0 + 10 * cpu))
