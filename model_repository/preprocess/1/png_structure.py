"""The structure of a PNG file (W3C PNG, third edition): its chunks, their sizes, and the pixels of its header."""

from __future__ import annotations

import struct

import exif
from cost import Cost
from refusals import damaged, unusual

# 32 MiB of data in the 8 KiB of libpng's writer are 4,096; encoders that write a chunk for each row make as many as a
# picture has rows, at most some 10,000. Pillow reads each in Python (10 microseconds).
MAX_CHUNKS = 20_000
# Text, time, physical size and the like: programs write 1 to 30; Pillow unpacks up to 1 MiB of each text.
MAX_TEXTS = 500
# Each compressed text may become 1 MiB (Pillow's limit of one); together a few thumbnails and profiles.
MAX_TEXT_BYTES = 8 << 20
# To unpack 1 MiB of text and make a string of it.
TEXT_SECONDS = 5e-3
MAX_PROFILE_BYTES = 4 << 20

_TEXTS = frozenset((b"tEXt", b"zTXt", b"iTXt"))
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
# What must stand in a file at most once.
_SINGLE = frozenset((b"IHDR", b"PLTE", b"iCCP", b"eXIf", b"acTL", b"IEND"))


def scan(data: bytes) -> Cost:
    """Check a PNG file's structure and estimate the cost of decoding it.

    Raises:
        BadPicture: beyond the limits above, or a structure that the format forbids.
    """
    if len(data) < 33 or data[12:16] != b"IHDR":
        raise damaged("its header is missing")
    width, height, depth, colour, _, _, interlaced = struct.unpack_from(">IIBBBBB", data, 16)
    if depth not in _DEPTHS.get(colour, ()):
        raise damaged(f"colour type {colour} with {depth} bits")
    packed = _check_chunks(data)
    pixels = width * height
    raw = pixels * _SAMPLES[colour] * depth / 8 + height
    # 10 ns a byte to unpack and to undo the filters, half as much again for the seven passes; 5 ns a pixel to convert.
    seconds = raw * 10e-9 * (1.5 if interlaced else 1) + pixels * 5e-9 + packed * TEXT_SECONDS
    grey16 = colour == 0 and depth == 16
    # Pillow holds grey in 1 byte (16-bit: 2), everything else in 4; then the copy as RGB.
    held = 2 if grey16 else 1 if colour in (0, 3) else 4
    return Cost(pixels, max(width, height), seconds, pixels * (held + (1 if grey16 else 4)))


def pixels_alone(data: bytes) -> bytes | None:
    """Return the file without all chunks but header and pixels, where these are all that decides its samples.

    Returns:
        A PNG of 8-bit RGB; None for other samples, for transparency and animations, for a file without an end, and
        where something stands behind the pixels, which is read after them.
    """
    if data[24:26] != b"\x08\x02":  # depth and colour type, of the header
        return None
    kept, position, last = [data[:33]], 33, b""
    while position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        if kind == b"IEND":
            return b"".join([*kept, data[position : position + 12]]) if last == b"IDAT" else None
        if kind in (b"tRNS", b"acTL", b"fdAT") or (kind == b"IDAT" and last != b"IDAT" and len(kept) > 1):
            return None
        if kind == b"IDAT":
            kept.append(data[position : position + 12 + length])
        position, last = position + 12 + length, kind
    return None


def _check_chunks(data: bytes) -> int:
    """Check the chunks; return how many of them Pillow unpacks before the data."""
    position, chunks, texts, text_bytes, packed = 8, 0, 0, 0, 0
    seen: set[bytes] = set()
    while position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        chunks += 1
        if chunks > MAX_CHUNKS:
            raise unusual(f"more than {MAX_CHUNKS} chunks")
        if kind in _SINGLE:
            if kind in seen:
                raise damaged(f"two chunks {kind.decode()}")
            seen.add(kind)
        if kind in _TEXTS:
            texts, text_bytes, packed = texts + 1, text_bytes + length, packed + (kind != b"tEXt")
            if texts > MAX_TEXTS or text_bytes > MAX_TEXT_BYTES:
                raise unusual(f"more than {MAX_TEXTS} texts, or {MAX_TEXT_BYTES >> 20} MiB of them")
        elif kind == b"iCCP" and length > MAX_PROFILE_BYTES:
            raise unusual(f"a colour profile of more than {MAX_PROFILE_BYTES >> 20} MiB")
        elif kind == b"eXIf":
            exif.check(data[position + 8 : position + 8 + length])
        elif kind == b"IEND":
            break
        position += 12 + length
    return packed
