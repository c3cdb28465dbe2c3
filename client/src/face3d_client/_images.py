"""Pictures as callers give them: read, bounded, encoded and decoded."""

from __future__ import annotations

import errno
import io
import os
import stat
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from face3d_client._errors import BadImage, ImageTooLarge

__all__ = [
    "FORMATS",
    "MAX_BYTES",
    "MAX_PIXELS",
    "ImageSource",
    "decode_upright",
    "image_bytes",
    "open_upright",
    "read_file",
    "source_path",
]

ImageSource: TypeAlias = "str | os.PathLike[str] | bytes | bytearray | memoryview | NDArray[np.uint8]"
"""A path, the bytes of a picture file, or an array uint8 (H, W, 3) RGB or (H, W) grey."""

# What Triton's HTTP door takes by default; refused here so that a film in a folder of photographs is not even read.
MAX_BYTES: Final = 64 * 1024 * 1024
# As the service, but HEIC, which needs a package of its own (pi-heif): the other decoders of Pillow are never called
# (that for EPS would start Ghostscript).
FORMATS: Final = ("JPEG", "PNG", "WEBP", "AVIF", "BMP", "TIFF")
# As the service, by the picture's header: 195 MB of RGB.
MAX_PIXELS: Final = 65_000_000
# What a shell connects to a command: these names may be pipes. Any other pipe might never end or never begin.
_STANDARD_PIPES: Final = ("/dev/stdin", "/dev/fd/", "/proc/self/fd/")


def image_bytes(image: ImageSource, *, compress: bool = True) -> bytes:
    """Turn a picture into the bytes of a file, a tenth of the bytes of its pixels.

    Files and bytes pass as they are: the server decodes and turns them by their EXIF tag. Arrays become PNG, without
    loss, or BMP where not even that time should be spent (`compress` False).

    Raises:
        BadImage: empty, neither a file nor standard input (a device, a pipe, a socket), or an array that is not a
            picture.
        ImageTooLarge: more than 64 MiB; no more than that is read, however large a file is or becomes.
        OSError: the file cannot be read (FileNotFoundError, PermissionError, IsADirectoryError).
        TypeError: none of the kinds of `ImageSource`.
    """
    if isinstance(image, np.ndarray):
        return _encode(image, compress)
    if isinstance(image, (bytes, bytearray, memoryview)):
        data = bytes(image)
        name = "the picture"
    elif isinstance(image, (str, os.PathLike)):
        name = str(Path(image))
        data = read_file(name)
    else:
        raise TypeError(f"a picture is a path, bytes or a uint8 array, not {type(image).__name__}")
    if not data:
        raise BadImage(f"{name} is empty (0 bytes). Send a JPEG, PNG, WebP, HEIC, AVIF, BMP or TIFF file.")
    if len(data) > MAX_BYTES:
        raise _too_large(name)
    return data


def source_path(image: ImageSource) -> Path | None:
    """Return the file that a picture is read from. None: it is not read from a file."""
    return Path(image) if isinstance(image, (str, os.PathLike)) else None


def read_file(name: str, most: int = MAX_BYTES) -> bytes:
    """Read a file, or what is piped into this program as /dev/stdin or /dev/fd/N.

    Raises:
        BadImage: a device, a socket or another pipe.
        ImageTooLarge: more than `most` bytes; one more than that is read at most.
        OSError: it cannot be read.
    """
    try:
        # Without O_NONBLOCK, opening a pipe that nobody writes to would wait for ever.
        handle = os.open(name, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except ValueError as error:  # a NUL in the name
        raise BadImage(f"{name} cannot be the name of a file. Give a path without NUL characters.") from error
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise _not_a_file(name) from error
        raise
    with os.fdopen(handle, "rb") as file:
        about = os.fstat(handle)
        if stat.S_ISDIR(about.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), name)
        if stat.S_ISFIFO(about.st_mode) and name.startswith(_STANDARD_PIPES):
            os.set_blocking(handle, True)
        elif not stat.S_ISREG(about.st_mode):
            raise _not_a_file(name)
        elif about.st_size > most:
            raise _too_large(name, most)
        data = file.read(most + 1)
    if len(data) > most:
        raise _too_large(name, most)
    return data


