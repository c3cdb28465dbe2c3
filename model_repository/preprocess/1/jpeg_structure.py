"""The structure of a JPEG file (ITU-T T.81): segments before the first scan, the frame, and the number of scans."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

import exif
import numpy as np
from cost import Cost
from refusals import BadPicture, damaged, too_many_pixels, unsupported, unusual

# 32 MiB of profiles, XMP and thumbnails in segments of 64 KiB are 512; cameras write 10 to 30. Pillow reads each in
# Python (10 microseconds).
MAX_SEGMENTS = 2_000
# The standard lets any number of 0xFF stand before a marker, and decoders skip other bytes there too; encoders write
# none, pad to a few hundred bytes, or state a length that is wrong. Pillow reads them one by one.
MAX_FILL = 65_536
# The standard has four tables of at most 129 bytes each; encoders that repeat them before each scan stay far below.
MAX_QUANTISATION = 64 << 10
# Photoshop writes 20 to 60 resources, with a path for each selection up to a few hundred.
MAX_RESOURCES = 10_000
# EXIF has one segment of 64 KiB; a few programs write a second.
MAX_EXIF = 1 << 20
# libjpeg and cameras write 10, mozjpeg up to 14, and the finest script that is of use some 70: each of 63 coefficients
# by itself, and refinements.
MAX_SCANS = 200
# Up to so many, it does not matter whether the scans are all of the picture itself.
FEW_SCANS = 16
# Four components; a scan names each of them once.
MAX_COMPONENTS = 4
# Stereo cameras and telephones write 2 to 4 pictures.
MAX_PICTURES = 64
# Telephones' sensors have up to 200 megapixels (16,320 x 12,240). Such a picture is decoded at an eighth of its size,
# at 5 ns for each of its own pixels.
MAX_STATED_PIXELS = 16_384 * 16_384
# A JPEG may be decoded at 1/2, 1/4 or 1/8 (the DCT does it for nothing) as long as this much is left of its long
# side: 1600 takes in the 8 and 12 megapixel pictures of telephones (3264 / 2, 4032 / 2), which just miss 2048.
SMALLEST_SCALED_SIDE = 1600
# The same for a picture that is wanted at `structure.FINE_SIDE`: those of telephones up to 12 megapixels are whole.
SMALLEST_FINE_SIDE = 3200
# What may follow a picture without being cut off: the trailers that cameras and programs write.
KEPT_BEHIND = 64 << 10

_BASELINE, _PROGRESSIVE = (0xC0, 0xC1, 0xC9), (0xC2, 0xCA)
_ARITHMETIC = (0xC9, 0xCA)
_JPEG_LS = 0xF7
_FRAMES = frozenset((*range(0xC0, 0xD0), _JPEG_LS)) - {0xC4, 0xC8, 0xCC}
_WITHOUT_LENGTH = frozenset((0x01, *range(0xD0, 0xDA)))
_NAMES = {0xC3: "a lossless JPEG", 0xCB: "a lossless JPEG", _JPEG_LS: "a JPEG-LS picture"}
# A marker after any number of 0xFF; decoders skip what stands before it.
_MARKER = re.compile(rb"\xff[^\x00\xff]")


class _Frame(NamedTuple):
    marker: int
    precision: int
    height: int
    width: int
    components: int


def scan(data: bytes, smallest: int = SMALLEST_SCALED_SIDE) -> Cost:
    """Check a JPEG file's structure and estimate the cost of decoding it, reduced as far as `smallest` lets.

    Raises:
        BadPicture: beyond the limits above, a kind that libjpeg-turbo does not decode, or no frame before the data.
    """
    frame, start = _header(data)
    marker, precision, height, width, components = frame
    if marker not in _BASELINE + _PROGRESSIVE:
        raise unsupported(_NAMES.get(marker, "a hierarchical JPEG"))
    if precision != 8:
        raise unsupported(f"a JPEG of {precision} bits a sample")
    if width * height > MAX_STATED_PIXELS:
        raise too_many_pixels(width * height, MAX_STATED_PIXELS)
    if not 1 <= components <= MAX_COMPONENTS:
        raise damaged(f"{components} colour components")
    scans = _scans(data, start)
    if scans > MAX_SCANS:
        raise unusual(f"more than {MAX_SCANS} scans")
    return _cost(marker, (width, height), components, scans, len(data), reduction(width, height, smallest))


def _cost(marker: int, sides: tuple[int, int], components: int, scans: int, size: int, step: int) -> Cost:
    pixels, side, colours = sides[0] * sides[1], max(sides), components / 3
    decoded = -(-sides[0] // step) * -(-sides[1] // step)
    if marker in _PROGRESSIVE or scans > components:
        # A scan visits every block of its component, 20 ns each, even where it holds nothing.
        seconds = pixels * 10e-9 * max(1, colours) + size * 36e-9 + scans * components * pixels / 64 * 20e-9
        memory = pixels * 2 * components  # all coefficients, in 16 bits
    else:
        seconds, memory = pixels * 5e-9 * max(1, colours) + size * 8e-9, 0
    if marker in _ARITHMETIC:
        seconds *= 3
    # The long side of what is decoded is below twice `smallest` (from eight times it on more), 4 and 3 bytes a pixel.
    return Cost(decoded, side, seconds, memory + decoded * 8)


def reduction(width: int, height: int, smallest: int = SMALLEST_SCALED_SIDE) -> int:
    """Return what a picture's sides are divided by in decoding: 1, 2, 4 or 8, so that `smallest` is left of one."""
    return next((step for step in (8, 4, 2) if max(width, height) // step >= smallest), 1)


def has_end(data: bytes) -> bool:
    """Return whether an end marker follows the header of a file that `scan` has accepted."""
    return data.find(b"\xff\xd9", _header(data)[1]) >= 0


def reduction_of(data: bytes, smallest: int = SMALLEST_SCALED_SIDE) -> int:
    """Return the `reduction` of a file that `scan` has accepted."""
    frame = _header(data)[0]
    return reduction(frame.width, frame.height, smallest)


def without_film(data: bytes) -> bytes:
    """Cut the file at the end of its picture where more than a trailer follows, such as a motion photo's film."""
    if data.rfind(b"\xff\xd9", len(data) - KEPT_BEHIND) >= 0 and not _is_film(data):
        return data
    end = picture_end(data)
    return data[:end] if 0 < end < len(data) - KEPT_BEHIND else data


def _is_film(data: bytes) -> bool:
    """Return whether the file is long enough that its end may stand inside of a film."""
    return len(data) > 2 * KEPT_BEHIND and data.rfind(b"\xff\xd9", len(data) - 64) < 0


def picture_end(data: bytes) -> int:
    """Find the end of the first picture, behind its end marker; 0 where it has none, or no readable header."""
    try:
        end = _header(data)[1]
    except BadPicture:
        return 0
    for seen, position in enumerate(_markers(data, end)):
        if position < end:
            continue
        if data[position + 1] == 0xD9:
            return position + 2
        if position + 4 > len(data) or seen > MAX_SEGMENTS:
            return 0
        end = position + 2 + struct.unpack_from(">H", data, position + 2)[0]
    return 0


def _header(data: bytes) -> tuple[_Frame, int]:
    """Read the frame, and where the first scan starts."""
    frame: _Frame | None = None
    tables, metadata, start = 0, bytearray(), len(data)
    for marker, body, at in _segments(data):
        start = at
        if marker in _FRAMES:
            frame = _frame(marker, body, frame)
        elif marker == 0xDE:
            raise unsupported("a hierarchical JPEG")
        elif marker == 0xDB:
            tables += len(body)
        elif marker == 0xE1 and body.startswith(b"Exif\0\0"):
            metadata += body[6:]
        elif marker == 0xE2 and body.startswith(b"MPF\0"):
            _check_pictures(body[4:])
    if frame is None:
        raise damaged("it has no frame before its data")
    if tables > MAX_QUANTISATION:
        raise unusual("too many quantisation tables")
    if data.count(b"8BIM", 0, start) > MAX_RESOURCES:
        raise unusual(f"more than {MAX_RESOURCES} Photoshop resources")
    if len(metadata) > MAX_EXIF:
        raise unusual(f"more than {MAX_EXIF >> 20} MiB of EXIF")
    exif.check(bytes(metadata))
    return frame, start


def _frame(marker: int, body: bytes, before: _Frame | None) -> _Frame:
    if before is not None:
        raise damaged("it has two frames")
    if len(body) < 6:
        raise damaged("its frame is too short")
    return _Frame(marker, *struct.unpack_from(">BHHB", body))


def _segments(data: bytes) -> Iterator[tuple[int, bytes, int]]:
    """Yield the segments up to the first scan, which is the last of them: marker, content, and where it starts."""
    position, segments, fill, marker = 2, 0, 0, 0
    while marker != 0xDA:
        found = _MARKER.search(data, position, position + MAX_FILL + 2)
        if found is None and position + MAX_FILL + 2 >= len(data):
            raise damaged("its header ends early")
        at = position + MAX_FILL + 1 if found is None else found.start()
        segments, fill = segments + 1, fill + at - position
        if segments > MAX_SEGMENTS:
            raise unusual(f"more than {MAX_SEGMENTS} segments")
        if fill > MAX_FILL:
            raise unusual("its header is mostly filling")
        if at + 4 > len(data):
            raise damaged("its header ends early")
        marker, length = struct.unpack_from(">BH", data, at + 1)
        yield marker, data[at + 4 : at + 2 + length], at
        position = at + 2 if marker in _WITHOUT_LENGTH else at + 2 + length


def _check_pictures(block: bytes) -> None:
    """Refuse a multi-picture index of more pictures than any device writes; its directory is like EXIF's."""
    exif.check(block)
    order = {b"II": "<", b"MM": ">"}.get(block[:2])
    if order is None or len(block) < 8:
        return
    for tag, _, _, value in exif.entries(block, order, struct.unpack_from(order + "I", block, 4)[0]):
        if tag == 0xB001 and value > MAX_PICTURES:
            raise unusual(f"more than {MAX_PICTURES} pictures in one file")


def _scans(data: bytes, start: int) -> int:
    """Yield the scans of the first picture, from where its first one starts; at most one more than are allowed.

    Every two bytes that look like the start of a scan are counted first, those of thumbnails and films behind the
    picture among them, as that is quick and seldom too many.
    """
    seeming = data.count(b"\xff\xda", start)
    if seeming <= FEW_SCANS:
        return seeming
    found, end, seen = 0, start, 0
    for position in _markers(data, start):
        if position < end:
            continue  # inside of a segment
        seen += 1
        marker = data[position + 1]
        found += marker == 0xDA
        if marker == 0xD9 or found > MAX_SCANS or position + 4 > len(data):
            break
        if seen > MAX_SEGMENTS:
            raise unusual(f"more than {MAX_SEGMENTS} segments between its scans")
        end = position + 2 + struct.unpack_from(">H", data, position + 2)[0]
    return found


def _markers(data: bytes, start: int) -> Iterator[int]:
    """Yield where 0xFF and a byte follow that is no stuffed zero, restart or more fill, from ``start`` on."""
    step = 1 << 20  # what stands behind the first picture is not looked at
    for low in range(start, len(data) - 1, step):
        block = np.frombuffer(data, np.uint8, min(step + 1, len(data) - low), low)
        at = np.flatnonzero(block[:-1] == 0xFF)
        following = block[at + 1]
        at = at[(following != 0) & (following != 0xFF) & ((following < 0xD0) | (following > 0xD7))]
        yield from (at + low).tolist()
