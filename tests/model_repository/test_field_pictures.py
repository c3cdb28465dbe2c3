"""`preprocess`: pictures as telephones and programs write them, and everything else that people send in their place."""

from __future__ import annotations

import base64
import contextlib
import gzip
import io
import json
import pickle
import struct
import zipfile
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFile

from tests.model_repository.test_pictures import colour_chart, decode, file_of, pictures, quarters, refusal
from tests.model_repository.version_folder import load

structure = load("preprocess", "structure")


def photograph(width: int = 640, height: int = 480, seed: int = 4) -> Image.Image:
    """Something with the noise of a sensor, so that its compressed data have every value."""
    rows, cols = np.mgrid[0:height, 0:width]
    smooth = np.stack([rows * 200 / height + 20, cols * 200 / width + 20, 128 + 60 * np.sin(rows / 40)], axis=-1)
    noise = np.random.default_rng(seed).normal(0, 6, (height, width, 3))
    return Image.fromarray(np.clip(smooth + noise, 0, 255).astype(np.uint8))


PHOTO = photograph()
JPEG = file_of(PHOTO, "JPEG", quality=90)
WANTED = np.array(quarters(colour_chart()))


# --- opacity --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "AVIF", "TIFF"])
def test_opacity_that_is_zero_everywhere_means_opaque(kind: str) -> None:
    rgba = np.dstack([colour_chart(), np.zeros((48, 64), np.uint8)])
    every: dict[str, dict[str, Any]] = {"WEBP": {"lossless": True, "exact": True}, "AVIF": {"quality": 95}}
    options = every.get(kind, {})
    np.testing.assert_allclose(quarters(decode(file_of(Image.fromarray(rgba), kind, **options)).pixels), WANTED, atol=8)


def test_grey_and_palettes_without_any_opacity_are_opaque() -> None:
    grey = np.zeros((48, 64, 2), np.uint8)
    grey[..., 0] = 90
    np.testing.assert_array_equal(decode(file_of(Image.fromarray(grey, "LA"))).pixels, 90)
    palette = Image.fromarray(colour_chart()).quantize(4)
    data = file_of(palette, transparency=bytes(256))
    np.testing.assert_allclose(quarters(decode(data).pixels), WANTED, atol=8)


@pytest.mark.parametrize("header", [56, 108, 124])
def test_a_bmp_whose_opacity_nobody_wrote_is_opaque(header: int) -> None:
    rows = np.dstack([colour_chart()[::-1, :, ::-1], np.zeros((48, 64), np.uint8)])
    info = struct.pack("<IiiHHIIiiII", header, 64, 48, 1, 32, 3, rows.size, 2835, 2835, 0, 0)
    info += struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    data = b"BM" + struct.pack("<IHHI", 14 + header + rows.size, 0, 0, 14 + header) + info.ljust(header, b"\0")
    np.testing.assert_array_equal(quarters(decode(data + rows.tobytes()).pixels), WANTED)


FIELDS = {
    "565": (16, (0xF800, 0x7E0, 0x1F)),
    "555": (16, (0x7C00, 0x3E0, 0x1F)),
    "444": (16, (0xF00, 0xF0, 0xF)),
    "rgbx": (32, (0xFF, 0xFF00, 0xFF0000)),
    "xrgb": (32, (0xFF000000, 0xFF0000, 0xFF00)),
    "ten bits": (32, (0x3FF, 0xFFC00, 0x3FF00000)),
}


@pytest.mark.parametrize("kind", FIELDS)
@pytest.mark.parametrize("upright", [False, True])
def test_a_bmp_of_any_fields_of_bits_is_decoded(kind: str, upright: bool) -> None:
    bits, masks = FIELDS[kind]
    chart = colour_chart(65, 48)
    words = np.zeros((48, 65), np.uint32)
    for channel, mask in enumerate(masks):
        shift = (mask & -mask).bit_length() - 1
        words |= (np.rint(chart[..., channel] / 255 * (mask >> shift)).astype(np.uint32)) << np.uint32(shift)
    rows = words[:: 1 if upright else -1].astype(f"<u{bits // 8}")
    padded = b"".join(row.tobytes() + bytes(-row.nbytes % 4) for row in rows)
    info = struct.pack("<IiiHHIIiiII", 40, 65, -48 if upright else 48, 1, bits, 3, len(padded), 0, 0, 0, 0)
    info += struct.pack("<3I", *masks)
    data = b"BM" + struct.pack("<IHHI", 66 + len(padded), 0, 0, 66) + info + padded
    np.testing.assert_allclose(quarters(decode(data).pixels), quarters(chart), atol=9)
    assert "end early" in refusal(data[:-200])[1]
    broken = data[:54] + struct.pack("<I", 0xF0F) + data[58:]
    assert "fields" in refusal(broken)[1]


