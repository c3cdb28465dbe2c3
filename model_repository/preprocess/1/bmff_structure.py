"""The structure of HEIC and AVIF files (ISO/IEC 14496-12 and 23008-12): boxes, properties of pictures, colours."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from cost import Cost
from refusals import BadPicture, damaged, unsupported, unusual

# A telephone's picture has some 40 boxes and, in tiles of 512, one property for all and one item for each: 48
# megapixels are 192 tiles, a depth map and a gain map 100 more.
MAX_BOXES = 4_096
MAX_DEPTH = 4
MAX_ITEMS = 2_048
# Properties: sizes, codecs, colours, turns. Telephones write up to 20.
MAX_PROPERTIES = 256
# Bytes before the pictures' own: items, properties, references. A list of 2,048 items has 120 KB.
MAX_META = 4 << 20

_CONTAINERS = {b"meta": 4, b"iprp": 0, b"ipco": 0, b"grpl": 0}  # box -> bytes before its boxes
_HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs")
_AVIF = (b"avif", b"avis")
_NEUTRAL = (b"mif1", b"msf1", b"mif2", b"miaf")
# Codec of an item -> its name in a sentence, for codecs that are not read.
_CODECS = {
    b"vvc1": "H.266",
    b"evc1": "EVC",
    b"avc1": "H.264",
    b"jpeg": "JPEG",
    b"j2k1": "JPEG 2000",
    b"unci": "no codec",
}
_READ = {b"hvc1", b"av01"}
# Seconds a pixel on one thread, and bytes a pixel: planes of the decoder, its RGB, Pillow's picture, its copy.
_HEVC_SECONDS, _AV1_SECONDS, _BYTES = 90e-9, 45e-9, 14


@dataclass
class _Found:
    """What the boxes say.

    Attributes:
        sizes: width and height of each picture property.
        kinds: codecs and kinds of items.
        colours: primaries and transfer of the first colour property with numbers; 2 is for not stated.
        film: where a film behind the picture begins; 0 for none.
        boxes: how many there were.
    """

    sizes: list[tuple[int, int]] = field(default_factory=list)
    kinds: set[bytes] = field(default_factory=set)
    colours: tuple[int, int] | None = None
    film: int = 0
    boxes: int = 0


def brand(data: bytes) -> str | None:
    """Return ``HEIF`` or ``AVIF`` where a file states to be one, None for another kind of file, such as a film."""
    if data[4:8] != b"ftyp":
        return None
    size = struct.unpack_from(">I", data)[0]
    brands = [data[8:12], *(data[at : at + 4] for at in range(16, min(size, 256), 4))]
    if brands[0] in _HEIC:
        return "HEIF"
    if brands[0] in _AVIF:
        return "AVIF"
    if brands[0] in _NEUTRAL:
        return "AVIF" if any(other in _AVIF for other in brands) else "HEIF"
    return None


def scan(data: bytes) -> Cost:
    """Check a HEIC or AVIF file's structure and estimate the cost of decoding its picture.

    Raises:
        BadPicture: beyond the limits above, no picture, or one of a codec that is not read.
    """
    kind = brand(data)
    if kind is None:
        return Cost(0, 0, 0.0, 0)  # a film, or another kind of file: the decoders name it
    found = _Found()
    _boxes(data, 0, len(data), 0, found)
    if not found.sizes:
        raise damaged(f"the {'HEIC' if kind == 'HEIF' else kind} file holds no picture")
    if not found.kinds & _READ:
        named = sorted(_CODECS[codec] for codec in found.kinds if codec in _CODECS)
        raise unsupported(f"a HEIF file of {named[0]}" if named else "a HEIF file of an unknown codec")
    pixels = max(width * height for width, height in found.sizes)
    side = max(max(size) for size in found.sizes)
    seconds = pixels * (_AV1_SECONDS if kind == "AVIF" else _HEVC_SECONDS)
    return Cost(pixels, side, seconds, pixels * _BYTES)


def picture_end(data: bytes) -> int:
    """Find where a film behind the picture begins (`mpvd` of motion photos); the file's end without one."""
    found = _Found()
    try:
        _boxes(data, 0, len(data), MAX_DEPTH, found)
    except BadPicture:
        return len(data)
    return found.film or len(data)


def colours(data: bytes) -> tuple[int, int]:
    """Return primaries and transfer function by ITU-T H.273; (2, 2) where none are stated."""
    found = _Found()
    _boxes(data, 0, len(data), 0, found)
    return found.colours or (2, 2)


def _boxes(data: bytes, start: int, end: int, depth: int, found: _Found) -> None:
    """Look through the boxes from ``start`` to ``end``, and into those that hold others."""
    for kind, body, following in _children(data, start, end):
        found.boxes += 1
        if found.boxes > MAX_BOXES:
            raise unusual(f"more than {MAX_BOXES} boxes")
        if kind == b"mpvd" and not found.film:
            found.film = body - 8
        if kind == b"meta" and following - body > MAX_META:
            raise unusual(f"more than {MAX_META >> 20} MiB of description")
        if kind in _CONTAINERS and depth < MAX_DEPTH:
            _boxes(data, body + _CONTAINERS[kind], following, depth + 1, found)
        else:
            _note(data, kind, body, following, found)


def _children(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield boxes: kind, where the content begins, and where the next one does."""
    while start + 8 <= end:
        size, kind = struct.unpack_from(">I4s", data, start)
        body = start + 8
        if size == 1 and start + 16 <= end:
            size, body = struct.unpack_from(">Q", data, start + 8)[0], start + 16
        elif size == 0:
            size = end - start
        if size < body - start:
            raise damaged("a box without a size")
        yield kind, body, min(start + size, end)
        start += size


def _note(data: bytes, kind: bytes, body: int, end: int, found: _Found) -> None:
    if kind == b"ispe" and end - body >= 12:
        found.sizes.append(struct.unpack_from(">II", data, body + 4))
        if len(found.sizes) > MAX_PROPERTIES:
            raise unusual(f"more than {MAX_PROPERTIES} sizes of pictures")
    elif kind == b"iinf" and end - body >= 6:
        _note_items(data, body, end, found)
    elif kind == b"colr" and end - body >= 8 and data[body : body + 4] == b"nclx" and found.colours is None:
        found.colours = struct.unpack_from(">HH", data, body + 4)


def _note_items(data: bytes, body: int, end: int, found: _Found) -> None:
    wide = data[body] != 0
    count = int.from_bytes(data[body + 4 : min(end, body + (8 if wide else 6))], "big")
    if count > MAX_ITEMS:
        raise unusual(f"more than {MAX_ITEMS} items")
    for number, (kind, at, _) in enumerate(_children(data, body + (8 if wide else 6), end)):
        if number >= MAX_ITEMS:
            raise unusual(f"more than {MAX_ITEMS} items")
        if kind == b"infe" and at + 12 <= end and data[at] >= 2:
            # Version 3 has item numbers of four bytes.
            found.kinds.add(data[at + 8 : at + 12] if data[at] == 2 else data[at + 10 : at + 14])