def _not_a_file(name: str) -> BadImage:
    return BadImage(f"{name} is a device, a pipe or a socket. Send a file, or pipe it in as /dev/stdin.")


def _too_large(name: str, most: int = MAX_BYTES) -> ImageTooLarge:
    return ImageTooLarge(f"{name} is too large: at most {most // 2**20} MiB can be read or sent. Make it smaller.")


def _encode(array: NDArray[np.uint8], compress: bool) -> bytes:
    if array.dtype != np.uint8 or array.size == 0 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)):
        raise BadImage(
            f"an array must be uint8 of shape (H, W, 3) RGB or (H, W) grey, not {array.dtype} {array.shape}. "
            "Convert it first."
        )
    buffer = io.BytesIO()
    picture = Image.fromarray(np.ascontiguousarray(array))
    if compress:
        picture.save(buffer, "PNG", compress_level=1)
    else:
        picture.save(buffer, "BMP")
    data = buffer.getvalue()
    if len(data) > MAX_BYTES:
        raise _too_large("the array")
    return data


def _heif(data: bytes) -> tuple[str, ...]:
    """Name HEIC to Pillow, where the package pi-heif or pillow-heif is installed and this is such a file."""
    if data[4:8] != b"ftyp":
        return ()
    for name in ("pi_heif", "pillow_heif"):
        if find_spec(name) is not None:
            import_module(name).register_heif_opener(thumbnails=False, aux_images=False, depth_images=False)
            return ("HEIF",)
    return ()


def open_upright(image: ImageSource) -> Image.Image:
    """Decode a picture to RGB, turned by its EXIF tag: the raster whose pixels the service's "source pixels" are.

    Raises:
        BadImage: Pillow cannot read it as one of `FORMATS`.
        ImageTooLarge: more than `MAX_BYTES` or, by its header, `MAX_PIXELS`.
        OSError: the file cannot be read.
    """
    return decode_upright(image_bytes(image))[0]


def decode_upright(data: bytes, largest: int | None = None) -> tuple[Image.Image, float]:
    """Decode a picture file to RGB pixels, turned by its EXIF tag.

    Only the formats that the service reads, and only as many pixels, counted by the header before anything is decoded.
    Decoding is not interrupted: ask the service first about a stranger's picture, since it refuses what takes long.

    Args:
        data: the file.
        largest: longer side of the result in pixels, where the picture has more. None: as it is.

    Returns:
        The picture, and its pixels per pixel of the file's (1.0 without `largest`).

    Raises:
        BadImage, ImageTooLarge.
    """
    from PIL import ImageOps

    try:
        with Image.open(io.BytesIO(data), formats=FORMATS + _heif(data)) as opened:
            pixels, side = opened.width * opened.height, max(opened.size)
            if pixels > MAX_PIXELS:
                raise ImageTooLarge(f"the picture has {pixels / 1e6:.0f} megapixels; at most 65 can be read. Scale it.")
            if largest is not None:
                opened.draft(None, (largest, largest))  # of a JPEG, no more is decoded than is shown
            upright = ImageOps.exif_transpose(opened).convert("RGB")
            if largest is not None:
                upright.thumbnail((largest, largest))
            return upright, max(upright.size) / side
    except ImageTooLarge:
        raise
    except Image.DecompressionBombError as error:
        raise ImageTooLarge(f"{error}. Scale it.") from error
    except Exception as error:  # decoders raise nearly anything on hostile bytes: SyntaxError, struct.error, ...
        raise BadImage(
            f"this picture cannot be decoded: {error}. Send a whole JPEG, PNG, WebP, AVIF, BMP or TIFF."
        ) from error