def test_a_bmp_of_another_depth_is_named() -> None:
    data = bytearray(file_of(Image.fromarray(colour_chart()), "BMP"))
    data[28] = 64
    assert "a BMP of 64 bits a pixel" in refusal(bytes(data))[1]


def test_a_single_pixel_that_is_seen_leaves_the_rest_transparent() -> None:
    rgba = np.zeros((48, 64, 4), np.uint8)
    rgba[20, 20] = (200, 30, 30, 255)
    pixels = decode(file_of(Image.fromarray(rgba))).pixels
    assert pixels[0, 0].tolist() == [255, 255, 255]
    assert pixels[20, 20].tolist() == [200, 30, 30]


@pytest.mark.parametrize("opacity", [0, 65_535])
def test_grey_with_opacity_in_sixteen_bits_is_decoded(opacity: int) -> None:
    import zlib

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    row = b"\0" + struct.pack(">2H", 90 * 257, opacity) * 8
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 16, 4, 0, 0, 0))
    data += chunk(b"IDAT", zlib.compress(row * 8)) + chunk(b"IEND", b"")
    np.testing.assert_array_equal(decode(data).pixels, 90)


# --- HEIC and AVIF --------------------------------------------------------------------------------------------------


def test_a_heic_is_decoded() -> None:
    picture = decode(pictures.sample("HEIF"))
    assert picture.source == (640, 480)
    np.testing.assert_allclose(quarters(picture.pixels), WANTED, atol=8)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_avif_is_decoded_and_turned(orientation: int) -> None:
    def turned(kind: str, **options: Any) -> Any:
        exif = Image.Exif()
        exif[0x0112] = orientation
        return decode(file_of(Image.fromarray(colour_chart()), kind, exif=exif, **options))

    avif, png = turned("AVIF", quality=95), turned("PNG")
    assert avif.source == png.source
    np.testing.assert_allclose(quarters(avif.pixels), quarters(png.pixels), atol=12)


def box(kind: bytes, *contents: bytes) -> bytes:
    content = b"".join(contents)
    return struct.pack(">I4s", 8 + len(content), kind) + content


FTYP = box(b"ftyp", b"heic", bytes(4), b"mif1heic")


@pytest.mark.parametrize("kind", ["HEIF", "AVIF"])
def test_a_heic_or_avif_beyond_the_limit_of_pixels_is_refused_by_its_structure(kind: str) -> None:
    data = bytearray(pictures.sample(kind))
    at = data.index(b"ispe") + 8
    data[at : at + 8] = struct.pack(">II", 30_000, 30_000)
    with pytest.raises(structure.BadPicture, match="900 megapixels"):
        structure.inspect(bytes(data), structure.Limits())


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (box(b"free") * 5000, "4096 boxes"),
        (box(b"meta", bytes(4), box(b"iinf", struct.pack(">IH", 0, 60_000))), "2048 items"),
        (box(b"meta", bytes(4), box(b"iprp", box(b"ipco", box(b"ispe", bytes(12)) * 300))), "256 sizes"),
        (box(b"meta", bytes(5 << 20)), "4 MiB"),
        (box(b"meta", bytes(4)), "holds no picture"),
        (struct.pack(">I4s", 3, b"free"), "without a size"),
    ],
)
def test_boxes_beyond_their_limits_are_refused_before_any_decoder(content: bytes, word: str) -> None:
    with pytest.raises(structure.BadPicture, match=word):
        structure.inspect(FTYP + content, structure.Limits())


