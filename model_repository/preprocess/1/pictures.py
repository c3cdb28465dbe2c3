"""From the bytes of a picture file to an upright RGB picture of bounded size, and to the detector's canvas.

Nothing is decoded before the header was looked at: a file that is too large, or that claims more pixels than the
limit, is refused without allocating them. Whatever a decoder says about a damaged file leaves here as a
:class:`BadPicture` with one sentence for the person who sent it.

Coordinates: *source pixels* are those of the upright (EXIF-rotated) picture at its full size, pixel centres at
integers, x right, y down. A raster that is r times smaller maps by X = (x + 0.5) * r - 0.5.
"""

from __future__ import annotations

import re
from base64 import b85decode
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO

import bmp_fields
import bmp_structure
import colour
import cv2
import exif
import foreign
import jpeg_structure
import line_ends
import numpy as np
import pi_heif
import png_structure
import tiff_samples
import tiff_structure
from colour import Colours
from numpy.typing import NDArray
from PIL import AvifImagePlugin, Image, UnidentifiedImageError
from refusals import BadPicture, damaged, too_many_pixels, too_much_memory
from structure import Limits, inspect, without_film
from tiles import tiles_of

U8 = NDArray[np.uint8]

# Pillow can open some forty formats; every decoder that is not needed is one that cannot be attacked.
FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "HEIF", "BMP", "TIFF")
CANVAS = 512
CANVAS_GREY = 127
# Pictures are converted in strips of so many pixels: 16 MiB as Pillow holds them, so that beside a large picture and
# its result no third copy is needed. A picture of an ordinary telephone is one strip.
STRIP_PIXELS = 4 << 20
# Pixels of a JPEG up to which its turned raster is exact (see _draft).
_EXACT_PIXELS = 16_000_000
_JPEG, _END = b"\xff\xd8\xff", b"\xff\xd9"
# What stands in place of blocks where a file is tried for missing ones.
_NO_BLOCK = (b"\xaa" * 64, b"\x55\x13\xc7" * 21)
# Modes of Pillow that a profile for grey is meant for.
_GREYS = ("L", "LA", "I;16", "I;16B", "I", "F", "1")
# What a viewer shows behind a transparent picture.
PAPER = (255, 255, 255)

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
# 640 x 480 pixels in four colours, 815 bytes, as Pillow has no encoder: by pillow-heif 1.8.1, quality 40.
_HEIC = (
    "0000SW^{RQXk}?*00000ZE0pPXk}?*ZE0a<00043ZDn*}000000000XXk=`10000000000aA{+700000000000000000000B57=IV*mgE07O"
    "6l0RRC200001djJ6d0000000FcB001LtX>Mi!000000RR916=`l}WdZ;I000310BCk&F#rGn01j|zbZr0t000010002jX>f9I0002EX>en20"
    "001aXm(>m0RwOV0058x00000TJQk;{rLC*01pFT0096PKmiN^|NjGU00093kN^M!00093TDk&2VE_RDEJ6VR18@KU0|1Z!00RI30{~i}1p)!"
    "#WxA3|Yny<Eg8~2m0{}7r00RI55MlrU00%??!E&%-KmY&$6Ju{|a&BX6cmM$a4FCp!0000KX>)L8000000007j0005t0000GaA|mH000000|"
    "*ER0000NX>e^}0000000001009Jn0s{m900F#hWMOmw00FQl0k2U9V!2e-%~`<t4w7I0^0nXpQT{{Z`=c8fBk(_5Z<l~w0xv(={W~cAtET^p"
    "{rUyRr`PZR00RIN@TJ&y;0Z80MW{JpU8d{}NnadA4t1NqtVt{}^kf%<z&Fn>&JS1jj<DR>Kmbv|lLBl!00J`UrI2vss*=7qk?^&ODw4w=MnQ"
    "Ny1A}E<N{Cy$b%fvm01(iMbob=BAOC55FSuWy>BT#v000930Rw!KM4j>Z52k3!6wTC@c1Mr4Wh+nHZ`9r&2z|#^|K^CN*9;$v3FG<*L-B6Ez"
    "h+PX00RJiz*YbN0{{xWMZ5o@ug;a?=v7OEI`tF1ZzXcDyv7!Q9`I)c2dUVLjd9g8^I}J)`~l<u00RSF000931(-u((Go-RrFgm(QsEBkT#jr"
    "lT&yoKg`fw#8Nos7b|T|kfknD>ap}JRc>n+d0fztp0{|v`C+kE>56+e1=v7OEJRH$UU-hM>WEOxP@Mi@Fso0B+az>lI_*c_@0P+9;3P=D0o="
    "`u3^fmd?yj=>ZaEFT_b6)F)2?d}Bycxkk>UJXIT#Tm609`-"
)

