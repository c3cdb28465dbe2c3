"""JPEG files that something has taken for text: their bytes 0x0A and 0x0D were translated as line ends.

Most of such a file can still be decoded, to noise in which a detector may find a face.
"""

from __future__ import annotations

import numpy as np
from refusals import BadPicture

# Bytes that are looked at first; there, LF and CR are expected 256 times each.
_LOOKED_AT = 64 << 10
# So many LF without one that stands alone are no chance: one in 256 has a CR before it.
_ENOUGH = 16
# Compressed data have every value about as often; those of a flat picture have not, and say nothing.
_EVEN = 4
_NO_MARKER = 0xFF


def translated(data: bytes) -> BadPicture | None:
    """The refusal of a JPEG file whose line ends were translated; None for any other."""
    feeds = data.count(b"\n", 0, _LOOKED_AT)
    if feeds >= _ENOUGH and data.count(b"\r\n", 0, _LOOKED_AT) == feeds:
        found = data.count(b"\r\n") == data.count(b"\n")
    else:
        found = _is_missing(data)
    if not found:
        return None
    return BadPicture(
        "BadImage",
        "the picture is damaged (its line ends were translated, as of a text): read, copy and upload it as binary.",
    )


def _is_missing(data: bytes) -> bool:
    """Whether CR or LF never occurs although all other values do, about as often as one another."""
    if b"\r" in data and b"\n" in data:
        return False
    counts = np.bincount(np.frombuffer(data[len(data) // 4 :], np.uint8), minlength=256)
    others = np.delete(counts, (0x0A, 0x0D, _NO_MARKER))
    return bool(others.min() >= max(_ENOUGH, others.mean() / _EVEN))