def test_a_heif_file_of_another_codec_is_named() -> None:
    items = box(b"iinf", struct.pack(">IH", 0, 1), box(b"infe", struct.pack(">IHH4s", 2 << 24, 1, 0, b"vvc1")))
    data = FTYP + box(b"meta", bytes(4), items, box(b"iprp", box(b"ipco", box(b"ispe", struct.pack(">III", 0, 8, 8)))))
    with pytest.raises(structure.BadPicture, match=r"H\.266"):
        structure.inspect(data, structure.Limits())


@pytest.mark.parametrize("kind", ["HEIF", "AVIF"])
@pytest.mark.parametrize("share", [0.2, 0.6, 0.9])
def test_a_truncated_heic_or_avif_is_refused(kind: str, share: float) -> None:
    data = pictures.sample(kind)
    assert refusal(data[: int(len(data) * share)])[0] == "BadImage"


# --- telephones -----------------------------------------------------------------------------------------------------


def stated(data: bytes, width: int, height: int) -> bytes:
    """A baseline JPEG whose frame states another size."""
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("size", [(12_000, 9_000), (12_001, 9_001), (9_248, 6_936)])
def test_a_jpeg_is_judged_by_the_pixels_that_it_is_decoded_to(size: tuple[int, int], orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    large = Image.fromarray(colour_chart()).resize(size, Image.Resampling.NEAREST)
    picture = decode(file_of(large, "JPEG", quality=50, exif=exif))
    assert picture.source == (size if orientation == 1 else size[::-1])
    assert max(picture.pixels.shape[:2]) <= 2048
    upright = picture.pixels if orientation == 1 else np.rot90(picture.pixels)
    np.testing.assert_allclose(quarters(upright), WANTED, atol=10)


def test_the_size_that_a_jpeg_states_is_limited_too() -> None:
    assert structure.inspect(stated(JPEG, 16_320, 12_240), structure.Limits()).pixels < 65_000_000
    tag, sentence = refusal(stated(JPEG, 30_000, 20_000))
    assert tag == "ImageTooLarge"
    assert "600 megapixels" in sentence


@pytest.mark.parametrize("megabytes", [0.2, 6, 34])
def test_of_a_motion_photo_the_picture_counts(megabytes: float) -> None:
    film = box(b"ftyp", b"mp42", bytes(4)) + np.random.default_rng(2).bytes(int(megabytes * 2**20))
    np.testing.assert_array_equal(decode(JPEG + film).pixels, decode(JPEG).pixels)
    heic = pictures.sample("HEIF")
    np.testing.assert_array_equal(decode(heic + box(b"mpvd", film)).pixels, decode(heic).pixels)


def test_a_large_file_without_a_film_is_refused() -> None:
    limits = pictures.Limits(max_bytes=len(JPEG) - 1)
    assert refusal(JPEG, limits)[0] == "ImageTooLarge"
    assert decode(JPEG, pictures.Limits(max_bytes=len(JPEG))).source == (640, 480)


@pytest.mark.parametrize("trailer", [b"\0" * 100, b"SEFH" + bytes(60_000), JPEG[:9000]])
def test_what_programs_write_behind_a_picture_stays(trailer: bytes) -> None:
    np.testing.assert_array_equal(decode(JPEG + trailer).pixels, decode(JPEG).pixels)


# --- rare and damaged JPEGs -----------------------------------------------------------------------------------------

KINDS: dict[str, dict[str, Any]] = {"baseline": {}, "progressive": {"progressive": True}, "444": {"subsampling": 0}}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_jpeg_without_its_end_marker_is_accepted_and_one_without_its_end_is_not(kind: str, mode: str) -> None:
    whole = file_of(PHOTO.convert(mode), "JPEG", quality=90, **KINDS[kind])
    pixels = decode(whole).pixels
    for cut in (1, 2):
        np.testing.assert_allclose(decode(whole[:-cut]).pixels.astype(int), pixels, atol=1)
    for cut in (3, 4, 5, 6, 8, 10, 20, 50):
        with contextlib.suppress(pictures.BadPicture):
            # The last scan of a progressive file may be of an empty ink, and change nothing.
            np.testing.assert_array_equal(decode(whole[:-cut]).pixels, pixels, str(cut))
    for cut in (300, 3000):
        assert refusal(whole[:-cut])[0] == "BadImage", cut


@pytest.mark.parametrize(
    ("marker", "precision", "word"),
    [
        (0xC1, 12, "12 bits"),
        (0xC2, 12, "12 bits"),
        (0xC3, 8, "lossless"),
        (0xC3, 16, "lossless"),
        (0xCB, 8, "lossless"),
        (0xF7, 8, "JPEG-LS"),
        (0xC5, 8, "hierarchical"),
        (0xCF, 8, "hierarchical"),
    ],
)
def test_rare_kinds_of_jpeg_are_named(marker: int, precision: int, word: str) -> None:
    data = bytearray(JPEG)
    at = data.index(b"\xff\xc0")
    data[at + 1], data[at + 4] = marker, precision
    tag, sentence = refusal(bytes(data))
    assert tag == "BadImage"
    assert word in sentence
    assert "damaged" not in sentence


@pytest.mark.parametrize(
    ("before", "after"), [(b"\n", b"\r\n"), (b"\r", b"\n"), (b"\n", b"\r"), (b"\r", b""), (b"\n", b"")]
)
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"quality": 60}])
def test_a_jpeg_whose_line_ends_were_translated_is_named(before: bytes, after: bytes, options: dict[str, Any]) -> None:
    data = file_of(PHOTO, "JPEG", **{"quality": 90, **options})
    tag, sentence = refusal(data.replace(before, after))
    assert tag == "BadImage"
    assert "line ends" in sentence
    assert "binary" in sentence


