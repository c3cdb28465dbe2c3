"""From the bytes of a picture file to an upright RGB picture of bounded size, and to the detector's canvas.

Nothing is decoded before the header was looked at: a file that is too large, or that claims more pixels than the
limit, is refused without allocating them. Whatever a decoder says about a damaged file leaves here as a
:class:`BadPicture` with one sentence for the person who sent it.

Coordinates: *source pixels* are those of the upright (EXIF-rotated) picture at its full size, pixel centres at
integers, x right, y down. A raster that is r times smaller maps by X = (x + 0.5) * r - 0.5.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO

import bmp_structure
import cv2
import exif
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, UnidentifiedImageError
from refusals import SEND, BadPicture, damaged, too_many_pixels, too_much_memory
from structure import Limits, inspect

U8 = NDArray[np.uint8]

# Pillow can open some forty formats; every decoder that is not needed is one that cannot be attacked.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
CANVAS = 512
CANVAS_GREY = 127
WORKING_SIDE = 2048
# A JPEG may be decoded at 1/2, 1/4 or 1/8 (the DCT does it for nothing) as long as this much is left of its long
# side: 1600 takes in the 8 and 12 megapixel pictures of telephones (3264 / 2, 4032 / 2), which just miss 2048.
SMALLEST_SCALED_SIDE = 1600
# Pictures are converted in strips of so many pixels: 16 MiB as Pillow holds them, so that beside a large picture and
# its result no third copy is needed. A picture of an ordinary telephone is one strip.
STRIP_PIXELS = 4 << 20
# What a viewer shows behind a transparent picture.
PAPER = (255, 255, 255)

# Profiles of printers have 0.5 to 2 MiB; those of cameras and screens a few hundred bytes.
LARGEST_PROFILE = 4 << 20

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
_XMP_ORIENTATION = re.compile(rb'tiff:Orientation(?:="|>)([1-8])')
# OpenCV's words for a picture at 1/step of its size (JPEG only); turning it is done here, for all formats.
_READ = {
    step: flag | cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    for step, flag in {
        1: cv2.IMREAD_COLOR,
        2: cv2.IMREAD_REDUCED_COLOR_2,
        4: cv2.IMREAD_REDUCED_COLOR_4,
        8: cv2.IMREAD_REDUCED_COLOR_8,
    }.items()
}


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
    inspect(data, limits)
    return decode_checked(data, limits)


def decode_checked(data: bytes, limits: Limits) -> Picture:
    """Decode a file whose structure `structure.inspect` has accepted; otherwise as :func:`decode`."""
    try:
        with Image.open(BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
            if width * height > limits.max_pixels:
                raise too_many_pixels(width * height, limits.max_pixels)
            return _decode(image, data)
    except BadPicture:
        raise
    except UnidentifiedImageError:
        raise _unknown(data[:64]) from None
    except MemoryError:
        raise too_much_memory() from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        pixels = int("".join(re.findall(r"\((\d+) pixels", str(error))) or 0)
        raise too_many_pixels(pixels, limits.max_pixels) from None
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


def canvas_of(picture: Picture, out: U8 | None = None) -> tuple[U8, tuple[float, float]]:
    """The detector's input: the whole picture scaled (down or up) to a long side of CANVAS, at the top left.

    Args:
        picture: what `decode` has returned.
        out: uint8 [3, CANVAS, CANVAS] to write to; a new array without it.

    Returns:
        uint8 [3, CANVAS, CANVAS] RGB, the rest grey; and (x, y) source pixels per canvas pixel.
    """
    width, height = picture.source
    w, h = _fit(width, height, CANVAS)
    scaled = _scaled(picture.pixels, (w, h))
    framed = cv2.copyMakeBorder(scaled, 0, CANVAS - h, 0, CANVAS - w, cv2.BORDER_CONSTANT, value=(CANVAS_GREY,) * 3)
    canvas = np.empty((3, CANVAS, CANVAS), np.uint8) if out is None else out
    cv2.split(framed, list(canvas))  # a tenth of the time of a transposed copy
    rows, cols = picture.pixels.shape[:2]
    return canvas, (picture.ratio[0] * cols / w, picture.ratio[1] * rows / h)


def geometry_of(picture: Picture, canvas_ratio: tuple[float, float]) -> NDArray[np.float32]:
    """float32 [6]: source width and height; source pixels per canvas pixel x, y; per working pixel x, y."""
    return np.array([*picture.source, *canvas_ratio, *picture.ratio], np.float32)


def _decode(image: Image.Image, data: bytes) -> Picture:
    width, height = image.size
    step, raster = 1, None
    if image.format in ("JPEG", "MPO"):
        step = _draft(image, _orientation(image))
        raster = _jpeg(image, data, step)
    elif image.format == "BMP" and bmp_structure.compression(data) in bmp_structure.RLE:
        raster = _run_length_bmp(image, data)
    elif image.format == "WEBP":
        raster = _still_webp(image, data)
    if raster is None:
        image.load()
    # A TIFF is turned by its own plugin while it loads. A PNG's EXIF may stand behind its pixels.
    orientation = 1 if image.format == "TIFF" else _orientation(image)
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
    if image.mode not in ("RGB", "L"):
        return None
    raster = _opencv(data, _READ[step])
    return raster if raster is not None and raster.shape == (image.height, image.width, 3) else None


def _run_length_bmp(image: Image.Image, data: bytes) -> U8:
    """The pixels of a BMP packed by run lengths, uint8 [h, w, 3] RGB.

    Pillow unpacks these in Python, a loop that a file of a hundred bytes can keep busy for minutes; OpenCV in C++.
    """
    raster = _opencv(data, _READ[1])
    if raster is None or raster.shape != (image.height, image.width, 3):
        raise damaged("its runs do not fit")
    return raster


def _still_webp(image: Image.Image, data: bytes) -> U8 | None:
    """The pixels of a WebP file without transparency and animation, uint8 [h, w, 3] RGB; None for others.

    Pillow takes every WebP for an animation: the canvas three times in four bytes a pixel, where OpenCV, with the same
    library, writes three bytes a pixel.
    """
    if image.mode != "RGB" or getattr(image, "n_frames", 1) != 1:
        return None
    image.__dict__.pop("_decoder", None)  # it holds the canvas, twice, for as long as it lives
    raster = _opencv(data, _READ[1])
    if raster is None or raster.shape != (image.height, image.width, 3):
        raise damaged("its data end early")
    return raster


def _opencv(data: bytes, how: int) -> U8 | None:
    try:
        raster: U8 | None = cv2.imdecode(np.frombuffer(data, np.uint8), how)  # type: ignore[assignment]
    except cv2.error:
        return None
    return raster


def _strips(image: Image.Image, multiple: int = 1) -> Iterator[tuple[int, Image.Image]]:
    """The picture in strips of STRIP_PIXELS and a ``multiple`` of rows, each with its first row."""
    rows = max(multiple, STRIP_PIXELS // image.width // multiple * multiple)
    if rows >= image.height:
        yield 0, image
        return
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def _rgb(image: Image.Image, profile: ImageCms.ImageCmsProfile | None, size: tuple[int, int]) -> U8:
    """The picture that Pillow has decoded, as uint8 [h, w, 3], scaled to ``size`` (w, h) where that differs."""
    mode = image.mode
    if mode.startswith("I") or mode == "F":
        return np.repeat(_scaled(_eight_bits(image), size)[:, :, None], 3, axis=2)
    if image.has_transparency_data:
        image = _on_paper(image, size)
    # Inks have four channels and are converted as they are; everything else after it was made small.
    to_srgb = None
    if profile is not None and (profile.profile.xcolor_space, mode) == ("CMYK", "CMYK"):
        to_srgb, profile = _transform(profile, mode), None
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    for top, strip in _strips(image):
        rgb = _applied(strip, to_srgb)
        if rgb.size == image.size:
            pixels = np.asarray(rgb)
        else:
            pixels[top : top + strip.height] = np.asarray(rgb)
    return _coloured(_scaled(pixels, size), profile, mode)


def _on_paper(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """A picture with transparency scaled to ``size``, colours weighed by their opacity, and laid on PAPER."""
    width, height = image.size
    # As Pillow's own `reducing_gap=2.0`, but strip by strip: whole, it would need two more copies of the picture.
    fx, fy = (max(1, int(have / want / 2.0)) for have, want in zip(image.size, size, strict=True))
    small = Image.new("RGBa", (-(-width // fx), -(-height // fy)))
    for top, strip in _strips(image, fy):
        weighed = strip.convert("RGBA").convert("RGBa")
        small.paste(weighed.reduce((fx, fy)) if (fx, fy) != (1, 1) else weighed, (0, top // fy))
    if small.size != size:
        small = small.resize(size, Image.Resampling.HAMMING, box=(0, 0, width / fx, height / fy))
    return Image.alpha_composite(Image.new("RGBA", size, (*PAPER, 255)), small.convert("RGBA"))


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
    """The colours of a picture (RGB or L) as sRGB; as they are if the profile is of no use."""
    return _applied(image, _transform(profile, image.mode))


def _transform(profile: ImageCms.ImageCmsProfile, mode: str) -> ImageCms.ImageCmsTransform | None:
    """From the colours of a profile to sRGB; None if the profile is of no use."""
    try:
        return ImageCms.buildTransform(
            profile,
            ImageCms.createProfile("sRGB"),
            mode,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except Exception:
        return None


def _applied(image: Image.Image, transform: ImageCms.ImageCmsTransform | None) -> Image.Image:
    """A picture as RGB, by a transform where there is one."""
    if transform is not None:
        try:
            converted = ImageCms.applyTransform(image, transform)
        except Exception:
            converted = None
        image = image if converted is None else converted
    return image if image.mode == "RGB" else image.convert("RGB")


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


def _eight_bits(image: Image.Image) -> U8:
    """Grey values of any type as 0..255: 16-bit by 257, others by their range (0..1 or 0..255 or 0..65535)."""
    peak = 0.0
    if not image.mode.startswith("I;16"):
        peak = max(float(_finite(strip).max(initial=0.0)) for _, strip in _strips(image))
    divisor = max(257.0, peak / 255.0) if image.mode.startswith("I;16") or peak > 255.0 else 1.0
    if image.mode == "F" and peak <= 1.0:
        divisor = 1 / 255.0
    grey = np.empty((image.height, image.width), np.uint8)
    for top, strip in _strips(image):
        values = _finite(strip)
        values /= divisor
        grey[top : top + strip.height] = np.clip(np.rint(values, out=values), 0, 255, out=values)
    return grey


def _finite(image: Image.Image) -> NDArray[np.float32]:
    return np.nan_to_num(np.asarray(image).astype(np.float32), copy=False, nan=0.0, posinf=0.0, neginf=0.0)


def _orientation(image: Image.Image) -> int:
    """What EXIF says, or XMP where there is no such entry; 1 where neither can be read."""
    block = image.info.get("exif")
    profile = image.info.get("Raw profile type exif")  # ImageMagick's way to put EXIF into a PNG, before there was one
    if not isinstance(block, bytes) and isinstance(profile, str):
        try:
            block = bytes.fromhex("".join(profile.split("\n")[3:]))
        except ValueError:
            return 1  # EXIF that cannot be read is no reason to refuse a picture that can
    stated = exif.orientation(block) if isinstance(block, bytes) else None
    if stated is None:
        xmp = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp") or b""
        found = _XMP_ORIENTATION.search(xmp.encode() if isinstance(xmp, str) else xmp)
        stated = int(found[1]) if found else 1
    return stated


def _fit(width: int, height: int, side: int, multiple: int = 1) -> tuple[int, int]:
    scale = side / max(width, height) / multiple
    return max(1, round(width * scale) * multiple), max(1, round(height * scale) * multiple)


def _unknown(head: bytes) -> BadPicture:
    for is_it, what in _FOREIGN:
        if is_it(head):
            return BadPicture("BadImage", f"this is {what}, which the service does not read: {SEND}.")
    if head.startswith(_MAGICS):
        return BadPicture("BadImage", "the picture's header is damaged or truncated: send the file again.")
    return BadPicture("BadImage", f"these bytes are not a picture that the service can read: {SEND}.")


def _brief(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:80].rstrip(". ") or type(error).__name__


def _u8(array: object) -> U8:
    """OpenCV's types say less than is known here: uint8 in, uint8 out."""
    return np.asarray(array, dtype=np.uint8)
