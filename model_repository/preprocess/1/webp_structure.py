"""The structure of a WebP file (RIFF container): its chunks, its frames and its canvas."""

from __future__ import annotations

import struct

import exif
from cost import Cost
from refusals import damaged, unusual

# A still picture has 1 to 6 chunks, an animation one a frame; ten minutes at 30 frames a second would be 18,000.
MAX_CHUNKS = 20_000
_NAMES = (b"VP8 ", b"VP8L", b"VP8X")


def scan(data: bytes) -> Cost:
    """Check a WebP file's structure and estimate the cost of decoding its first frame.

    Raises:
        BadPicture: beyond the limits above, or no picture in it.
    """
    if data[8:12] != b"WEBP":
        return Cost(0, 0, 0.0, 0)  # another kind of RIFF file: the decoders name it
    if len(data) < 30 or data[12:16] not in _NAMES:
        raise damaged("its header is missing")
    sizes, lossless = _frames(data)
    if not sizes:
        raise damaged("it has no picture")
    extended = data[12:16] == b"VP8X"
    pixels = max(width * height for width, height in sizes)
    # Animations and transparency go through Pillow: the canvas twice, its bytes and Pillow's picture, 4 bytes each.
    plain = not extended or not data[20] & 0x12
    seconds, memory = pixels * (30e-9 if lossless else 18e-9), pixels * (8 if plain else 18)
    return Cost(pixels, max(map(max, sizes)), seconds, memory)


def _frames(data: bytes) -> tuple[list[tuple[int, int]], bool]:
    """Read the sizes of the canvas and of the frames up to the first one, and whether any is lossless."""
    position, chunks, lossless = 12, 0, False
    sizes: list[tuple[int, int]] = []
    while position + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, position)
        chunks += 1
        if chunks > MAX_CHUNKS:
            raise unusual(f"more than {MAX_CHUNKS} chunks")
        body = data[position + 8 : position + 8 + min(length, 40)]
        if kind == b"VP8X" and len(body) >= 10:
            sizes.append((1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")))
        elif kind == b"VP8 " and len(body) >= 10:
            width, height = struct.unpack_from("<HH", body, 6)
            sizes.append((width & 0x3FFF, height & 0x3FFF))
        elif kind == b"VP8L" and len(body) >= 5:
            bits = int.from_bytes(body[1:5], "little")
            sizes.append(((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1))
            lossless = True
        elif kind == b"ANMF" and len(body) >= 24:
            sizes.append((1 + int.from_bytes(body[6:9], "little"), 1 + int.from_bytes(body[9:12], "little")))
            lossless |= body[16:20] == b"VP8L"
        elif kind == b"EXIF":
            exif.check(data[position + 8 : position + 8 + length])
        position += 8 + length + (length & 1)
    return sizes, lossless