def test_flat_pictures_are_not_taken_for_translated_ones() -> None:
    for level in range(0, 256, 5):
        decode(file_of(Image.new("RGB", (800, 800), (level, 90, 255 - level)), "JPEG"))
        decode(file_of(Image.linear_gradient("L").resize((900, 700)).rotate(level), "JPEG", quality=75))


# --- what is no picture ---------------------------------------------------------------------------------------------


def array_file(array: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def archive(name: str, content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr(name, content)
    return buffer.getvalue()


ENCODED = base64.b64encode(JPEG)
PNG = file_of(PHOTO.resize((64, 48)))
FOREIGN: dict[str, tuple[bytes, str]] = {
    "base64": (ENCODED, "base64"),
    "base64 of a png": (base64.b64encode(PNG), "base64"),
    "base64 in lines": (base64.encodebytes(JPEG), "base64"),
    "base64 in quotes": (b'"' + ENCODED + b'"', "base64"),
    "base64 of a heic": (base64.b64encode(pictures.sample("HEIF")), "base64"),
    "base64 for addresses": (base64.urlsafe_b64encode(JPEG[200:]), "base64"),
    "data url": (b"data:image/jpeg;base64," + ENCODED, "base64"),
    "hexadecimal": (JPEG.hex().encode(), "hexadecimal"),
    "str of bytes": (str(JPEG).encode(), "Python"),
    "path": (b"/home/me/pictures/holiday.jpg", "name of a file"),
    "path of windows": (b"C:\\Users\\me\\Pictures\\IMG 0001.HEIC\n", "name of a file"),
    "name": (b"photo.jpeg", "name of a file"),
    "url": (b"https://example.org/a.jpg?width=800", "an address"),
    "bucket": (b"s3://bucket/photo.jpg", "an address"),
    "file url": (b"file:///home/me/a.jpg", "address of a file"),
    "multipart": (b'--boundary7\r\nContent-Disposition: form-data; name="f"\r\n\r\n' + JPEG, "multipart"),
    "form": (b"image=%2F9j%2F4AAQ&name=x", "form"),
    "json": (json.dumps({"image": ENCODED.decode()}).encode(), "JSON"),
    "json list": (json.dumps([[1, 2], [3, 4]]).encode(), "JSON"),
    "html": (b"\n<!DOCTYPE html>\n<html><head><title>403 Forbidden</title>", "HTML"),
    "xml": (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "XML"),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
    "git lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "Git LFS"),
    "numpy": (array_file(np.zeros((4, 4, 3), np.uint8)), "NumPy"),
    "pickle": (pickle.dumps([1, 2]), "serialised object of Python"),
    "zip": (archive("photo.jpg", JPEG), "archive"),
    "gzip": (gzip.compress(JPEG), "gzip"),
    "7z": (b"7z\xbc\xaf\x27\x1c\0\4", "archive"),
    "rar": (b"Rar!\x1a\7\1\0", "archive"),
    "tar": (b"photo.jpg".ljust(257, b"\0") + b"ustar\x0000", "archive"),
    "psd": (b"8BPS\0\1" + bytes(40), "Photoshop"),
    "ico": (file_of(PHOTO.resize((32, 32)), "ICO"), "icon"),
    "gif": (file_of(PHOTO, "GIF"), "GIF"),
    "jpeg 2000": (file_of(PHOTO.resize((64, 64)), "JPEG2000"), "JPEG 2000"),
    "jpeg 2000 stream": (b"\xff\x4f\xff\x51\0\x29" + bytes(40), "JPEG 2000"),
    "jpeg xl": (b"\xff\x0a\xf8\x0b" + bytes(60), "JPEG XL"),
    "jpeg xl in boxes": (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(60), "JPEG XL"),
    "jpeg xr": (b"II\xbc\1\x08\0\0\0" + bytes(60), "JPEG XR"),
    "mp4": (box(b"ftyp", b"isom", bytes(4)) + bytes(99), "film"),
    "quicktime": (box(b"ftyp", b"qt  ", bytes(4)) + bytes(99), "film"),
    "webm": (b"\x1a\x45\xdf\xa3" + bytes(60), "film"),
    "avi": (b"RIFF\0\0\1\0AVI LIST" + bytes(60), "film"),
    "wav": (b"RIFF\0\0\1\0WAVEfmt " + bytes(60), "sound"),
    "cr3": (box(b"ftyp", b"crx ", bytes(4)) + bytes(99), "raw file (CR3)"),
    "raf": (b"FUJIFILMCCD-RAW 0201" + bytes(60), "raw file (RAF)"),
    "orf": (b"IIRO\x08\0\0\0" + bytes(60), "raw file (ORF)"),
    "rw2": (b"IIU\0\x18\0\0\0" + bytes(60), "raw file (RW2)"),
    "pdf": (b"%PDF-1.7\n%", "PDF"),
    "exr": (b"v/1\1\2\0\0\0" + bytes(60), "OpenEXR"),
    "ppm": (file_of(PHOTO.resize((8, 8)), "PPM"), "Netpbm"),
    "dicom": (bytes(128) + b"DICM" + bytes(60), "DICOM"),
    "glb": (b"glTF\2\0\0\0" + bytes(60), "3D model"),
    "mp3": (b"ID3\4\0\0\0\0\0\0" + bytes(60), "this is a"),
    "sqlite": (b"SQLite format 3\0" + bytes(60), "file of the kind"),
    "word": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(60), "file of the kind"),
    "text": (b"Here is my picture, thank you!", "a text"),
    "utf-16": ("photo of me".encode("utf-16"), "UTF-16"),
    "zeros": (bytes(5000), "zeros"),
    "noise": (b"\x91\x07\xee\x11" * 40, "these bytes"),
    "length twice": (struct.pack("<I", len(JPEG)) + JPEG, "length stands before"),
    "blank before": (b"\r\n" + JPEG, "blank"),
    "byte order mark": (b"\xef\xbb\xbf" + JPEG, "blank"),
    "utf-8 of latin-1": (JPEG.decode("latin-1").encode(), "encoded as text"),
    "utf-8 of what is none": (JPEG.decode("utf-8", "replace").encode(), "encoded as text"),
    "png with unix line ends": (PNG.replace(b"\r\n", b"\n"), "line ends"),
    "png with dos line ends": (PNG.replace(b"\n", b"\r\n"), "line ends"),
    "jpeg header": (JPEG[:3], "damaged"),
    "nothing": (b"", "empty"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_what_came_in_place_of_a_picture_is_named_in_one_sentence(kind: str) -> None:
    data, word = FOREIGN[kind]
    tag, sentence = refusal(data)
    assert tag == "BadImage"
    assert word in sentence
    assert sentence.endswith(".")
    assert sentence.count(". ") == 0
    assert len(sentence) < 250
    # What to do stands behind a colon, and no byte of the stranger's file stands anywhere.
    assert ": " in sentence
    assert sentence.isascii()
    assert sentence.isprintable()


def test_the_flag_of_pillow_that_lets_damage_pass_is_off() -> None:
    assert not ImageFile.LOAD_TRUNCATED_IMAGES
