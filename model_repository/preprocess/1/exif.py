"""The directory of an EXIF block: checked for what would be expensive to read, and searched for the orientation.

Pillow reads every value of a directory into memory, and a file may name the same megabytes in each of 65,535 entries;
so the directories are summed up here first, and only the orientation is read.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from refusals import unusual

# Cameras and Lightroom write up to some 120 entries, MakerNotes are one of them.
MAX_ENTRIES = 2048
# What all values may have together, as a share of the file: they are at different places, so one; twice for overlaps
# and a mebibyte for small files.
_SPARE = 1 << 20

_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_SUB_DIRECTORIES = frozenset((0x8769, 0x8825, 0xA005, 0x014A))
# IFD0, EXIF, GPS, interoperability, a thumbnail: five; a raw file's previews add some sub-directories.
MAX_DIRECTORIES = 64
_ORIENTATION = 0x0112
_INTEROPERABILITY, _INDEX, _EXIF = 0xA005, 0x0001, 0x8769


def check(data: bytes) -> None:
    """Refuse an EXIF block, with or without its identifier, that would be expensive to read.

    Raises:
        BadPicture: more entries, directories or bytes of values than the limits. Damage is no reason: what cannot be
            read is left out.
    """
    block = _tiff_part(data)
    order = _order(block)
    if order is None:
        return
    total, queue, seen = 0, [struct.unpack_from(order + "I", block, 4)[0]], set[int]()
    while queue:
        offset = queue.pop()
        if offset in seen:
            continue
        seen.add(offset)
        if len(seen) > MAX_DIRECTORIES:
            raise unusual(f"more than {MAX_DIRECTORIES} EXIF directories")
        for count, (tag, kind, number, value) in enumerate(entries(block, order, offset)):
            if count >= MAX_ENTRIES:
                raise unusual(f"more than {MAX_ENTRIES} EXIF entries")
            size = min(number * _SIZES.get(kind, 1), len(block))
            total += size if size > 4 else 0
            if tag in _SUB_DIRECTORIES and number == 1:
                queue.append(value)
        if total > 2 * len(block) + _SPARE:
            raise unusual("EXIF entries that share the same bytes")


def orientation(data: bytes) -> int | None:
    """Return the orientation (1 to 8) that an EXIF block states; None where it states none that can be read."""
    block = _tiff_part(data)
    order = _order(block)
    if order is None:
        return None
    for tag, kind, _, value in entries(block, order, struct.unpack_from(order + "I", block, 4)[0]):
        if tag == _ORIENTATION:
            number = value if kind == 4 else (value >> 16 if order == ">" else value & 0xFFFF)
            return number if kind in (3, 4) and 1 <= number <= 8 else None
    return None


def is_adobe_rgb(data: bytes) -> bool:
    """Return whether an EXIF block states Adobe RGB, by the interoperability index R03 of cameras."""
    block = _tiff_part(data)
    order = _order(block)
    if order is None:
        return False
    offset = struct.unpack_from(order + "I", block, 4)[0]
    for wanted in (_EXIF, _INTEROPERABILITY):
        offset = next((value for tag, _, _, value in entries(block, order, offset) if tag == wanted), 0)
    index = next((value for tag, _, _, value in entries(block, order, offset) if tag == _INDEX), 0)
    return struct.pack(order + "I", index)[:3] == b"R03"


def entries(block: bytes, order: str, offset: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield the entries of a directory: tag, type, count, and the four bytes of the value as a number."""
    if 8 <= offset <= len(block) - 2:
        count = struct.unpack_from(order + "H", block, offset)[0]
        count = min(count, (len(block) - offset - 2) // 12)
        yield from struct.iter_unpack(order + "HHII", block[offset + 2 : offset + 2 + 12 * count])


def _tiff_part(data: bytes) -> bytes:
    return data[6:] if data.startswith(b"Exif\0\0") else data


def _order(block: bytes) -> str | None:
    if len(block) < 8:
        return None
    return {b"II": "<", b"MM": ">"}.get(block[:2])