# A worker may start no threads.
pi_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False, decode_threads=1)
AvifImagePlugin.DEFAULT_MAX_THREADS = 1


@dataclass(frozen=True)
class Picture:
    """A decoded picture.

    Attributes:
        pixels: uint8 [h, w, 3] RGB, upright, long side as `Limits.side_for` has it.
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
    data = without_film(data)
    inspect(data, limits)
    return decode_checked(data, limits)


def decode_checked(data: bytes, limits: Limits) -> Picture:
    """Decode a file whose structure `structure.inspect` has accepted; otherwise as :func:`decode`."""
    try:
        if data.startswith(_JPEG):
            return _decoded_jpeg(data, limits)
        layout = tiff_structure.layout_of(data)
        if layout is not None:
            return _decoded_tiff(data, layout, limits)
        return _decoded(data, limits)
    except BadPicture:
        raise
    except UnidentifiedImageError:
        raise foreign.named(data) from None
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
    """Make a small file of one of FORMATS, for warming up."""
    if kind == "HEIF":
        return b85decode(_HEIC)
    buffer = BytesIO()
    Image.linear_gradient("L").convert("RGB").resize((640, 480)).save(buffer, kind)
    return buffer.getvalue()


def canvas_of(picture: Picture, out: U8 | None = None) -> tuple[U8, tuple[float, float]]:
    """Make the detector's input: the whole picture scaled (down or up) to a long side of CANVAS, at the top left.

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


@dataclass(frozen=True)
class Look:
    """A tile that the detector looks at.

    Attributes:
        view: its left, top, right and bottom border in source pixels; the picture begins at 0.
        ratio: (x, y) source pixels per canvas pixel.
    """

    view: tuple[float, float, float, float]
    ratio: tuple[float, float]


def tiles_of_picture(picture: Picture, min_face: float, room: Callable[[int], U8]) -> list[Look]:
    """Make canvases of the tiles of a picture in which the detector finds faces from a size on.

    Args:
        picture: what `decode` has returned.
        min_face: longer side of these faces in source pixels.
        room: gives uint8 [n, 3, CANVAS, CANVAS] to write n canvases to.

    Raises:
        BadPicture: ``BadOption``, for too many tiles.
    """
    rows, cols = picture.pixels.shape[:2]
    x, y = picture.ratio
    tiles = tiles_of(cols, rows, min_face, max(x, y))
    looks = []
    for tile, canvas in zip(tiles, room(len(tiles)), strict=True):
        pixels = np.ascontiguousarray(picture.pixels[tile.top : tile.bottom, tile.left : tile.right])
        _, ratio = canvas_of(Picture(pixels, (pixels.shape[1], pixels.shape[0]), picture.ratio), canvas)
        looks.append(Look((tile.left * x, tile.top * y, tile.right * x, tile.bottom * y), ratio))
    return looks


def geometry_of(picture: Picture, canvas_ratio: tuple[float, float]) -> NDArray[np.float32]:
    """Return float32 [6]: source width, height; source pixels per canvas pixel x, y; per working pixel x, y."""
    return np.array([*picture.source, *canvas_ratio, *picture.ratio], np.float32)


def _opened(data: bytes) -> Image.Image:
    return Image.open(BytesIO(data), formats=FORMATS)


def _decoded(data: bytes, limits: Limits) -> Picture:
    """Decode a PNG, WebP, BMP, HEIC or AVIF."""
    if data.startswith(b"BM") and (fields := bmp_fields.unpacked(data)) is not None:
        return _upright(fields, None, colour.colours_of(fields, data), 1, limits)
    with _opened(data) as image:
        if image.width * image.height > limits.max_pixels:
            raise too_many_pixels(image.width * image.height, limits.max_pixels)
        colours, raster = colour.colours_of(image, data), None
        if image.format == "BMP" and bmp_structure.compression(data) in bmp_structure.RLE:
            raster = _run_length_bmp(image, data)
        elif image.format == "PNG":
            raster = _plain_png(image, data)
        elif image.format == "WEBP":
            raster = _still_webp(image, data)
        if raster is None:
            image.load()
        # A PNG's EXIF may stand behind its pixels. HEIC's turns are done by its decoder, and its EXIF repeats them.
        return _upright(image, raster, colours, 1 if image.format == "HEIF" else _orientation(image), limits)


