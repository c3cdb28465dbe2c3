"""TIFF files with any directory, sample format and order of bytes, which no library writes."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

RGB, GREY, PALETTE, INKS, LAB = 2, 1, 3, 5, 8
NONE, DEFLATE = 1, 8

# Tags whose numbers are not in 32 (64) bits, as most writers have it: SHORT, and bytes.
_KINDS = dict.fromkeys((258, 259, 262, 277, 284, 317, 320, 338, 339, 274), (3, "H")) | {34675: (7, "B")}


@dataclass
class Page:
    """One directory.

    Attributes:
        samples: [h, w, n] of any type; big-endian and little-endian are the file's business.
        photometric: what the samples mean.
        planar: one plane after the other.
        tile: side of square tiles; 0 for strips.
        rows: of a strip.
        compression: NONE or DEFLATE.
        predictor: 1 none, 2 differences, 3 differences of floating point.
        tags: further tags, tag -> numbers.
        profile: an ICC profile.
        sub: offsets of these pages are named by tag 330.
    """

    samples: NDArray[Any]
    photometric: int = RGB
    planar: bool = False
    tile: int = 0
    rows: int = 16
    compression: int = NONE
    predictor: int = 1
    tags: dict[int, list[int]] = field(default_factory=dict)
    sub: list[Page] = field(default_factory=list)
    profile: bytes = b""


def written(pages: list[Page], order: str = "<", big: bool = False) -> bytes:
    """A file of these pages."""
    out = bytearray({"<": b"II", ">": b"MM"}[order])
    out += struct.pack(order + ("HHHQ" if big else "HI"), *((43, 8, 0, 0) if big else (42, 0)))
    place = len(out) - (8 if big else 4)
    for page in pages:
        subs = [_directory(out, sub, order, big, [])[0] for sub in page.sub]
        at, following = _directory(out, page, order, big, subs)
        struct.pack_into(order + ("Q" if big else "I"), out, place, at)
        place = following
    return bytes(out)


def _directory(out: bytearray, page: Page, order: str, big: bool, subs: list[int]) -> tuple[int, int]:
    """Write a page; where its directory is, and where the offset of the next one goes."""
    height, width, count = page.samples.shape
    kind = {"u": 1, "i": 2, "f": 3}[page.samples.dtype.kind]
    places, sizes = [], []
    for piece in _pieces(page, order):
        out += bytes(len(out) % 2)
        places.append(len(out))
        sizes.append(len(piece))
        out += piece
    entries: dict[int, list[int]] = {
        256: [width],
        257: [height],
        258: [page.samples.dtype.itemsize * 8] * count,
        259: [page.compression],
        262: [page.photometric],
        277: [count],
        284: [2 if page.planar else 1],
        317: [page.predictor],
        339: [kind] * count,
    }
    if page.tile:
        entries |= {322: [page.tile], 323: [page.tile], 324: places, 325: sizes}
    else:
        entries |= {273: places, 278: [page.rows], 279: sizes}
    entries |= page.tags
    if subs:
        entries[330] = subs
    if page.profile:
        entries[34675] = list(page.profile)
    return _written_entries(out, entries, order, big)


def _written_entries(out: bytearray, entries: dict[int, list[int]], order: str, big: bool) -> tuple[int, int]:
    code, size, kind = ("Q", 8, 16) if big else ("I", 4, 4)
    out += bytes(len(out) % 2)
    packed = {}
    for tag, numbers in entries.items():
        of, letter = _KINDS.get(tag, (kind, code))
        raw = struct.pack(f"{order}{len(numbers)}{letter}", *numbers)
        if len(raw) > size:
            at = len(out)
            out += raw + bytes(len(raw) % 2)
            raw = struct.pack(order + code, at)
        packed[tag] = (of, len(numbers), raw.ljust(size, b"\0"))
    at = len(out)
    out += struct.pack(order + ("Q" if big else "H"), len(packed))
    for tag in sorted(packed):
        out += struct.pack(order + ("HHQ8s" if big else "HHI4s"), tag, *packed[tag])
    out += bytes(size)
    return at, len(out) - size


def _pieces(page: Page, order: str) -> list[bytes]:
    planes = np.split(page.samples, page.samples.shape[2], axis=2) if page.planar else [page.samples]
    pieces = []
    for plane in planes:
        height, width, _ = plane.shape
        if page.tile:
            side = page.tile
            padded = np.pad(plane, ((0, -height % side), (0, -width % side), (0, 0)), mode="edge")
            corners = [(y, x) for y in range(0, height, side) for x in range(0, width, side)]
            blocks = [padded[y : y + side, x : x + side] for y, x in corners]
        else:
            blocks = [plane[y : y + page.rows] for y in range(0, height, page.rows)]
        pieces += [_packed(block, page, order) for block in blocks]
    return pieces


def _packed(block: NDArray[Any], page: Page, order: str) -> bytes:
    rows, width, count = block.shape
    size = block.dtype.itemsize
    if page.predictor == 2:
        first = np.zeros_like(block[:, :1])
        block = np.diff(block, axis=1, prepend=first).astype(block.dtype)
    raw = block.astype(block.dtype.newbyteorder("<" if order == "<" else ">")).tobytes()
    if page.predictor == 3:
        big = block.astype(block.dtype.newbyteorder(">")).tobytes()
        weights = (
            np.frombuffer(big, np.uint8).reshape(rows, width * count, size).swapaxes(1, 2).reshape(rows, -1, count)
        )
        raw = np.diff(weights, axis=1, prepend=np.zeros_like(weights[:, :1])).astype(np.uint8).tobytes()
    return zlib.compress(raw) if page.compression == DEFLATE else raw
