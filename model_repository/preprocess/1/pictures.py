"""From the bytes of a picture file to an upright RGB picture of bounded size, and to the detector's canvas.

Nothing is decoded before the header was looked at: a file that is too large, or that claims more pixels than the
limit, is refused without allocating them. Whatever a decoder says about a damaged file leaves here as a
:class:`BadPicture` with one sentence for the person who sent it.

Coordinates: *source pixels* are those of the upright (EXIF-rotated) picture at its full size, pixel centres at
integers, x right, y down. A raster that is r times smaller maps by X = (x + 0.5) * r - 0.5.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, UnidentifiedImageError

U8 = NDArray[np.uint8]

# Pillow can open some forty formats; every decoder that is not needed is one that cannot be attacked.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
CANVAS = 512
CANVAS_GREY = 127
WORKING_SIDE = 2048
# A JPEG may be decoded at 1/2, 1/4 or 1/8 (the DCT does it for nothing) as long as this much is left of its long
# side: 1600 takes in the 8 and 12 megapixel pictures of telephones (3264 / 2, 4032 / 2), which just miss 2048.
SMALLEST_SCALED_SIDE = 1600
# Decoded pictures beyond this many pixels are handled one at a time, so that a batch of huge ones cannot add up.
LARGE_PICTURE = 16_000_000
# What a viewer shows behind a transparent picture.
PAPER = (255, 255, 255)

# Profiles of printers have 0.5 to 2 MiB; those of cameras and screens a few hundred bytes.
LARGEST_PROFILE = 4 << 20

_SEND = "send a JPEG, PNG, WebP, BMP or TIFF file"
_MAGICS = (b"\xff\xd8\xff", b"\x89PNG", b"RIFF", b"BM", b"II*\0", b"MM\0*")
_FOREIGN = (
    (lambda head: head[4:8] == b"ftyp" and head[8:12] in (b"avif", b"avis"), "an AVIF picture"),
    (lambda head: head[4:8] == b"ftyp", "a HEIC picture or a video"),
    (lambda head: head[:4] == b"GIF8", "a GIF picture"),
    (lambda head: head[:4] == b"%PDF", "a PDF document"),
    (lambda head: head.lstrip()[:4].lower() in (b"<svg", b"<?xm", b"<!do", b"<htm"), "a text document"),
    (lambda head: head[:5] in (b"http:", b"https"), "an address"),
    (lambda head: head.startswith((b"data:", b"/9j/", b"iVBORw0KGgo", b"UklGR")), "a picture as base64 text"),
)  # type: tuple[tuple[Callable[[bytes], bool], str], ...]

# EXIF orientation -> what brings the stored raster upright.
_UPRIGHT: dict[int, Callable[[U8], U8]] = {
    2: lambda a: _u8(cv2.flip(a, 1)),
    3: lambda a: _u8(cv2.rotate(a, cv2.ROTATE_180)),
    4: lambda a: _u8(cv2.flip(a, 0)),
    5: lambda a: _u8(cv2.transpose(a)),
    6: lambda a: _u8(cv2.rotate(a, cv2.ROTATE_90_CLOCKWISE)),
    7: lambda a: _u8(cv2.rotate(cv2.transpose(a), cv2.ROTATE_180)),
    8: lambda a: _u8(cv2.rotate(a, cv2.ROTATE_90_COUNTERCLOCKWISE)),
}
_ORIENTATION_TAG = 0x0112
# OpenCV's words for a JPEG at 1/step of its size; turning it is done here, for all formats.
_READ_JPEG = {
    step: flag | cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    for step, flag in {
        1: cv2.IMREAD_COLOR,
        2: cv2.IMREAD_REDUCED_COLOR_2,
        4: cv2.IMREAD_REDUCED_COLOR_4,
        8: cv2.IMREAD_REDUCED_COLOR_8,
    }.items()
}
_one_large_picture = threading.Lock()


class BadPicture(Exception):
    """A picture that is refused.

    Attributes:
        tag: ``BadImage`` or ``ImageTooLarge``, the name of the client's exception.
    """

    def __init__(self, tag: str, sentence: str) -> None:
        super().__init__(sentence)
        self.tag = tag


@dataclass(frozen=True)
class Limits:
    """What is refused from the header. Bytes of the file, pixels of the picture."""

    max_bytes: int = 32 << 20
    max_pixels: int = 65_000_000


@dataclass(frozen=True)
class Picture:
    """A decoded picture.

    Attributes:
        pixels: uint8 [h, w, 3] RGB, upright, long side <= WORKING_SIDE.
        source: (width, height) in source pixels.
        ratio: (x, y) source pixels per pixel of ``pixels``.
    """

    pixels: U8
    source: tuple[int, int]
    ratio: tuple[float, float]


def decode(data: bytes, limits: Limits) -> Picture:
    """Decode the bytes of a picture file.

    The first frame of an animation counts. 16-bit samples are scaled to 8, transparency is laid on white paper. Colours
    are converted to sRGB where the file has a profile that says otherwise.

    Raises:
        BadPicture: nothing, not a picture, an unsupported format, damaged or truncated (``BadImage``); beyond the
            limits (``ImageTooLarge``).
    """
    if not data:
        raise BadPicture("BadImage", f"the picture is empty (0 bytes): {_SEND}.")
    if len(data) > limits.max_bytes:
        raise BadPicture(
            "ImageTooLarge",
            f"the file has {len(data) / 2**20:.1f} MiB and the limit is {limits.max_bytes / 2**20:g} MiB: "
            "send a smaller or more compressed picture.",
        )
    try:
        with Image.open(BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
            if width * height > limits.max_pixels:
                raise _too_many_pixels(width * height, limits)
            if width * height <= LARGE_PICTURE:
                return _decode(image, data)
            with _one_large_picture:
                return _decode(image, data)
    except BadPicture:
        raise
    except UnidentifiedImageError:
        raise _unknown(data[:64]) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_many_pixels(int("".join(re.findall(r"\((\d+) pixels", str(error))) or 0), limits) from None
    except Exception as error:
        # Decoders raise nearly anything on hostile bytes (OSError, SyntaxError, struct.error, KeyError, ...).
        raise BadPicture(
            "BadImage", f"the picture is damaged or truncated and cannot be decoded ({_brief(error)}): send it again."
        ) from None


def sample(kind: str) -> bytes:
    """A small file of one of FORMATS, for warming up."""
    buffer = BytesIO()
    Image.linear_gradient("L").convert("RGB").resize((640, 480)).save(buffer, kind)
    return buffer.getvalue()


def canvas_of(picture: Picture) -> tuple[U8, tuple[float, float]]:
    """The detector's input: the whole picture scaled (down or up) to a long side of CANVAS, at the top left.

    Returns:
        uint8 [3, CANVAS, CANVAS] RGB, the rest grey; and (x, y) source pixels per canvas pixel.
    """
    width, height = picture.source
    w, h = _fit(width, height, CANVAS)
    scaled = _scaled(picture.pixels, (w, h))
    framed = cv2.copyMakeBorder(scaled, 0, CANVAS - h, 0, CANVAS - w, cv2.BORDER_CONSTANT, value=(CANVAS_GREY,) * 3)
    canvas = np.empty((3, CANVAS, CANVAS), np.uint8)
    cv2.split(framed, list(canvas))  # a tenth of the time of a transposed copy
    rows, cols = picture.pixels.shape[:2]
    return canvas, (picture.ratio[0] * cols / w, picture.ratio[1] * rows / h)


def geometry_of(picture: Picture, canvas_ratio: tuple[float, float]) -> NDArray[np.float32]:
    """float32 [6]: source width and height; source pixels per canvas pixel x, y; per working pixel x, y."""
    return np.array([*picture.source, *canvas_ratio, *picture.ratio], np.float32)


def _decode(image: Image.Image, data: bytes) -> Picture:
    width, height = image.size
    # A TIFF is turned by its own plugin while it loads, and then has no orientation left.
    orientation = 1 if image.format == "TIFF" else _orientation(image)
    step = _draft(image, orientation)
    raster = _jpeg(image, data, step)
    if raster is None:
        image.load()
    profile = _profile(image)
    # The reduction keeps a last, partial pixel; without it the ratio is exactly `step` everywhere.
    whole = image.size if step == 1 else (max(1, width // step), max(1, height // step))
    # Multiples of 4, so that the canvas comes out of exact halves.
    w, h = _fit(*whole, WORKING_SIDE, 4) if max(whole) > WORKING_SIDE else whole
    ratio_x, ratio_y = step * whole[0] / w, step * whole[1] / h
    if raster is None:
        pixels = _rgb(image if image.size == whole else image.crop((0, 0, *whole)), profile, (w, h))
    else:
        pixels = _coloured(_scaled(raster[: whole[1], : whole[0]], (w, h)), profile, image.mode)
    if orientation in _UPRIGHT:
        pixels = _UPRIGHT[orientation](pixels)
    if orientation >= 5:
        width, height, ratio_x, ratio_y = height, width, ratio_y, ratio_x
    return Picture(np.ascontiguousarray(pixels), (width, height), (ratio_x, ratio_y))


def _draft(image: Image.Image, orientation: int) -> int:
    """Ask a JPEG decoder for a reduced picture; returns the reduction: 1, 2, 4 or 8."""
    width, height = image.size
    if image.format not in ("JPEG", "MPO"):
        return 1
    for step in (8, 4, 2):
        # In a turned picture a partial pixel would stand before the first one instead of after the last.
        whole = orientation == 1 or (width % step == 0 and height % step == 0)
        if whole and max(width, height) // step >= SMALLEST_SCALED_SIDE:
            image.draft(None, (width // step or 1, height // step or 1))
            return round(max(width, height) / max(image.size))
    return 1


def _jpeg(image: Image.Image, data: bytes, step: int) -> U8 | None:
    """The samples of a JPEG file at 1/``step`` of its size, uint8 [h, w, 3] RGB; None where Pillow shall decode it.

    OpenCV calls the same library and gets the same samples, but writes them where they stay; Pillow copies them twice
    more. Pillow has read the header already, and finds the sentence for what OpenCV cannot decode. Only Pillow minds
    errors that show after the last row.
    """
    if image.format not in ("JPEG", "MPO") or image.mode not in ("RGB", "L"):
        return None
    try:
        raster: U8 | None = cv2.imdecode(np.frombuffer(data, np.uint8), _READ_JPEG[step])  # type: ignore[assignment]
    except cv2.error:
        return None
    return raster if raster is not None and raster.shape == (image.height, image.width, 3) else None


def _rgb(image: Image.Image, profile: ImageCms.ImageCmsProfile | None, size: tuple[int, int]) -> U8:
    """The picture that Pillow has decoded, as uint8 [h, w, 3], scaled to ``size`` (w, h) where that differs."""
    mode = image.mode
    if mode.startswith("I") or mode == "F":
        return np.repeat(_scaled(_eight_bits(np.asarray(image)), size)[:, :, None], 3, axis=2)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        if image.size != size:  # scaled by Pillow, which weighs colours by their opacity
            image = image.resize(size, Image.Resampling.HAMMING, reducing_gap=2.0)
        image = Image.alpha_composite(Image.new("RGBA", size, (*PAPER, 255)), image)
    # Inks have four channels and are converted as they are; everything else after it was made small.
    if profile is not None and (profile.profile.xcolor_space, mode) == ("CMYK", "CMYK"):
        image, profile = _in_srgb(image, profile), None
    if image.mode != "RGB":  # a picture that is converted to its own mode is copied
        image = image.convert("RGB")
    return _coloured(_scaled(np.asarray(image), size), profile, mode)


def _coloured(pixels: U8, profile: ImageCms.ImageCmsProfile | None, mode: str) -> U8:
    """The samples as sRGB; ``mode`` is that of the file."""
    space = "" if profile is None else profile.profile.xcolor_space
    if profile is not None and space == "RGB ":
        return np.asarray(_in_srgb(Image.fromarray(pixels), profile))
    if profile is not None and (space, mode) == ("GRAY", "L"):
        return np.asarray(_in_srgb(Image.fromarray(pixels[..., 0]), profile))
    return pixels


def _profile(image: Image.Image) -> ImageCms.ImageCmsProfile | None:
    """The profile of a picture whose colours are not sRGB; None for one that is, or that cannot be read."""
    data = image.info.get("icc_profile")
    if not isinstance(data, bytes) or not 128 < len(data) <= LARGEST_PROFILE:
        return None
    try:
        profile = ImageCms.ImageCmsProfile(BytesIO(data))
        return None if "sRGB" in ImageCms.getProfileDescription(profile) else profile
    except Exception:
        return None  # a profile that cannot be read is no reason to refuse a picture that can


def _in_srgb(image: Image.Image, profile: ImageCms.ImageCmsProfile) -> Image.Image:
    """The colours of a picture (RGB, L or CMYK) as sRGB; as they are if the profile is of no use."""
    try:
        transform = ImageCms.buildTransform(
            profile,
            ImageCms.createProfile("sRGB"),
            image.mode,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
        converted = ImageCms.applyTransform(image, transform)
    except Exception:
        converted = None
    return (image if converted is None else converted).convert("RGB")


def _scaled(pixels: U8, size: tuple[int, int]) -> U8:
    """Scale to ``size`` (w, h): by exact halves, which is quick, and by less than two between neighbours.

    A picture that cannot be halved, as a side is odd, is first brought to a multiple of the size that can.
    """
    (rows, cols), (w, h) = pixels.shape[:2], size
    if (cols, rows) == size:
        return pixels
    if rows >= 2 * h and cols >= 2 * w:
        if rows % 2 or cols % 2:
            return _resized(_scaled(pixels, (2 * w, 2 * h)), size, cv2.INTER_AREA)
        return _scaled(_resized(pixels, (cols // 2, rows // 2), cv2.INTER_AREA), size)
    thin = rows >= 2 * h or cols >= 2 * w  # a side of a few pixels, rounded
    return _resized(pixels, size, cv2.INTER_AREA if thin else cv2.INTER_LINEAR)


def _resized(pixels: U8, size: tuple[int, int], how: int) -> U8:
    return _u8(cv2.resize(pixels, size, interpolation=how))


def _eight_bits(grey: NDArray[np.generic]) -> U8:
    """Grey values of any type to 0..255: 16-bit by 257, floats by their range (0..1 or 0..255 or 0..65535)."""
    values = np.nan_to_num(grey.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    peak = float(values.max(initial=0.0))
    if grey.dtype.itemsize == 2 or peak > 255.0:
        values /= max(257.0, peak / 255.0)
    elif grey.dtype.kind == "f" and peak <= 1.0:
        values *= 255.0
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:
        return 1  # EXIF that cannot be read is no reason to refuse a picture that can
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _fit(width: int, height: int, side: int, multiple: int = 1) -> tuple[int, int]:
    scale = side / max(width, height) / multiple
    return max(1, round(width * scale) * multiple), max(1, round(height * scale) * multiple)


def _unknown(head: bytes) -> BadPicture:
    for is_it, what in _FOREIGN:
        if is_it(head):
            return BadPicture("BadImage", f"this is {what}, which the service does not read: {_SEND}.")
    if head.startswith(_MAGICS):
        return BadPicture("BadImage", "the picture's header is damaged or truncated: send the file again.")
    return BadPicture("BadImage", f"these bytes are not a picture that the service can read: {_SEND}.")


def _too_many_pixels(pixels: int, limits: Limits) -> BadPicture:
    has = f"{pixels / 1e6:.0f} megapixels" if pixels else "too many pixels"
    return BadPicture(
        "ImageTooLarge", f"the picture has {has} and the limit is {limits.max_pixels / 1e6:.0f}: scale it down."
    )


def _brief(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:80].rstrip(". ") or type(error).__name__


def _u8(array: object) -> U8:
    """OpenCV's types say less than is known here: uint8 in, uint8 out."""
    return np.asarray(array, dtype=np.uint8)