def _decoded_tiff(data: bytes, layout: tiff_structure.Layout, limits: Limits) -> Picture:
    offset = tiff_structure.picture_offset(data, layout)
    rare = tiff_samples.unpacked(data, layout, offset)
    if rare is not None:
        image, orientation = rare
        return _upright(image, None, colour.colours_of(image, data), orientation, limits)
    if offset != layout.first(data):
        data = layout.with_first(data, offset)
    with _opened(data) as image:
        if image.width * image.height > limits.max_pixels:
            raise too_many_pixels(image.width * image.height, limits.max_pixels)
        colours = colour.colours_of(image, data)
        image.load()  # and it is turned
        return _upright(image, None, colours, 1, limits)


def _decoded_jpeg(data: bytes, limits: Limits) -> Picture:
    """Decode a JPEG, whose size by its header `inspect` has judged; what is decoded may be an eighth of it."""
    if (refusal := line_ends.translated(data)) is not None:
        raise refusal
    data = _ended(data, limits.smallest_scaled_side)
    most = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = jpeg_structure.MAX_STATED_PIXELS
    try:
        with _opened(data) as image:
            width, height = image.size
            orientation, colours = _orientation(image), colour.colours_of(image, data)
            step = _draft(image, orientation, limits.smallest_scaled_side)
            raster = _jpeg(image, data, step)
            if raster is None:
                image.load()
            return _upright(image, raster, colours, orientation, limits, step, (width, height))
    finally:
        Image.MAX_IMAGE_PIXELS = most


def _ended(data: bytes, smallest: int) -> bytes:
    """Return a JPEG file with its end marker, if only that is missing; ``smallest`` as of `jpeg_structure.reduction`.

    Raises:
        BadPicture: more is missing. Bytes behind the last block change nothing; where a block is missing, decoders
            take them for it.
    """
    if jpeg_structure.has_end(data):
        return data
    how = _READ[jpeg_structure.reduction_of(data, smallest)]
    ended = data.removesuffix(b"\xff") + _END
    shown = _opencv(ended, how)
    for block in _NO_BLOCK:
        other = _opencv(ended[:-2] + block + _END, how)
        if shown is None or other is None or not np.array_equal(shown, other):
            raise damaged("its data end early")
    return ended


