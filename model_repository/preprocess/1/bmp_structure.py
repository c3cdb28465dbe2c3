"""The structure of a BMP file: the size and the kind of compression that its header states."""

from __future__ import annotations

import struct

from cost import Cost
from refusals import damaged, unsupported

_COMPRESSIONS = {0: "none", 1: "RLE8", 2: "RLE4", 3: "bit fields", 6: "bit fields with alpha"}
_NAMES = {4: "a BMP that holds a JPEG", 5: "a BMP that holds a PNG", 11: "a BMP of inks", 12: "a BMP of inks"}
RLE = (1, 2)
FIELDS = (3, 6)
_DEPTHS = (1, 4, 8, 16, 24, 32)


def compression(data: bytes) -> int:
    """Return the compression of a BMP file; 0 for the header of OS/2 1.x, which has none."""
    header = struct.unpack_from("<I", data, 14)[0]
    return struct.unpack_from("<I", data, 30)[0] if header > 12 and len(data) >= 34 else 0


def scan(data: bytes) -> Cost:
    """Check a BMP file's header and estimate the cost of decoding it.

    Raises:
        BadPicture: a compression that is not read, or a header that is too short.
    """
    if len(data) < 26:
        raise damaged("its header ends early")
    header = struct.unpack_from("<I", data, 14)[0]
    width, height = struct.unpack_from("<HH" if header == 12 else "<ii", data, 18)
    kind = compression(data)
    if kind not in _COMPRESSIONS:
        raise unsupported(_NAMES.get(kind, f"a BMP of compression {kind}"))
    bits = struct.unpack_from("<H", data, 24 if header == 12 else 28)[0] if len(data) >= 30 else 0
    if bits not in _DEPTHS:
        raise unsupported(f"a BMP of {bits} bits a pixel")
    pixels = abs(width) * abs(height)
    # Copied, 4 ns a pixel; runs are decoded by OpenCV, whose work a file of no-op codes adds to.
    return Cost(pixels, max(abs(width), abs(height)), pixels * 5e-9 + len(data) * 5e-9, pixels * 8)
