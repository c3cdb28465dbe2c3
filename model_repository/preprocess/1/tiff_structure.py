"""The structure of a TIFF file (revision 6.0, and BigTIFF): directories, strips and tiles, and how they are packed."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, field

import exif
from cost import Cost
from refusals import damaged, raw_file, unsupported, unusual

# A page each; scanners write hundreds. One is decoded.
MAX_PAGES = 4_096
# Pages and sub-directories among which the picture is looked for: a preview, a pyramid of 12 levels, and a raw file's
# sub-directories stand at the beginning.
MAX_LOOKED_AT = 32
# Sub-directories that one entry names; raw files have 1 to 5.
MAX_SUB_DIRECTORIES = 16
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
_NEW_SUBFILE, _SUBFILE, _PHOTOMETRIC, _SUB_DIRECTORIES, _DNG = 254, 255, 262, 330, 50706
_NEEDED = frozenset((_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _SAMPLES, _ROWS, _PLANAR, _TILE_WIDTH, _TILE_HEIGHT))
_NEEDED |= {_NEW_SUBFILE, _SUBFILE, _PHOTOMETRIC}
_DIRECTORIES = frozenset((0x8769, 0x8825, 0xA005, _SUB_DIRECTORIES))
# What the samples mean: a mask, and a sensor's values (mosaic, linear) that are yet to be developed.
_MASK, _SENSOR = 4, (32803, 34892)
# NewSubfileType's bits, and the older SubfileType's number.
_REDUCED_BIT, _MASK_BIT, _REDUCED = 1, 4, 2
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_BYTES = (1, 2, 6, 7)  # kinds whose values are kept as they are
_CODES = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}


@dataclass(frozen=True)
class Layout:
    """How the words of this file are laid out: byte order, size of counts, offsets and entries."""

    order: str
    big: bool

    @property
    def entry(self) -> struct.Struct:
        """An entry of a directory: tag, type, count, value or offset."""
        return struct.Struct(self.order + ("HHQ8s" if self.big else "HHI4s"))

    def first(self, data: bytes) -> int:
        """Read the offset of the first directory."""
        return self.offset(data[8:16] if self.big else data[4:8])

    def with_first(self, data: bytes, offset: int) -> bytes:
        """Return the file with the directory at ``offset`` as its first."""
        if self.big:
            return data[:8] + struct.pack(self.order + "Q", offset) + data[16:]
        return data[:4] + struct.pack(self.order + "I", offset) + data[8:]

    def offset(self, raw: bytes) -> int:
        """Read an offset of the file."""
        return int(struct.unpack(self.order + ("Q" if self.big else "I"), raw)[0])


@dataclass
class _Directory:
    """What a directory says.

    Attributes:
        following: offset of the next directory; 0 for the last one.
        counts: tag -> number of its values.
        values: tag -> first value, of the tags that are needed.
        inner: offsets of sub-directories.
        sub: those among them that tag 330 names: further pictures.
        size: bytes of all values that lie outside of it.
        numbers: values of all entries together, texts and bytes left out.
    """

    following: int
    counts: dict[int, int] = field(default_factory=dict)
    values: dict[int, int] = field(default_factory=dict)
    inner: list[int] = field(default_factory=list)
    sub: list[int] = field(default_factory=list)
    size: int = 0
    numbers: int = 0

    @property
    def is_reduced(self) -> bool:
        """Whether this is a smaller version of another picture of the file."""
        return bool(self.values.get(_NEW_SUBFILE, 0) & _REDUCED_BIT) or self.values.get(_SUBFILE) == _REDUCED

    @property
    def is_mask(self) -> bool:
        """Whether this says which pixels of another picture count."""
        return bool(self.values.get(_NEW_SUBFILE, 0) & _MASK_BIT) or self.values.get(_PHOTOMETRIC) == _MASK

    @property
    def is_sensor(self) -> bool:
        """Whether this holds what a camera's sensor has measured."""
        return self.values.get(_PHOTOMETRIC) in _SENSOR

    @property
    def area(self) -> int:
        """Pixels."""
        return self.values.get(_WIDTH, 0) * self.values.get(_HEIGHT, 0)


def scan(data: bytes) -> Cost:
    """Check a TIFF file's structure and estimate the cost of decoding its picture.

    Raises:
        BadPicture: beyond the limits above, a compression that is not read, a camera's raw file, or directories that
            form a loop.
    """
    layout = layout_of(data)
    if layout is None:
        return Cost(0, 0, 0.0, 0)  # another kind of file, or one without room for anything
    first = layout.first(data)
    page = _directory(data, layout, first)
    _check_inner(data, layout, page)
    _check_pages(data, layout, first, page.following)
    chosen = picture_offset(data, layout)
    if chosen != first:
        page = _directory(data, layout, chosen)
        _check_inner(data, layout, page)
    return _cost(data, page)


def layout_of(data: bytes) -> Layout | None:
    """Find how a file's words are laid out; None for one that is no TIFF, or too short to be one."""
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None or len(data) < 16 or data[2:4] not in (b"*\0", b"\0*", b"+\0", b"\0+"):
        return None
    return Layout(order, 43 in data[2:4])