def _upright(
    image: Image.Image,
    raster: U8 | None,
    colours: Colours | None,
    orientation: int,
    limits: Limits,
    step: int = 1,
    size: tuple[int, int] | None = None,
) -> Picture:
    """Turn the picture that was decoded upright, as it is handed on.

    Args:
        image: decoded by Pillow, or opened where there is a raster.
        raster: uint8 [h, w, 3] RGB.
        colours: how they become sRGB.
        orientation: as in EXIF.
        limits: say how large it may be.
        step: source pixels for each pixel that was decoded.
        size: width and height in source pixels, where they are not those of ``image``.
    """
    width, height = size or image.size
    # The reduction keeps a last, partial pixel; without it the ratio is exactly `step` everywhere.
    whole = image.size if step == 1 else (max(1, width // step), max(1, height // step))
    # Multiples of 4, so that the canvas comes out of exact halves.
    side = limits.side_for(*whole)
    w, h = _fit(*whole, side, 4) if max(whole) > side else whole
    ratio_x, ratio_y = step * whole[0] / w, step * whole[1] / h
    if colours is not None and colours.mode == "L" and image.mode not in _GREYS:
        colours = None  # a profile for grey on another picture
    if raster is None:
        pixels = _rgb(image if image.size == whole else image.crop((0, 0, *whole)), colours, (w, h))
    else:
        pixels = _coloured(_scaled(raster[: whole[1], : whole[0]], (w, h)), colours)
    if orientation in _UPRIGHT:
        pixels = _UPRIGHT[orientation](pixels)
    if orientation >= 5:
        width, height, ratio_x, ratio_y = height, width, ratio_y, ratio_x
    return Picture(np.ascontiguousarray(pixels), (width, height), (ratio_x, ratio_y))


def _draft(image: Image.Image, orientation: int, smallest: int) -> int:
    """Ask a JPEG decoder for a reduced picture; returns the reduction: 1, 2, 4 or 8."""
    width, height = image.size
    step = jpeg_structure.reduction(width, height, smallest)
    # In a turned picture a partial pixel stands before the first one instead of after the last. In a small one that is
    # avoided; a large one is moved by up to `step` - 1 of its thousands of pixels.
    while step > 1 and orientation != 1 and (width % step or height % step) and width * height <= _EXACT_PIXELS:
        step //= 2
    if step > 1:
        image.draft(None, (width // step, height // step))
        return round(max(width, height) / max(image.size))
    return 1


def _jpeg(image: Image.Image, data: bytes, step: int) -> U8 | None:
    """Decode a JPEG at 1/``step`` of its size, uint8 [h, w, 3] RGB; None where Pillow shall decode it.

    OpenCV calls the same library and gets the same samples, but writes them where they stay; Pillow copies them twice
    more. Pillow has read the header already, and finds the sentence for what OpenCV cannot decode. Only Pillow minds
    errors that show after the last row.
    """
    if image.mode not in ("RGB", "L"):
        return None
    raster = _opencv(data, _READ[step])
    return raster if raster is not None and raster.shape == (image.height, image.width, 3) else None


def _run_length_bmp(image: Image.Image, data: bytes) -> U8:
    """Decode a BMP packed by run lengths to uint8 [h, w, 3] RGB.

    Pillow unpacks these in Python, a loop that a file of a hundred bytes can keep busy for minutes; OpenCV in C++.
    """
    raster = _opencv(data, _READ[1])
    if raster is None or raster.shape != (image.height, image.width, 3):
        raise damaged("its runs do not fit")
    return raster


def _plain_png(image: Image.Image, data: bytes) -> U8 | None:
    """Decode a PNG of 8-bit RGB to uint8 [h, w, 3]; None for others, and where Pillow shall say what is wrong.

    As of a JPEG: the same samples, written where they stay. libpng gets no chunk that it would write remarks about to
    the log.
    """
    plain = png_structure.pixels_alone(data)
    raster = None if plain is None else _opencv(plain, _READ[1])
    return raster if raster is not None and raster.shape == (image.height, image.width, 3) else None


def _still_webp(image: Image.Image, data: bytes) -> U8 | None:
    """Decode a WebP without transparency and animation to uint8 [h, w, 3] RGB; None for others.

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
    """Yield the picture in strips of STRIP_PIXELS and a ``multiple`` of rows, each with its first row."""
    rows = max(multiple, STRIP_PIXELS // image.width // multiple * multiple)
    if rows >= image.height:
        yield 0, image
        return
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def _rgb(image: Image.Image, colours: Colours | None, size: tuple[int, int]) -> U8:
    """Convert what Pillow has decoded to uint8 [h, w, 3], scaled to ``size`` (w, h) where that differs."""
    if image.mode.startswith("I") or image.mode == "F":
        grey = _scaled(_eight_bits(image, colour.grey_curve(colours)), size)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.has_transparency_data and _is_all_transparent(image):
        image.info.pop("transparency", None)
    elif image.has_transparency_data:
        image = _on_paper(image, size)
    # Inks have four channels and are converted as they are; everything else after it was made small.
    to_srgb = colours if colours is not None and colours.mode == "CMYK" else None
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    for top, strip in _strips(image):
        rgb = colour.applied(strip, to_srgb)
        if rgb.size == image.size:
            pixels = np.asarray(rgb)
        else:
            pixels[top : top + strip.height] = np.asarray(rgb)
    return _coloured(_scaled(pixels, size), colours)


def _is_all_transparent(image: Image.Image) -> bool:
    """Return whether nothing would be seen: programs without opacity leave zeros in its place, and mean opaque."""
    for _, strip in _strips(image):
        alpha = strip.getchannel("A") if "A" in strip.getbands() else strip.convert("RGBA").getchannel("A")
        if alpha.getextrema()[1]:
            return False
    return True


def _on_paper(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Scale a picture with transparency to ``size``, colours weighed by their opacity, and lay it on PAPER."""
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


def _coloured(pixels: U8, colours: Colours | None) -> U8:
    """Convert samples uint8 [h, w, 3] to sRGB."""
    if colours is None or colours.mode == "CMYK":
        return pixels
    return np.asarray(colour.applied(Image.fromarray(pixels if colours.mode == "RGB" else pixels[..., 0]), colours))


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


def _eight_bits(image: Image.Image, curve: NDArray[np.float32] | None) -> U8:
    """Scale grey values of any type to 0..255: 16-bit by 257, others by their range (0..1, 0..255 or 0..65535).

    Args:
        image: of mode I, I;16 or F.
        curve: float32 [256], what the profile makes of 0..255; None for no change.
    """
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
        if curve is not None:
            values = np.interp(values, np.arange(256), curve).astype(np.float32)
        grey[top : top + strip.height] = np.clip(np.rint(values, out=values), 0, 255, out=values)
    return grey


def _finite(image: Image.Image) -> NDArray[np.float32]:
    return np.nan_to_num(np.asarray(image).astype(np.float32), copy=False, nan=0.0, posinf=0.0, neginf=0.0)


def _orientation(image: Image.Image) -> int:
    """Read the orientation from EXIF, or XMP where there is no such entry; 1 where neither can be read."""
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


def _brief(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:80].rstrip(". ") or type(error).__name__


def _u8(array: object) -> U8:
    """Cast: OpenCV's types say less than is known here, uint8 in, uint8 out."""
    return np.asarray(array, dtype=np.uint8)
