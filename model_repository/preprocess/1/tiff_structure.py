"""The structure of a TIFF file (revision 6.0, and BigTIFF): directories, strips and tiles, and how they are packed."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, field

import exif
from cost import Cost
from refusals import damaged, unsupported, unusual

# A page each; scanners write hundreds. Only the first is decoded.
MAX_PAGES = 4_096
# A strip for each row of each of three planes of the highest picture that the limit of pixels lets be useful (20,000
# rows). Pillow makes an object of each (10 microseconds).
MAX_PIECES = 65_536
# Six is what Pillow decodes: four inks and two more channels.
MAX_SAMPLES = 6
# Numbers in the values of all entries together, which Pillow makes objects of: two for each piece, and a map of
# colours has 3 x 65,536.
MAX_NUMBERS = 500_000
# The values of a directory's entries together, as a share of the file: they lie at different places.
_SPARE = 1 << 20

_PROGRESSIVE_BLOCK = 20e-9  # seconds a scan spends on each block, as in jpeg_structure
# Compression -> nanoseconds for each byte of the raster, measured; what is not here is not read.
_NANOSECONDS = {
    1: 1.0,  # none
    2: 3.0,  # CCITT, 3 to 5 pixels a nanosecond: a byte is 8
    3: 30.0,
    4: 30.0,
    5: 9.0,  # LZW
    6: 5.0,  # JPEG, the obsolete kind
    7: 5.0,  # JPEG
    8: 8.0,  # Deflate
    32771: 1.0,  # none, padded to 16 bits
    32773: 1.5,  # PackBits
    32946: 8.0,  # Deflate
    34925: 40.0,  # LZMA
    50000: 3.0,  # Zstandard
    50001: 10.0,  # WebP
}
_JPEG = (6, 7)
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _STRIPS, _SAMPLES, _ROWS = 256, 257, 258, 259, 273, 277, 278
_PLANAR, _TILE_WIDTH, _TILE_HEIGHT, _TILES = 284, 322, 323, 324
_STRIP_SIZES, _TILE_SIZES = 279, 325
_NEEDED = frozenset((_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _SAMPLES, _ROWS, _PLANAR, _TILE_WIDTH, _TILE_HEIGHT))
_DIRECTORIES = frozenset((0x8769, 0x8825, 0xA005, 0x014A))
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_BYTES = (1, 2, 6, 7)  # kinds whose values are kept as they are
_CODES = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}


@dataclass(frozen=True)
class _Layout:
    """How the words of this file are laid out: byte order, size of counts, offsets and entries."""

    order: str
    big: bool

    @property
    def entry(self) -> struct.Struct:
        return struct.Struct(self.order + ("HHQ8s" if self.big else "HHI4s"))

    def offset(self, raw: bytes) -> int:
        return int(struct.unpack(self.order + ("Q" if self.big else "I"), raw)[0])


@dataclass
class _Directory:
    """What a directory says.

    Attributes:
        following: offset of the next directory; 0 for the last one.
        counts: tag -> number of its values.
        values: tag -> first value, of the tags that are needed.
        inner: offsets of sub-directories.
        size: bytes of all values that lie outside of it.
        numbers: values of all entries together, texts and bytes left out.
    """

    following: int
    counts: dict[int, int] = field(default_factory=dict)
    values: dict[int, int] = field(default_factory=dict)
    inner: list[int] = field(default_factory=list)
    size: int = 0
    numbers: int = 0


def scan(data: bytes) -> Cost:
    """Check a TIFF file's structure and estimate the cost of decoding its first page.

    Raises:
        BadPicture: beyond the limits above, a compression that is not read, or directories that form a loop.
    """
    order = {b"II": "<", b"MM": ">"}[data[:2]]
    if len(data) < 16 or data[2:4] not in (b"*\0", b"\0*", b"+\0", b"\0+"):
        return Cost(0, 0, 0.0, 0)  # another kind of file, or one without room for anything
    layout = _Layout(order, 43 in data[2:4])
    first = layout.offset(data[8:16] if layout.big else data[4:8])
    page = _directory(data, layout, first)
    _check_inner(data, layout, page)
    _check_pages(data, layout, first, page.following)
    return _cost(data, page)


def _cost(data: bytes, page: _Directory) -> Cost:
    width, height = page.values.get(_WIDTH, 0), page.values.get(_HEIGHT, 0)
    samples, bits = page.values.get(_SAMPLES, 1), page.values.get(_BITS, 1)
    compression = page.values.get(_COMPRESSION, 1)
    if compression not in _NANOSECONDS:
        raise unsupported(f"a TIFF of compression {compression}")
    if not 1 <= samples <= MAX_SAMPLES:
        raise unusual(f"{samples} samples a pixel")
    if not 1 <= bits <= 64:
        raise damaged(f"{bits} bits a sample")
    planes = samples if page.values.get(_PLANAR, 1) == 2 else 1
    pieces, area = _pieces(page, width, height)
    stated = max(page.counts.get(tag, 0) for tag in (_STRIPS, _STRIP_SIZES, _TILES, _TILE_SIZES))
    if max(stated, pieces * planes) > MAX_PIECES:
        raise unusual(f"more than {MAX_PIECES} strips or tiles")
    pixels = max(pieces * area, width * height)
    raw = pixels * samples * bits / 8
    seconds = raw * _NANOSECONDS[compression] * 1e-9 + pixels * 5e-9 + max(stated, pieces * planes) * 10e-6
    memory = pixels * 8 if samples > 1 else pixels * (bits // 8 + 2)
    if compression in _JPEG:
        # Every piece is a JPEG of its own; how many scans each has is not known, so each may have all.
        scans = data.count(b"\xff\xda")
        seconds += scans * max(area, 64) / 64 * samples * _PROGRESSIVE_BLOCK + len(data) * 36e-9
        memory += area * samples * 2
    if compression != 1:
        memory += math.ceil(area * samples * bits / 8)  # one unpacked piece
    return Cost(pixels, max(width, height), seconds, memory)


def _pieces(page: _Directory, width: int, height: int) -> tuple[int, int]:
    """How many strips or tiles a plane has, and the pixels of one."""
    if _TILES in page.counts or _TILE_WIDTH in page.values:
        wide, high = page.values.get(_TILE_WIDTH, 0), page.values.get(_TILE_HEIGHT, 0)
        if not wide or not high:
            raise damaged("tiles without a size")
        return math.ceil(width / wide) * math.ceil(height / high), wide * high
    rows = max(1, min(page.values.get(_ROWS, height), height))
    return math.ceil(height / rows), rows * width


def _check_pages(data: bytes, layout: _Layout, first: int, following: int) -> None:
    seen = {first}
    while following:
        if following in seen:
            raise damaged("its pages form a loop")
        seen.add(following)
        if len(seen) > MAX_PAGES:
            raise unusual(f"more than {MAX_PAGES} pages")
        following = _following(data, layout, following)


def _check_inner(data: bytes, layout: _Layout, page: _Directory) -> None:
    """Look through the directories inside the first page: EXIF, GPS, previews. Pillow reads them with the picture."""
    waiting, seen, size, numbers = list(page.inner), set[int](), page.size, page.numbers
    while waiting:
        offset = waiting.pop()
        if offset in seen:
            continue
        seen.add(offset)
        if len(seen) > exif.MAX_DIRECTORIES:
            raise unusual(f"more than {exif.MAX_DIRECTORIES} directories")
        inner = _directory(data, layout, offset)
        size, numbers = size + inner.size, numbers + inner.numbers
        waiting += inner.inner
    if size > 2 * len(data) + _SPARE:
        raise unusual("entries that share the same bytes")
    if numbers > MAX_NUMBERS:
        raise unusual(f"more than {MAX_NUMBERS} numbers beside its pixels")


def _span(data: bytes, layout: _Layout, offset: int) -> tuple[int, int, int]:
    """Where the entries of a directory start, how many the file holds of them, and where they end."""
    head = 8 if layout.big else 2
    if not 8 <= offset <= len(data) - head:
        return 0, 0, 0
    count = struct.unpack_from(layout.order + ("Q" if layout.big else "H"), data, offset)[0]
    return offset + head, count, offset + head + count * layout.entry.size


def _following(data: bytes, layout: _Layout, offset: int) -> int:
    end = _span(data, layout, offset)[2]
    width = 8 if layout.big else 4
    return layout.offset(data[end : end + width]) if end and end + width <= len(data) else 0


def _directory(data: bytes, layout: _Layout, offset: int) -> _Directory:
    start, count, end = _span(data, layout, offset)
    if count > exif.MAX_ENTRIES:
        raise unusual(f"more than {exif.MAX_ENTRIES} entries in a directory")
    found = _Directory(_following(data, layout, offset))
    block = data[start : min(end, len(data))]
    block = block[: len(block) - len(block) % layout.entry.size]
    for tag, kind, number, raw in layout.entry.iter_unpack(block):
        size = number * _SIZES.get(kind, 1)
        inline = size <= len(raw)
        if not inline:
            found.size += min(size, len(data))
        if kind not in _BYTES:
            found.numbers += min(number, len(data))
        found.counts[tag] = max(found.counts.get(tag, 0), number)
        if tag in _NEEDED or tag in _DIRECTORIES:
            value = _first(data, layout, kind, raw, inline)
            # A tag that stands twice counts with its largest value, as decoders differ in which they take.
            found.values[tag] = max(found.values.get(tag, 0), value)
            if tag in _DIRECTORIES and number:
                found.inner.append(value)
    return found


def _first(data: bytes, layout: _Layout, kind: int, raw: bytes, inline: bool) -> int:
    """The first number of an entry's value; 0 for one that is none, or lies outside of the file."""
    code = _CODES.get(kind)
    if code is None:
        return 0
    size = struct.calcsize("<" + code)
    at = raw if inline else data[layout.offset(raw) : layout.offset(raw) + size]
    return int(struct.unpack_from(layout.order + code, at)[0]) if len(at) >= size else 0
