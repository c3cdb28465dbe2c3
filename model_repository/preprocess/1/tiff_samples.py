"""TIFF samples that Pillow does not unpack, or unpacks wrongly: planes, 16 and more bits, floating point, alpha.

libtiff undoes the compression: the rows are read as bytes, through a directory that describes them as a grey picture of
8 bits, and NumPy makes samples of them. So every compression is served in every kind of samples, by one path.
TIFF revision 6.0; predictors: its section 14, and Adobe Photoshop TIFF Technical Note 3 (floating point).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from refusals import damaged, unsupported
from tiff_structure import Layout, numbers

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER, _STRIPS = 256, 257, 258, 259, 262, 266, 273
_ORIENTATION, _SAMPLES, _ROWS, _STRIP_SIZES, _PLANAR, _PREDICTOR, _COLOURS = 274, 277, 278, 279, 284, 317, 320
_TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_SIZES, _EXTRA, _FORMAT, _PROFILE = 322, 323, 324, 325, 338, 339, 34675
# Numbers that are read of one entry: a map of 65,536 colours; more strips than are let in.
_MOST = 3 * 65_536

_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _INKS, _YCBCR, _LAB = 0, 1, 2, 3, 5, 6, 8
_CHANNELS = {_WHITE_IS_ZERO: 1, _BLACK_IS_ZERO: 1, _RGB: 3, _PALETTE: 1, _INKS: 4, _LAB: 3}
_RARE_COLOURS = {9: "ICC Lab", 10: "ITU Lab", 32844: "LogL", 32845: "LogLuv"}
# These have samples of their own kind, which their decoders unpack: CCITT, JPEG, WebP.
_OWN_SAMPLES, _JPEG = (2, 3, 4, 6, 7, 50001), (6, 7)
# With these there may be a predictor, as in libtiff: LZW, Deflate, LZMA, Zstandard. With others the tag means nothing.
_PREDICTED = (5, 8, 32946, 34925, 50000)
_UNSIGNED, _SIGNED, _FLOAT, _UNDEFINED = 1, 2, 3, 4
_ASSOCIATED, _UNASSOCIATED = 1, 2
# Samples that are unpacked at a time; as floating point and in bits they take up to 40 bytes each.
_BLOCK = 1 << 20
# Samples that are looked at for the range of values that have none by their type.
_LOOKED_AT = 1 << 20
# In place of infinity.
_BRIGHT = 1e30


@dataclass(frozen=True)
class _Page:
    """A directory: all numbers of each tag that is used here."""

    layout: Layout
    tags: dict[int, list[int]]
    profile: bytes

    def one(self, tag: int, default: int) -> int:
        """Return the first number of a tag."""
        values = self.tags.get(tag)
        return values[0] if values else default

    @property
    def samples(self) -> int:
        return self.one(_SAMPLES, 1)

    @property
    def bits(self) -> int:
        return self.one(_BITS, 1)

    @property
    def kind(self) -> int:
        """Unsigned, signed or floating point."""
        kind = self.one(_FORMAT, _UNSIGNED)
        return _UNSIGNED if kind == _UNDEFINED else kind

    @property
    def colours(self) -> int:
        return self.one(_PHOTOMETRIC, _BLACK_IS_ZERO)

    @property
    def stored_width(self) -> int:
        """Pixels of a row as they are stored: whole tiles."""
        width, tile = self.one(_WIDTH, 0), self.one(_TILE_WIDTH, 0)
        return math.ceil(width / tile) * tile if self.tags.get(_TILES) and tile else width

    @property
    def planar(self) -> bool:
        return self.one(_PLANAR, 1) == 2 and self.samples > 1

    @property
    def alpha(self) -> int:
        """What the first extra sample is; 0 where there is none, or its meaning is not stated."""
        extra = self.samples > _CHANNELS.get(self.colours, self.samples)
        return self.one(_EXTRA, 0) if extra else 0


def unpacked(data: bytes, layout: Layout, offset: int) -> tuple[Image.Image, int] | None:
    """Unpack a directory whose samples are of a rare kind: picture and orientation; None for a common kind.

    Returns:
        A picture of 8 bits, of mode L, RGB, RGBA, CMYK or LAB, with the profile in its ``info``; and 1 to 8.

    Raises:
        BadPicture: a kind that is not read, or data that end early.
    """
    page = _page(data, layout, offset)
    _check(page)
    if _is_common(page):
        return None
    rows = [np.asarray(image) for image in _byte_pictures(data, page)]
    picture = _picture(page, rows)
    if page.profile:
        picture.info["icc_profile"] = page.profile
    return picture, page.one(_ORIENTATION, 1)


def _page(data: bytes, layout: Layout, offset: int) -> _Page:
    head = 8 if layout.big else 2
    count = struct.unpack_from(layout.order + ("Q" if layout.big else "H"), data, offset)[0]
    tags: dict[int, list[int]] = {}
    profile = b""
    for index in range(count):
        at = offset + head + index * layout.entry.size
        if at + layout.entry.size > len(data):
            break
        tag, kind, number, raw = layout.entry.unpack_from(data, at)
        if tag == _PROFILE and number > len(raw):
            profile = data[layout.offset(raw) : layout.offset(raw) + number]
        elif tag not in tags:
            tags[tag] = numbers(data, layout, kind, min(number, _MOST), raw)
    return _Page(layout, tags, profile)


def _check(page: _Page) -> None:
    """Refuse by name what neither Pillow nor this module unpacks."""
    compression, bits = page.one(_COMPRESSION, 1), page.tags.get(_BITS, [1])
    if page.colours in _RARE_COLOURS:
        raise unsupported(f"a TIFF of {_RARE_COLOURS[page.colours]} colours")
    if len(set(bits)) > 1:
        raise unsupported(f"a TIFF whose samples differ in size ({', '.join(map(str, bits[:6]))} bits)")
    if len(set(page.tags.get(_FORMAT, [1]))) > 1 or page.kind not in (_UNSIGNED, _SIGNED, _FLOAT):
        raise unsupported("a TIFF of complex numbers, or of samples of several kinds")
    if page.kind == _FLOAT and page.bits not in (16, 32, 64):
        raise unsupported(f"a TIFF of floating point in {page.bits} bits")
    if compression in _JPEG and page.bits != 8:
        raise unsupported(f"a TIFF of JPEG in {page.bits} bits")
    if page.bits > 16 and page.bits not in (32, 64):
        raise unsupported(f"a TIFF of {page.bits} bits a sample")
    if page.planar and (page.colours not in _CHANNELS or compression in _OWN_SAMPLES):
        raise unsupported("a TIFF of separate planes of this kind")
    if page.samples < _CHANNELS.get(page.colours, 1):
        raise damaged(f"{page.samples} samples a pixel")


def _is_common(page: _Page) -> bool:
    """Return whether Pillow unpacks these samples as they are meant."""
    if page.colours not in _CHANNELS or page.one(_COMPRESSION, 1) in _OWN_SAMPLES:
        return True
    if page.planar or page.alpha == _ASSOCIATED or (page.layout.big and page.layout.order == ">"):
        return False
    if page.samples == 1 and page.bits > 8 and page.colours in (_WHITE_IS_ZERO, _PALETTE):
        return False
    if page.samples == 1:
        return (page.bits, page.kind) in ((1, 1), (2, 1), (4, 1), (8, 1), (16, 1), (32, 2), (32, 3))
    if page.colours == _RGB:
        return page.kind == _UNSIGNED and page.samples <= 4 and page.bits in (8, 16)
    return (page.colours, page.samples, page.bits, page.kind) in (
        (_INKS, 4, 8, _UNSIGNED),
        (_LAB, 3, 8, _UNSIGNED),
    )


# --- bytes ----------------------------------------------------------------------------------------------------------


def _byte_pictures(data: bytes, page: _Page) -> Iterator[Image.Image]:
    """Decode the rows of each plane (or of all samples together) as bytes: mode L, as wide as a row has bytes."""
    width, height = page.stored_width, page.one(_HEIGHT, 0)
    planes, together = (page.samples, 1) if page.planar else (1, page.samples)
    tiled = bool(page.tags.get(_TILES))
    places, sizes = (_TILES, _TILE_SIZES) if tiled else (_STRIPS, _STRIP_SIZES)
    pieces = page.tags.get(places, [])
    each = len(pieces) // planes
    if not width or not height or each < _pieces(page, width, height):
        raise damaged("its rows are missing")
    for plane in range(planes):
        entries = {
            _WIDTH: [math.ceil(width * together * page.bits / 8)],
            _HEIGHT: [height],
            _BITS: [8],
            _COMPRESSION: [page.one(_COMPRESSION, 1)],
            _PHOTOMETRIC: [_BLACK_IS_ZERO],
            _FILL_ORDER: [page.one(_FILL_ORDER, 1)],
            _SAMPLES: [1],
            places: pieces[plane * each : (plane + 1) * each],
            sizes: page.tags.get(sizes, [])[plane * each : (plane + 1) * each],
        }
        if tiled:
            entries[_TILE_WIDTH] = [math.ceil(page.one(_TILE_WIDTH, 0) * together * page.bits / 8)]
            entries[_TILE_HEIGHT] = [page.one(_TILE_HEIGHT, 0)]
        else:
            entries[_ROWS] = [min(page.one(_ROWS, height), height)]
        with Image.open(BytesIO(_with_directory(data, entries)), formats=("TIFF",)) as image:
            image.load()
            yield image


def _pieces(page: _Page, width: int, height: int) -> int:
    """Return how many strips or tiles a plane has."""
    if page.tags.get(_TILES):
        return width // max(1, page.one(_TILE_WIDTH, 1)) * math.ceil(height / max(1, page.one(_TILE_HEIGHT, 1)))
    return math.ceil(height / max(1, min(page.one(_ROWS, height), height)))


def _with_directory(data: bytes, entries: dict[int, list[int]]) -> bytes:
    """Append a directory as the file's only one: a plain little-endian TIFF, whatever the file was.

    Samples of one byte have no order of bytes, and the header of a TIFF is never longer than the one it replaces.
    """
    at = len(data) + len(data) % 2
    written = [struct.pack("<H", len(entries))]
    outside = at + 2 + 12 * len(entries) + 4
    values = b""
    for tag, given in sorted(entries.items()):
        packed = struct.pack(f"<{len(given)}I", *given)
        if len(given) > 1:
            raw = struct.pack("<I", outside + len(values))
            values += packed
        else:
            raw = packed.ljust(4, b"\0")
        written.append(struct.pack("<HHI", tag, 4, len(given)) + raw)
    head = b"II*\0" + struct.pack("<I", at)
    return b"".join([head, data[8:], bytes(len(data) % 2), *written, bytes(4), values])


# --- samples --------------------------------------------------------------------------------------------------------


def _picture(page: _Page, rows: list[NDArray[np.uint8]]) -> Image.Image:
    """Convert the samples to a picture of 8 bits."""
    width, height = page.one(_WIDTH, 0), page.one(_HEIGHT, 0)
    low, high = _range(page, rows, width)
    mode = {_RGB: "RGB", _PALETTE: "RGB", _INKS: "CMYK", _LAB: "LAB"}.get(page.colours, "L")
    if page.alpha and mode in ("L", "RGB"):
        mode = "RGBA"
    channels = len(Image.new(mode, (1, 1)).getbands())
    out = np.empty((height, width, channels), np.uint8)
    for top, block in _blocks(page, rows, width):
        out[top : top + len(block)] = _coloured(page, block, low, high, channels)
    return Image.fromarray(out[..., 0] if channels == 1 else out, mode)


def _blocks(page: _Page, rows: list[NDArray[np.uint8]], width: int) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Yield float32 [h, width, samples] of some rows at a time, and the first of these rows."""
    stored = page.stored_width
    step = max(1, _BLOCK // (stored * page.samples))
    together = 1 if page.planar else page.samples
    for top in range(0, rows[0].shape[0], step):
        planes = [_samples(page, plane[top : top + step], stored, together)[:, :width] for plane in rows]
        yield top, np.concatenate(planes, axis=2).astype(np.float32)


def _samples(page: _Page, rows: NDArray[np.uint8], width: int, together: int) -> NDArray[np.generic]:
    """Convert rows of bytes [h, bytes] to numbers [h, w, samples]."""
    predictor = page.one(_PREDICTOR, 1) if page.one(_COMPRESSION, 1) in _PREDICTED else 1
    across = page.one(_TILE_WIDTH, width) if page.tags.get(_TILES) else width
    if predictor == 3:
        if page.kind != _FLOAT:
            raise damaged("a predictor for floating point on whole numbers")
        return _floats(rows, page.bits // 8, width, together, across)
    if page.bits in (8, 16, 32, 64):
        code = {_UNSIGNED: "u", _SIGNED: "i", _FLOAT: "f"}[page.kind]
        values = np.ascontiguousarray(rows).view(f"{page.layout.order}{code}{page.bits // 8}")
    else:
        bits = np.unpackbits(rows, axis=1)[:, : width * together * page.bits]
        weights = 1 << np.arange(page.bits - 1, -1, -1)
        values = bits.reshape(len(rows), -1, page.bits).astype(np.uint16) @ weights
    values = values.reshape(len(rows), width, together)
    if predictor != 2:
        return values
    if page.bits not in (8, 16, 32, 64) or page.kind == _FLOAT:
        raise unsupported("a TIFF with a predictor on such samples")
    whole = values.astype(values.dtype.newbyteorder("="))
    for left in range(0, width, across):
        part = whole[:, left : left + across]
        np.cumsum(part, axis=1, dtype=part.dtype, out=part)
    return whole


def _floats(rows: NDArray[np.uint8], size: int, width: int, together: int, across: int) -> NDArray[np.generic]:
    """Undo the floating point predictor: bytes of like weight together, each the difference to the one before."""
    tiles = rows.reshape(len(rows), width // across, -1, together)
    summed = np.cumsum(tiles, axis=2, dtype=np.uint8)
    weighed = summed.reshape(len(rows), width // across, size, across * together).swapaxes(2, 3)
    return np.ascontiguousarray(weighed).view(f">f{size}").reshape(len(rows), width, together)


def _range(page: _Page, rows: list[NDArray[np.uint8]], width: int) -> tuple[float, float]:
    """Return the values of black and white.

    Whole numbers of up to 16 bits have a range by their type. Others are judged by the picture: 0 to 1, 255 or 65,535,
    so that a few highlights above 1 do not make everything else black.
    """
    if page.colours == _PALETTE or (page.kind != _FLOAT and page.bits <= 16):
        return 0.0, float(2 ** (page.bits - (page.kind == _SIGNED)) - 1)
    colours = _CHANNELS[page.colours]
    share = max(1, rows[0].shape[0] * width * colours // _LOOKED_AT)
    thinned = [np.ascontiguousarray(plane[::share]) for plane in rows]
    seen = np.concatenate([_finite(block[..., :colours]).ravel() for _, block in _blocks(page, thinned, width)])
    usual = float(np.percentile(seen, 99))
    if page.kind == _FLOAT and usual <= 2.0:
        return 0.0, 1.0
    if usual <= 2 * 255.0:
        return 0.0, 255.0
    if usual <= 65_535.0:
        return 0.0, 65_535.0
    full, most = float(2 ** (page.bits - (page.kind == _SIGNED)) - 1), float(seen.max())
    return 0.0, full if page.kind != _FLOAT and most > full / 256 else most


def _finite(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.nan_to_num(values, nan=0.0, posinf=_BRIGHT, neginf=0.0)


def _coloured(page: _Page, block: NDArray[np.float32], low: float, high: float, channels: int) -> NDArray[np.uint8]:
    """Convert samples [h, w, samples] to uint8 [h, w, channels]."""
    count = _CHANNELS[page.colours]
    if page.colours == _PALETTE:
        colours = _map_of(page)[np.clip(block[..., 0].astype(np.int64), 0, None)]
    elif page.colours == _LAB:
        colours = _lab(page, block[..., :3])
    else:
        colours = np.clip((_finite(block[..., :count]) - low) / (high - low), 0.0, 1.0)
        if page.colours == _WHITE_IS_ZERO:
            colours = 1.0 - colours
    if channels == 4 and page.colours != _INKS:
        alpha = np.clip(_finite(block[..., count : count + 1]) / (1.0 if page.kind == _FLOAT else high), 0.0, 1.0)
        if page.alpha == _ASSOCIATED:
            colours = np.clip(np.divide(colours, alpha, out=colours.copy(), where=alpha > 0), 0.0, 1.0)
        colours = np.concatenate([np.broadcast_to(colours, (*alpha.shape[:2], 3)), alpha], axis=2)
    return np.asarray(np.rint(colours * 255.0), np.uint8)


def _map_of(page: _Page) -> NDArray[np.float32]:
    """Return the map of colours, float32 [n, 3] in 0..1, long enough for every index."""
    values = np.array(page.tags.get(_COLOURS, []), np.float32)
    size = 1 << page.bits
    if len(values) < 3 * size:
        raise damaged("its map of colours is too short")
    return values[: 3 * size].reshape(3, size).T / 65_535.0


def _lab(page: _Page, block: NDArray[np.float32]) -> NDArray[np.float32]:
    """Convert CIE L*a*b* to Pillow's LAB in 0..1: L from 0 to 100; a and b signed, kept as their bytes."""
    if page.kind == _FLOAT or page.bits not in (8, 16):
        raise unsupported(f"a TIFF of CIE Lab in {page.bits} bits")
    levels = block / 257.0 if page.bits == 16 else block
    levels = np.clip(levels, 0, 255)
    if page.bits == 16:  # a and b in 16 bits are 256 times those in 8
        signed = np.where(block >= 32_768, block - 65_536, block) / 256.0
        levels[..., 1:] = np.mod(np.rint(signed[..., 1:]), 256)
    return levels / np.float32(255.0)
