"""`preprocess`: colours that a file states, by a profile whatever its name, or by other means, come out as sRGB."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms, TiffImagePlugin

from tests.model_repository.test_pictures import LIMITS, colour_chart, decode, file_of, pictures, quarters
from tests.model_repository.tiff_files import Page, written
from tests.model_repository.version_folder import load

icc = load("preprocess", "icc")
WANTED = np.array(quarters(colour_chart()))


def light(samples: NDArray[Any]) -> NDArray[np.float64]:
    x = samples / 255.0
    return np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)


def chart_by(exponent: float) -> NDArray[np.uint8]:
    """The chart with samples that are light to the power of 1 / ``exponent``."""
    return np.asarray(np.rint(255 * light(colour_chart()) ** (1 / exponent)), np.uint8)


def with_chunk(png: bytes, name: bytes, content: bytes) -> bytes:
    """A PNG with one more chunk behind its header."""
    chunk = struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
    return png[:33] + chunk + png[33:]


def off(data: bytes) -> int:
    """The largest difference to the chart, in levels."""
    return int(np.abs(np.array(quarters(decode(data).pixels)) - WANTED).max())


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
@pytest.mark.parametrize("exponent", [1.0, 1.8, 2.6])
def test_a_profile_is_judged_by_its_curve_and_not_by_its_name(kind: str, exponent: float) -> None:
    profile = icc.profile(icc.BT709, icc.power(exponent)).replace(b"stated by the file", b"sRGB IEC61966-2.1 ")
    assert "sRGB" in ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(profile)))
    every: dict[str, dict[str, Any]] = {"JPEG": {"quality": 98, "subsampling": 0}, "WEBP": {"lossless": True}}
    options = every.get(kind, {})
    data = file_of(Image.fromarray(chart_by(exponent)), kind, icc_profile=profile, **options)
    assert off(data) <= (10 if kind == "JPEG" else 5), "a level of a dark linear sample is four of sRGB"


def test_a_profile_of_another_name_that_is_srgb_changes_nothing() -> None:
    profile = icc.profile(icc.BT709, icc.srgb())
    data = file_of(Image.fromarray(colour_chart()), icc_profile=profile)
    np.testing.assert_array_equal(decode(data).pixels, colour_chart())


@pytest.mark.parametrize("gamma", [1.0, 1 / 1.8, 1 / 2.6])
def test_the_gamma_of_a_png_counts(gamma: float) -> None:
    png = file_of(Image.fromarray(chart_by(1 / gamma)))
    stated = with_chunk(png, b"gAMA", struct.pack(">I", round(gamma * 100_000)))
    assert off(png) > 12
    assert off(stated) <= 5
    assert off(with_chunk(stated, b"sRGB", b"\0")) > 12, "sRGB stands above gAMA"


def test_the_gamma_of_a_grey_png_in_sixteen_bits_counts() -> None:
    linear = np.tile(np.rint(65_535 * light(np.arange(256))).astype(np.uint16), (4, 1))
    stated = with_chunk(file_of(Image.fromarray(linear)), b"gAMA", struct.pack(">I", 100_000))
    np.testing.assert_allclose(decode(stated).pixels[1, 40:, 0], np.arange(40, 256), atol=4)


def test_the_chromaticities_of_a_png_count() -> None:
    wide = (31_270, 32_900, 68_000, 32_000, 26_500, 69_000, 15_000, 6_000)  # Display P3
    png = file_of(Image.fromarray(colour_chart()))
    pixels = np.array(quarters(decode(with_chunk(png, b"cHRM", struct.pack(">8I", *wide))).pixels))
    assert pixels[0, 0] > WANTED[0, 0]
    profile = icc.profile(icc.PRIMARIES[12], icc.srgb())
    np.testing.assert_allclose(
        pixels, quarters(decode(file_of(Image.fromarray(colour_chart()), icc_profile=profile)).pixels), atol=2
    )


@pytest.mark.parametrize(("transfer", "exponent"), [(8, 1.0), (4, 2.2), (5, 2.8)])
def test_the_code_points_of_a_png_stand_above_its_profile(transfer: int, exponent: float) -> None:
    another = icc.profile(icc.PRIMARIES[9], icc.power(1.2))
    png = file_of(Image.fromarray(chart_by(exponent)), icc_profile=another)
    assert off(png) > 15
    assert off(with_chunk(png, b"cICP", bytes((1, transfer, 0, 1)))) <= 5


@pytest.mark.parametrize("transfer", [16, 18])
def test_a_larger_range_is_brought_to_that_of_screens(transfer: int) -> None:
    ramp = np.repeat(np.tile(np.arange(256, dtype=np.uint8), (8, 1))[..., None], 3, 2)
    pixels = decode(with_chunk(file_of(Image.fromarray(ramp)), b"cICP", bytes((9, transfer, 0, 1)))).pixels[4, :, 1]
    assert (np.diff(pixels.astype(int)) >= 0).all()
    assert (pixels[0], pixels[-1]) == (0, 255)
    white = 148 if transfer == 16 else 191  # 203 cd/m2 of PQ; 75 % of HLG
    assert pixels[white] >= 252 > pixels[white - 12]


def test_samples_of_video_in_a_png_are_named() -> None:
    png = with_chunk(file_of(Image.fromarray(colour_chart())), b"cICP", bytes((9, 16, 9, 0)))
    with pytest.raises(pictures.BadPicture, match="video samples"):
        pictures.decode(png, LIMITS)


def test_the_numbers_of_an_avif_count() -> None:
    avif = file_of(Image.fromarray(chart_by(1.0)), "AVIF", quality=100, subsampling="4:4:4")
    at = avif.index(b"colrnclx") + 8
    assert avif[at : at + 4] == b"\0\1\0\x0d", "BT.709, sRGB"
    assert off(avif) > 60
    assert off(avif[: at + 2] + b"\0\x08" + avif[at + 4 :]) <= 20, "a level of a dark linear sample is four of sRGB"


def test_the_colours_of_a_bmp_count() -> None:
    plain = file_of(Image.fromarray(chart_by(1.0)), "BMP")
    ends = [round(value * 2**30) for value in (0.64, 0.33, 0.03, 0.30, 0.60, 0.10, 0.15, 0.06, 0.79)]
    white = icc.BT709[6:]
    amounts = np.linalg.solve(
        np.array(ends).reshape(3, 3).T / 2**30, [white[0] / white[1], 1, (1 - sum(white)) / white[1]]
    )
    ends = [round(e * a / amounts.max()) for e, a in zip(ends, np.repeat(amounts, 3), strict=True)]
    header = struct.pack("<I", 108) + plain[18:54] + bytes(16) + struct.pack("<I9I3I", 0, *ends, *[1 << 16] * 3)
    assert len(header) == 108
    file = b"BM" + struct.pack("<IHHI", 122 + len(plain) - 54, 0, 0, 122) + header + plain[54:]
    assert off(file) <= 5
    profile = icc.profile(icc.BT709, icc.power(1.0))
    header = (
        struct.pack("<I", 124)
        + plain[18:54]
        + bytes(16)
        + b"DEBM"
        + bytes(48)
        + struct.pack("<IIII", 4, 124 + len(plain) - 54, len(profile), 0)
    )
    assert len(header) == 124
    file = b"BM" + struct.pack("<IHHI", 138 + len(plain) - 54, 0, 0, 138) + header + plain[54:] + profile
    assert off(file) <= 5


def test_a_camera_s_adobe_rgb_counts_without_a_profile() -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA001] = 0xFFFF
    block = b"Exif\0\0" + struct.pack("<2sHI", b"II", 42, 8)
    block += struct.pack("<HHHIII", 1, 0x8769, 4, 1, 26, 0)  # IFD0 at 8: EXIF at 26
    block += struct.pack("<HHHIII", 1, 0xA005, 4, 1, 44, 0)  # EXIF: interoperability at 44
    block += struct.pack("<HHHI4sI", 1, 1, 2, 4, b"R03\0", 0)
    options: dict[str, Any] = {"quality": 98, "subsampling": 0}
    stated = decode(file_of(Image.fromarray(colour_chart()), "JPEG", exif=block, **options)).pixels
    profile = icc.profile(icc.ADOBE_RGB, icc.power(icc.ADOBE_RGB_GAMMA))
    profiled = decode(file_of(Image.fromarray(colour_chart()), "JPEG", icc_profile=profile, **options)).pixels
    np.testing.assert_array_equal(stated, profiled)
    assert np.abs(np.array(quarters(stated)) - WANTED).max() > 15


def test_chromaticities_of_a_tiff_are_read() -> None:
    plain = file_of(Image.fromarray(colour_chart()), "TIFF")
    assert off(plain) == 0
    wide = {318: (0.3127, 0.3290), 319: (0.68, 0.32, 0.265, 0.69, 0.15, 0.06)}
    info = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, values in wide.items():
        info[tag] = values
    assert off(file_of(Image.fromarray(colour_chart()), "TIFF", tiffinfo=info)) > 15


def test_a_profile_counts_for_rare_samples_of_a_tiff_too() -> None:
    linear = light(colour_chart()).astype(np.float32)
    profile = icc.profile(icc.BT709, icc.power(1.0))
    assert off(written([Page(linear, planar=True)])) > 15
    assert off(written([Page(linear, planar=True, profile=profile)])) <= 5
