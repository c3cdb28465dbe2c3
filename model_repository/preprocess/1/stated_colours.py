"""The colours that a file states without an ICC profile: PNG, HEIC and AVIF, BMP, TIFF, and the EXIF of cameras.

Everything ends as an ICC profile, so that one path converts it (colour.py).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

import bmff_structure
import icc
import numpy as np
from PIL import Image
from refusals import unsupported

_CALIBRATED, _EMBEDDED, _SRGB, _WINDOWS = 0, 0x4D424544, 0x73524742, 0x57696E20
# The exponents that make sense: from a linear picture to twice that of any display.
_LEAST, _MOST = 0.3, 5.0
# gAMA of 45,455 stands beside the pixels of sRGB, whose curve it comes close to.
_LIKE_SRGB = (0.4495, 0.4596)
# TIFF: WhitePoint, PrimaryChromaticities.
_WHITE, _PRIMARIES = 318, 319


def profile_of(image: Image.Image, data: bytes) -> bytes | None:
    """Build the profile that a file states by other means than a profile; None where it states nothing but sRGB.

    Args:
        image: opened, not decoded.
        data: the file.

    Raises:
        BadPicture: colours that are stated and not served.
    """
    match image.format:
        case "PNG":
            return _png(image, data)
        case "HEIF" | "AVIF":
            return _by_numbers(*bmff_structure.colours(data))
        case "BMP":
            return _bmp(data)
        case "TIFF":
            return _tiff(getattr(image, "tag_v2", {}))
        case _:
            return None


def has_priority(image: Image.Image, data: bytes) -> bool:
    """Return whether the file states colours that count more than its profile: cICP of a PNG."""
    return image.format == "PNG" and _chunk(data, b"cICP") is not None


def adobe_rgb() -> bytes:
    """Return the profile of cameras that state Adobe RGB by EXIF's interoperability index R03 (DCF 2.0)."""
    return icc.profile(icc.ADOBE_RGB, icc.power(icc.ADOBE_RGB_GAMMA))


def _png(image: Image.Image, data: bytes) -> bytes | None:
    """Read cICP, then (a profile, then) sRGB, then gAMA: PNG specification, third edition, section 4.3."""
    coded = _chunk(data, b"cICP")
    if coded is not None and len(coded) == 4:
        if coded[2] or not coded[3]:
            raise unsupported("a PNG of video samples (YCbCr, or of narrow range)")
        return _by_numbers(coded[0], coded[1])
    if "srgb" in image.info:
        return None
    gamma, points = image.info.get("gamma"), image.info.get("chromaticity")
    if gamma is None and points is None:
        return None
    light = icc.srgb()
    if gamma and not _LIKE_SRGB[0] <= gamma <= _LIKE_SRGB[1] and _LEAST <= 1 / gamma <= _MOST:
        light = icc.power(1 / gamma)
    return _made(_white_last(points) if points else icc.BT709, light)


def _white_last(points: tuple[float, ...]) -> icc.Chromaticities:
    white_x, white_y, *rest = points
    return (*rest, white_x, white_y)  # type: ignore[return-value]  # eight numbers


def _by_numbers(primaries: int, transfer: int) -> bytes | None:
    """Build the profile of ITU-T H.273's numbers; 2 is for what is not stated."""
    points, light = icc.PRIMARIES.get(primaries), icc.curve(transfer)
    if points is None and light is None:
        return None
    return _made(points or icc.BT709, icc.srgb() if light is None else light)


def _bmp(data: bytes) -> bytes | None:
    """Read BITMAPV4HEADER and BITMAPV5HEADER: chromaticities and gamma, or a profile."""
    header = struct.unpack_from("<I", data, 14)[0]
    if header < 108 or len(data) < 14 + header:
        return None
    space = struct.unpack_from("<I", data, 70)[0]
    if space == _EMBEDDED and header >= 124:
        place, size = struct.unpack_from("<II", data, 14 + 112)
        return data[14 + place : 14 + place + size]
    if space != _CALIBRATED:
        return None
    ends = np.array(struct.unpack_from("<9I", data, 74), np.float64).reshape(3, 3) / 2**30
    gammas = np.array(struct.unpack_from("<3I", data, 110), np.float64) / 2**16
    if not ends.any() or not (ends.sum(1) > 0).all():
        return None
    points = (ends[:, :2] / ends.sum(1, keepdims=True)).ravel().tolist()
    white = ends.sum(0)
    exponent = float(gammas.mean())
    light = icc.power(exponent) if _LEAST <= exponent <= _MOST else icc.srgb()
    return _made((*points, white[0] / white.sum(), white[1] / white.sum()), light)


def _tiff(tags: Mapping[int, Any]) -> bytes | None:
    """Read WhitePoint and PrimaryChromaticities; the curve is that of sRGB, as there is none by default."""
    points, white = tags.get(_PRIMARIES), tags.get(_WHITE)
    if points is None or white is None or len(points) != 6 or len(white) != 2:
        return None
    return _made(tuple(float(value) for value in (*points, *white)), icc.srgb())


def _made(points: Any, light: Any) -> bytes | None:
    try:
        return icc.profile(points, light)
    except (ValueError, ZeroDivisionError, OverflowError):
        return None  # colours that cannot be meant are no reason to refuse a picture


def _chunk(data: bytes, name: bytes) -> bytes | None:
    """Return the content of a chunk before a PNG's pixels."""
    position = 8
    while position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        if kind == name:
            return data[position + 8 : position + 8 + length]
        if kind in (b"IDAT", b"IEND"):
            return None
        position += 12 + length
    return None
