"""JPEG files that something has taken for text: their bytes 0x0A and 0x0D were translated as line ends.

Most of such a file can still be decoded, to noise in which a detector may find a face.
"""

from __future__ import annotations

from refusals import BadPicture

# Bytes that are looked at first; there, LF and CR are expected 256 times each.
_LOOKED_AT = 64 << 10
# So many LF without one that stands alone are no chance: one in 256 has a CR before it.
_ENOUGH = 16
# Values like LF and CR, which compressed data have about as often; those of a flat picture have not, and say nothing.
_LIKE = (0x08, 0x09, 0x0B, 0x0C, 0x0E, 0x0F)


def translated(data: bytes) -> BadPicture | None:
    """Make the refusal of a JPEG file whose line ends were translated; None for any other."""
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
    """Return whether CR or LF never occurs although each value like them does."""
    if b"\r" in data and b"\n" in data:
        return False
    return all(data.count(value) >= _ENOUGH for value in _LIKE)
