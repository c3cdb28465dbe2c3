"""`preprocess`: what is decoded, how large it becomes, where its pixels come from, what is refused."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms

from tests.model_repository.version_folder import load

pictures = load("preprocess", "pictures")
LIMITS = pictures.Limits()
U8 = NDArray[np.uint8]


def file_of(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def decode(data: bytes, limits: Any = LIMITS) -> Any:
    return pictures.decode(data, limits)


def refusal(data: bytes, limits: Any = LIMITS) -> tuple[str, str]:
    with pytest.raises(pictures.BadPicture) as caught:
        pictures.decode(data, limits)
    return caught.value.tag, str(caught.value)


def colour_chart(width: int = 64, height: int = 48) -> U8:
    """Four quarters: red, green, blue, yellow; smooth enough for any codec inside each."""
    chart = np.zeros((height, width, 3), np.uint8)
    chart[: height // 2, : width // 2] = (200, 30, 30)
    chart[: height // 2, width // 2 :] = (30, 180, 30)
    chart[height // 2 :, : width // 2] = (30, 30, 200)
    chart[height // 2 :, width // 2 :] = (200, 190, 30)
    return chart


def quarters(pixels: U8) -> list[list[int]]:
    h, w = pixels.shape[:2]
    return [pixels[y, x].astype(int).tolist() for y in (h // 4, 3 * h // 4) for x in (w // 4, 3 * w // 4)]


def blob(width: int, height: int, x: float, y: float, sigma: float) -> U8:
    """A soft white spot on black, centred on (x, y) in pixels with centres at integers."""
    gx = np.exp(-((np.arange(width) - x) ** 2) / (2 * sigma**2))
    gy = np.exp(-((np.arange(height) - y) ** 2) / (2 * sigma**2))
    return np.repeat((255 * gy[:, None] * gx[None]).round().astype(np.uint8)[..., None], 3, axis=2)


def centroid(grey: NDArray[Any]) -> tuple[float, float]:
    weights = grey.astype(np.float64)
    total = weights.sum()
    return (
        float((weights.sum(0) * np.arange(grey.shape[1])).sum() / total),
        float((weights.sum(1) * np.arange(grey.shape[0])).sum() / total),
    )


# --- formats and colours -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "TIFF"])
def test_every_format_decodes_to_the_same_colours(kind: str) -> None:
    picture = decode(file_of(Image.fromarray(colour_chart()), kind))
    assert picture.pixels.shape == (48, 64, 3)
    assert picture.pixels.dtype == np.uint8
    np.testing.assert_allclose(quarters(picture.pixels), quarters(colour_chart()), atol=6)


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "YCbCr", "LA", "RGBA", "1", "LAB", "I", "F"])
def test_any_colour_mode_becomes_rgb(mode: str) -> None:
    grey = Image.fromarray(np.full((20, 30, 3), 255, np.uint8))
    kind = "PNG" if mode in ("L", "P", "LA", "RGBA", "1") else "TIFF"
    # Pillow 12 writes YCbCr without compression in a way that it cannot read.
    options = {"compression": "tiff_lzw"} if mode == "YCbCr" else {}
    picture = decode(file_of(grey.convert(mode), kind, **options))
    assert picture.pixels.shape == (20, 30, 3)
    np.testing.assert_allclose(picture.pixels, 255, atol=2)


def test_a_cmyk_jpeg_keeps_its_colours() -> None:
    picture = decode(file_of(Image.fromarray(colour_chart()).convert("CMYK"), "JPEG", quality=95))
    np.testing.assert_allclose(quarters(picture.pixels), quarters(colour_chart()), atol=12)


def test_a_png_in_rgb_keeps_its_samples_and_leaves_no_remark_in_the_log(capfd: pytest.CaptureFixture[str]) -> None:
    chart = np.random.default_rng(3).integers(0, 256, (48, 64, 3), np.uint8)
    plain = file_of(Image.fromarray(chart))
    header, rest = plain[:33], plain[33:]
    odd = struct.pack(">I4sI", 4, b"gAMA", 0) + struct.pack(">I", zlib.crc32(b"gAMA" + bytes(4)))  # libpng warns of it
    for data in (plain, header + odd + rest):
        np.testing.assert_array_equal(decode(data).pixels, chart)
    assert capfd.readouterr().err == ""


def test_a_png_in_rgb_is_turned_by_what_stands_behind_its_pixels() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    block = exif.tobytes().removeprefix(b"Exif\0\0")
    turn = struct.pack(">I4s", len(block), b"eXIf") + block + struct.pack(">I", zlib.crc32(b"eXIf" + block))
    data = file_of(Image.fromarray(colour_chart()))
    at = data.index(b"IEND") - 4
    assert decode(data[:at] + turn + data[at:]).pixels.shape == (64, 48, 3)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_grey_is_scaled_and_not_cut(kind: str) -> None:
    ramp = np.linspace(0, 65535, 256).round().astype(np.uint16)
    picture = decode(file_of(Image.fromarray(np.tile(ramp, (8, 1))), kind))
    np.testing.assert_array_equal(picture.pixels[3, :, 0], np.arange(256))


def test_sixteen_bit_colour_is_scaled() -> None:
    width, height = 4, 3
    rows = b"".join(b"\0" + np.full((width, 3), 0x8040, ">u2").tobytes() for _ in range(height))
    picture = decode(png_of(width, height, rows, depth=16, colour=2))
    np.testing.assert_allclose(picture.pixels, 0x80, atol=1)


def test_float_grey_between_zero_and_one_spans_the_whole_range() -> None:
    ramp = np.tile(np.linspace(0, 1, 256, dtype=np.float32), (4, 1))
    ramp[0, 0] = np.nan
    picture = decode(file_of(Image.fromarray(ramp), "TIFF"))
    np.testing.assert_array_equal(picture.pixels[2, :, 1], np.arange(256))


def test_transparency_is_laid_on_white_paper() -> None:
    rgba = np.zeros((10, 10, 4), np.uint8)
    rgba[:, 5:] = (255, 0, 0, 128)
    pixels = decode(file_of(Image.fromarray(rgba))).pixels
    np.testing.assert_array_equal(pixels[5, 2], (255, 255, 255))
    np.testing.assert_allclose(pixels[5, 8], (255, 127, 127), atol=1)


def test_a_transparent_colour_of_a_palette_counts_as_transparency() -> None:
    image = Image.new("P", (10, 10), 0)
    image.putpalette([10, 20, 30, 200, 100, 50] + [0] * 762)
    image.paste(1, (5, 0, 10, 10))
    pixels = decode(file_of(image, transparency=0)).pixels
    np.testing.assert_array_equal(pixels[5, 2], (255, 255, 255))
    np.testing.assert_array_equal(pixels[5, 8], (200, 100, 50))


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_the_first_frame_of_an_animation_counts(kind: str) -> None:
    frames = [Image.new("RGB", (40, 30), colour) for colour in ((200, 20, 20), (20, 200, 20))]
    pixels = decode(file_of(frames[0], kind, save_all=True, append_images=frames[1:])).pixels
    np.testing.assert_allclose(pixels[15, 20], (200, 20, 20), atol=4)


def test_a_telephone_s_multi_picture_jpeg_decodes() -> None:
    large = Image.fromarray(np.repeat(np.repeat(colour_chart(), 64, 0), 64, 1))
    data = file_of(large, "MPO", save_all=True, append_images=[large.resize((64, 48))])
    picture = decode(data)
    assert picture.source == (4096, 3072)
    np.testing.assert_allclose(quarters(picture.pixels), quarters(colour_chart()), atol=8)


def matrix_profile(colorants: list[tuple[float, float, float]], gamma: float) -> bytes:
    """An ICC v2 display profile: the XYZ (D50) of its red, green and blue, and one gamma."""

    def fixed(value: float) -> bytes:
        return struct.pack(">i", round(value * 65536))

    def xyz(values: tuple[float, float, float]) -> bytes:
        return b"XYZ \0\0\0\0" + b"".join(map(fixed, values))

    curve = b"curv\0\0\0\0" + struct.pack(">IHxx", 1, round(gamma * 256))
    name = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"Test\0" + bytes(4 + 4 + 2 + 1 + 67)
    name += bytes(-len(name) % 4)
    white = xyz((0.9642, 1.0, 0.8249))
    tags = [(b"desc", name), (b"wtpt", white), (b"cprt", b"text\0\0\0\0none" + bytes(4))]
    tags += [(tag, xyz(values)) for tag, values in zip((b"rXYZ", b"gXYZ", b"bXYZ"), colorants, strict=False)]
    tags += [(tag, curve) for tag in ((b"rTRC", b"gTRC", b"bTRC") if colorants else (b"kTRC",))]
    offset, table, body = 132 + 12 * len(tags), b"", b""
    for tag, data in tags:
        table += tag + struct.pack(">II", offset + len(body), len(data))
        body += data
    space = b"RGB " if colorants else b"GRAY"
    head = struct.pack(">I4xI4s4s4s12x4s", offset + len(body), 0x02100000, b"mntr", space, b"XYZ ", b"acsp")
    head += bytes(68 - len(head)) + b"".join(map(fixed, (0.9642, 1.0, 0.8249)))
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def ink_profile(cyan: tuple[float, float, float]) -> bytes:
    """An ICC v2 printer profile: CMYK to Lab (D50) by a table of the 16 corners, with an ink of its own for cyan.

    Black ink is black, full cyan has the given Lab, and everything else is paper.
    """

    def lab(lightness: float, a: float, b: float) -> bytes:
        return bytes((round(lightness * 2.55), round(a + 128), round(b + 128)))

    corners = [(c, k) for c in (0, 1) for _ in range(4) for k in (0, 1)]
    table = b"".join(lab(0, 0, 0) if k else lab(*cyan) if c else lab(100, 0, 0) for c, k in corners)
    matrix = b"".join(struct.pack(">i", 65536 * (i % 4 == 0)) for i in range(9))
    straight = bytes(range(256))
    a2b = b"mft1\0\0\0\0" + bytes((4, 3, 2, 0)) + matrix + 4 * straight + table + 3 * straight
    name = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"Inks\0" + bytes(4 + 4 + 2 + 1 + 67)
    white = b"XYZ \0\0\0\0" + b"".join(struct.pack(">i", round(v * 65536)) for v in (0.9642, 1.0, 0.8249))
    tags = [(b"desc", name), (b"wtpt", white), (b"cprt", b"text\0\0\0\0none" + bytes(4)), (b"A2B0", a2b)]
    offset, index, body = 132 + 12 * len(tags), b"", b""
    for tag, data in tags:
        index += tag + struct.pack(">II", offset + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    head = struct.pack(">I4xI4s4s4s12x4s", offset + len(body), 0x02100000, b"prtr", b"CMYK", b"Lab ", b"acsp")
    head += bytes(68 - len(head)) + white[8:]
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + index + body


# The primaries of Adobe RGB (1998) under D50, as in its specification.
WIDE = matrix_profile(
    [(0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457)], 2.19921875
)
DARK_GREY = matrix_profile([], 3.0)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_wide_gamut_profile_is_converted_to_srgb(kind: str) -> None:
    options = {"quality": 95} if kind in ("JPEG", "WEBP") else {}
    plain = file_of(Image.new("RGB", (32, 24), (120, 160, 110)), kind, **options)
    wide = file_of(Image.new("RGB", (32, 24), (120, 160, 110)), kind, icc_profile=WIDE, **options)
    np.testing.assert_allclose(decode(plain).pixels[12, 16], (120, 160, 110), atol=3)
    # By the matrices of the two spaces: the same numbers are a stronger green in Adobe RGB.
    np.testing.assert_allclose(decode(wide).pixels[12, 16], (99, 161, 108), atol=4)


def test_greys_keep_their_place_under_a_profile_of_another_gamut() -> None:
    image = Image.new("RGB", (8, 8), (128, 128, 128))
    r, g, b = decode(file_of(image, icc_profile=WIDE)).pixels[4, 4].astype(int)
    assert max(r, g, b) - min(r, g, b) <= 1


def test_a_grey_picture_with_a_profile_of_its_own_is_converted() -> None:
    pixels = decode(file_of(Image.new("L", (8, 8), 128), icc_profile=DARK_GREY)).pixels
    assert pixels.shape == (8, 8, 3)
    # 0.502 to the power of 3 is 0.126 of the light, and sRGB writes that as 99.
    np.testing.assert_allclose(pixels[4, 4], 99, atol=2)


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_inks_are_converted_by_the_profile_of_the_file(kind: str) -> None:
    # The Lab of sRGB's red: by its name this ink would come out as cyan, by its profile it is red.
    options = {"quality": 95} if kind == "JPEG" else {}
    image = Image.new("CMYK", (48, 32), (255, 0, 0, 0))
    image.paste((0, 0, 0, 0), (16, 0, 32, 32))
    image.paste((0, 0, 0, 255), (32, 0, 48, 32))
    np.testing.assert_allclose(decode(file_of(image, kind, **options)).pixels[16, 8], (0, 255, 255), atol=4)
    pixels = decode(file_of(image, kind, icc_profile=ink_profile((54.29, 80.8, 69.9)), **options)).pixels
    np.testing.assert_allclose(pixels[16, 8], (255, 0, 0), atol=6)
    np.testing.assert_allclose(pixels[16, 24], 255, atol=4)
    np.testing.assert_allclose(pixels[16, 40], 0, atol=4)


def test_an_srgb_profile_changes_nothing() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    pixels = decode(file_of(Image.fromarray(colour_chart()), icc_profile=profile)).pixels
    np.testing.assert_array_equal(pixels, colour_chart())


def test_transparency_and_a_profile_go_together() -> None:
    rgba = np.zeros((10, 10, 4), np.uint8)
    rgba[:, 5:] = (120, 160, 110, 255)
    pixels = decode(file_of(Image.fromarray(rgba), icc_profile=WIDE)).pixels
    np.testing.assert_allclose(pixels[5, 2], 255, atol=1)
    np.testing.assert_allclose(pixels[5, 8], (99, 161, 108), atol=4)


@pytest.mark.parametrize("mode", ["RGB", "CMYK", "L"])
@pytest.mark.parametrize("profile", [b"x" * 400, WIDE[:200], WIDE[:128] + bytes(400), DARK_GREY, WIDE])
def test_a_profile_of_no_use_does_not_spoil_the_picture(mode: str, profile: bytes) -> None:
    image = Image.new(mode, (16, 8), 200 if mode == "L" else (200,) * len(mode))
    assert decode(file_of(image, "JPEG", icc_profile=profile)).pixels.shape == (8, 16, 3)


@pytest.mark.parametrize("options", [{"subsampling": 0}, {"subsampling": 1}, {"subsampling": 2}, {"progressive": True}])
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize(("size", "step"), [((701, 533), 1), ((4033, 1203), 2)])
def test_a_jpeg_has_the_samples_that_pillow_reads(
    mode: str, options: dict[str, Any], size: tuple[int, int], step: int
) -> None:
    grain = np.random.default_rng(5).integers(0, 256, (size[1] // 3, size[0] // 3, 3), np.uint8)
    image = Image.fromarray(grain).resize(size, Image.Resampling.BICUBIC).convert(mode)
    data = file_of(image, "JPEG", quality=90, **options)
    with Image.open(io.BytesIO(data)) as known:
        known.draft(None, (size[0] // step, size[1] // step))
        expected = np.asarray(known.convert("RGB"))[: size[1] // step, : size[0] // step]
    np.testing.assert_array_equal(decode(data).pixels, expected)


# --- orientation and size ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_comes_out_upright(kind: str, orientation: int) -> None:
    undo: dict[int, Callable[[U8], U8]] = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }
    stored = np.ascontiguousarray(undo[orientation](colour_chart()))
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = decode(file_of(Image.fromarray(stored), kind, exif=exif))
    assert picture.source == (64, 48)
    assert picture.pixels.shape == (48, 64, 3)
    np.testing.assert_allclose(quarters(picture.pixels), quarters(colour_chart()), atol=8)


@pytest.mark.filterwarnings("ignore")
def test_broken_exif_does_not_spoil_a_good_picture() -> None:
    data = file_of(Image.fromarray(colour_chart()), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xffgarbage")
    assert decode(data).source == (64, 48)


@pytest.mark.parametrize(
    ("size", "working"),
    [
        ((4032, 3024), (2016, 1512)),
        ((4033, 3023), (2016, 1511)),
        ((8064, 6048), (2016, 1512)),
        ((3000, 40), (2048, 28)),
    ],
)
def test_a_large_jpeg_is_decoded_at_a_fraction_of_its_size(size: tuple[int, int], working: tuple[int, int]) -> None:
    picture = decode(file_of(Image.new("RGB", size, (90, 120, 200)), "JPEG"))
    assert picture.source == size
    assert picture.pixels.shape[1::-1] == working


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize(
    ("size", "kind"), [((4033, 3023), "JPEG"), ((2500, 1700), "JPEG"), ((2901, 1203), "PNG"), ((700, 900), "PNG")]
)
def test_the_geometry_maps_working_and_canvas_pixels_back_to_the_source(
    size: tuple[int, int], kind: str, orientation: int
) -> None:
    width, height = size
    x, y = width * 0.71, height * 0.34
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(blob(width, height, x, y, max(size) / 60))
    picture = decode(file_of(image, kind, exif=exif, **({"quality": 95} if kind == "JPEG" else {})))
    if orientation == 6:  # the raster was turned clockwise: rows became columns from the right
        x, y = height - 1 - y, x
        width, height = height, width
    canvas, ratio = pictures.canvas_of(picture)
    geometry = pictures.geometry_of(picture, ratio)
    np.testing.assert_array_equal(geometry[:2], (width, height))
    on_canvas = canvas[0, : round(height / ratio[1]), : round(width / ratio[0])]
    for raster, (rx, ry) in ((picture.pixels[..., 0], geometry[4:]), (on_canvas, geometry[2:4])):
        col, row = centroid(np.where(raster > 24, raster, 0))
        assert (col + 0.5) * rx - 0.5 == pytest.approx(x, abs=0.06 * rx)
        assert (row + 0.5) * ry - 0.5 == pytest.approx(y, abs=0.06 * ry)


@pytest.mark.parametrize("size", [(1083, 924), (1801, 1201), (2901, 1203)])
def test_a_picture_that_cannot_be_halved_reaches_the_canvas_as_averages_of_its_areas(size: tuple[int, int]) -> None:
    image = Image.fromarray(np.random.default_rng(6).integers(0, 256, (size[1], size[0], 3), np.uint8))
    canvas, _ = pictures.canvas_of(decode(file_of(image)))
    w, h = (round(side * 512 / max(size)) for side in size)
    averages = np.asarray(image.resize((w, h), Image.Resampling.BOX))
    difference = np.abs(canvas[:, :h, :w].transpose(1, 2, 0).astype(int) - averages)
    assert difference.mean() < 12  # between neighbours alone: 25 to 40


def test_the_canvas_holds_the_whole_picture_at_its_top_left() -> None:
    canvas, ratio = pictures.canvas_of(decode(file_of(Image.fromarray(colour_chart(64, 48)))))
    assert canvas.shape == (3, 512, 512)
    assert ratio == (64 / 512, 48 / 384)
    np.testing.assert_array_equal(canvas[:, 384:], 127)
    np.testing.assert_allclose(quarters(canvas[:, :384].transpose(1, 2, 0)), quarters(colour_chart()), atol=1)


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (2, 2)])
def test_the_smallest_pictures_decode(size: tuple[int, int]) -> None:
    for kind in ("PNG", "JPEG"):
        picture = decode(file_of(Image.new("RGB", size, (10, 20, 30)), kind))
        assert pictures.canvas_of(picture)[0].shape == (3, 512, 512)


@pytest.mark.parametrize("kind", pictures.FORMATS)
def test_there_is_a_sample_of_every_format_to_warm_up_with(kind: str) -> None:
    assert decode(pictures.sample(kind)).source == (640, 480)


# --- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"", "empty"),
        (b"hello", "not a picture"),
        (bytes(1000), "not a picture"),
        (b"\0\0\0\x18ftypheic" + bytes(40), "HEIC"),
        (b"\0\0\0\x18ftypavif" + bytes(40), "AVIF"),
        (b"GIF89a" + bytes(40), "GIF"),
        (b"%PDF-1.7", "PDF"),
        (b"<svg xmlns='x'/>", "text"),
        (b"https://example.org/a.jpg", "address"),
        (b"/9j/4AAQSkZJRgABAQAAAQABAAD", "base64"),
        (b"data:image/png;base64,iVBORw0KGgo", "base64"),
        (b"\xff\xd8\xff\xe0", "truncated"),
        (b"\x89PNG\r\n\x1a\n", "truncated"),
    ],
)
def test_what_is_not_a_picture_is_refused_by_name(data: bytes, word: str) -> None:
    tag, sentence = refusal(data)
    assert tag == "BadImage"
    assert word in sentence
    assert sentence.endswith(".")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "TIFF"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
@pytest.mark.filterwarnings("ignore")
def test_a_truncated_picture_is_refused(kind: str, share: float) -> None:
    noise = np.random.default_rng(5).integers(0, 255, (200, 300, 3), np.uint8)
    data = file_of(Image.fromarray(noise), kind)
    assert refusal(data[: int(len(data) * share)])[0] == "BadImage"


def test_too_many_bytes_are_refused_before_they_are_looked_at() -> None:
    tag, sentence = refusal(bytes(2 << 20), pictures.Limits(max_bytes=1 << 20))
    assert tag == "ImageTooLarge"
    assert "2.0 MiB" in sentence
    assert "1 MiB" in sentence


def png_of(width: int, height: int, rows: bytes, depth: int = 8, colour: int = 0) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


BOMBS = {
    "png": png_of(20_000, 20_000, b""),
    "bmp": b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 20_000, 20_000, 1, 24, 0, 0, 0, 0, 0, 0),
    "jpeg": b"\xff\xd8\xff\xc0\0\x11\x08"
    + struct.pack(">HH", 20_000, 20_000)
    + b"\3\1\x22\0\2\x11\1\3\x11\1\xff\xda\0\2",
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_huge_picture_is_refused_by_its_header(kind: str) -> None:
    tag, sentence = refusal(BOMBS[kind])
    assert tag == "ImageTooLarge"
    # A JPEG is decoded at an eighth of its size.
    assert f"megapixels and the limit is {268 if kind == 'jpeg' else 65}" in sentence


@pytest.mark.parametrize("kind", [kind for kind in pictures.FORMATS if kind != "HEIF"])
def test_the_limit_on_pixels_counted_models_every_format(kind: str) -> None:
    tag, sentence = refusal(file_of(Image.new("RGB", (2000, 1500)), kind), pictures.Limits(max_pixels=2_000_000))
    assert tag == "ImageTooLarge"
    assert "has 3 megapixels and the limit is 2" in sentence


def test_pillow_s_own_limit_is_reported_as_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    for pixels in (40, 80):  # its error at twice the limit, its warning above
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", pixels)
        assert refusal(file_of(Image.new("RGB", (10, 10))))[0] == "ImageTooLarge"


@pytest.mark.filterwarnings("ignore")
def test_mutated_files_are_decoded_or_refused_and_nothing_else() -> None:
    random = np.random.default_rng(11)
    chart = Image.fromarray(np.repeat(np.repeat(colour_chart(), 3, 0), 3, 1))
    for kind in ("PNG", "JPEG", "WEBP", "BMP", "TIFF"):
        data = np.frombuffer(file_of(chart, kind), np.uint8)
        for _ in range(60):
            broken = data.copy()
            at = random.integers(0, len(data), random.integers(1, 12))
            broken[at] = random.integers(0, 256, len(at), np.uint8)
            with contextlib.suppress(pictures.BadPicture):
                assert max(decode(broken.tobytes()).pixels.shape[:2]) <= 2048