def picture_offset(data: bytes, layout: Layout) -> int:
    """Find the picture's own directory: the first page that is not a reduced version of another, nor a mask.

    Where every page is reduced, the picture may be in a sub-directory of one; otherwise the largest page is taken.

    Raises:
        BadPicture: the file is a camera's raw file, whose samples are yet to be developed.
    """
    first = layout.first(data)
    if data[8:10] == b"CR":
        raise raw_file("CR2")
    pages, subs, sensor, dng = _candidates(data, layout, first)
    if dng:
        raise raw_file("DNG")
    for offset, page in [*pages, *subs]:
        if not (page.is_reduced or page.is_mask or page.is_sensor) and page.area:
            return offset
    if sensor:
        raise raw_file("")
    reduced = [(page.area, -index, offset) for index, (offset, page) in enumerate(pages) if not page.is_mask]
    return max(reduced)[2] if reduced else first


_Pages = list[tuple[int, _Directory]]


def _candidates(data: bytes, layout: Layout, first: int) -> tuple[_Pages, _Pages, bool, bool]:
    """List the first pages and the pictures in their sub-directories; whether one is a sensor's, and a DNG's."""
    pages: _Pages = []
    subs: _Pages = []
    offset, seen = first, set[int]()
    while offset and offset not in seen and len(seen) < MAX_LOOKED_AT:
        seen.add(offset)
        page = _directory(data, layout, offset)
        pages.append((offset, page))
        for sub in page.sub:
            if sub not in seen and len(seen) < MAX_LOOKED_AT:
                seen.add(sub)
                subs.append((sub, _directory(data, layout, sub)))
        offset = page.following
    found = [page for _, page in [*pages, *subs]]
    return pages, subs, any(page.is_sensor for page in found), any(_DNG in page.counts for page in found)


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
    # Pillow's picture and its copy as RGB; samples that Pillow does not know are unpacked twice (tiff_samples.py).
    plain = samples == 1 or (bits == 8 and planes == 1)
    memory = (pixels * 8 if samples > 1 else pixels * (bits // 8 + 2)) + (0 if plain else math.ceil(2 * raw))
    if compression in _JPEG:
        # Every piece is a JPEG of its own; how many scans each has is not known, so each may have all.
        scans = data.count(b"\xff\xda")
        seconds += scans * max(area, 64) / 64 * samples * _PROGRESSIVE_BLOCK + len(data) * 36e-9
        memory += area * samples * 2
    if compression != 1:
        memory += math.ceil(area * samples * bits / 8)  # one unpacked piece
    return Cost(pixels, max(width, height), seconds, memory)


def _pieces(page: _Directory, width: int, height: int) -> tuple[int, int]:
    """Return how many strips or tiles a plane has, and the pixels of one."""
    if _TILES in page.counts or _TILE_WIDTH in page.values:
        wide, high = page.values.get(_TILE_WIDTH, 0), page.values.get(_TILE_HEIGHT, 0)
        if not wide or not high:
            raise damaged("tiles without a size")
        return math.ceil(width / wide) * math.ceil(height / high), wide * high
    rows = max(1, min(page.values.get(_ROWS, height), height))
    return math.ceil(height / rows), rows * width


def _check_pages(data: bytes, layout: Layout, first: int, following: int) -> None:
    seen = {first}
    while following:
        if following in seen:
            raise damaged("its pages form a loop")
        seen.add(following)
        if len(seen) > MAX_PAGES:
            raise unusual(f"more than {MAX_PAGES} pages")
        following = _following(data, layout, following)


def _check_inner(data: bytes, layout: Layout, page: _Directory) -> None:
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


def _span(data: bytes, layout: Layout, offset: int) -> tuple[int, int, int]:
    """Find where the entries of a directory start, how many the file holds of them, and where they end."""
    head = 8 if layout.big else 2
    if not 8 <= offset <= len(data) - head:
        return 0, 0, 0
    count = struct.unpack_from(layout.order + ("Q" if layout.big else "H"), data, offset)[0]
    return offset + head, count, offset + head + count * layout.entry.size


def _following(data: bytes, layout: Layout, offset: int) -> int:
    end = _span(data, layout, offset)[2]
    width = 8 if layout.big else 4
    return layout.offset(data[end : end + width]) if end and end + width <= len(data) else 0


def _directory(data: bytes, layout: Layout, offset: int) -> _Directory:
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
            if tag == _SUB_DIRECTORIES:
                found.sub += numbers(data, layout, kind, min(number, MAX_SUB_DIRECTORIES), raw)
    return found


def _first(data: bytes, layout: Layout, kind: int, raw: bytes, inline: bool) -> int:
    """Read the first number of an entry's value; 0 for one that is none, or lies outside of the file."""
    code = _CODES.get(kind)
    if code is None:
        return 0
    size = struct.calcsize("<" + code)
    at = raw if inline else data[layout.offset(raw) : layout.offset(raw) + size]
    return int(struct.unpack_from(layout.order + code, at)[0]) if len(at) >= size else 0


def numbers(data: bytes, layout: Layout, kind: int, count: int, raw: bytes) -> list[int]:
    """Read at most ``count`` numbers of an entry's value; fewer where the file ends, none where it holds none."""
    code = _CODES.get(kind)
    if code is None:
        return []
    size = struct.calcsize("<" + code)
    at = raw if count * size <= len(raw) else data[layout.offset(raw) : layout.offset(raw) + count * size]
    count = min(count, len(at) // size)
    return list(struct.unpack_from(f"{layout.order}{count}{code}", at))
