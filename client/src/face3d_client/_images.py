"""What a caller may hand over as a picture, turned into the bytes of a picture file."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ._errors import BadImage, ImageTooLarge

__all__ = ["MAX_BYTES", "ImageSource", "image_bytes", "open_upright"]

ImageSource: TypeAlias = "str | os.PathLike[str] | bytes | bytearray | memoryview | NDArray[np.uint8]"
"""A path, the bytes of a picture file (JPEG, PNG, WebP, BMP, TIFF), or an array uint8 (H, W, 3) RGB or (H, W) grey."""

# What Triton's HTTP door takes by default; refused here so that a film in a folder of photographs is not even read.
MAX_BYTES: Final = 64 * 1024 * 1024


def image_bytes(image: ImageSource, *, compress: bool = True) -> bytes:
    """The picture as the bytes of a file, which is how it travels: a tenth of what its pixels would weigh.

    Files and bytes pass as they are: the server decodes and turns them by their EXIF tag. Arrays become PNG, without
    loss, or BMP where not even that time should be spent (`compress` False).

    Raises:
        BadImage: empty, or an array that is not a picture.
        ImageTooLarge: more than 64 MiB.
        OSError: the file cannot be read (FileNotFoundError, PermissionError, IsADirectoryError).
        TypeError: none of the kinds of `ImageSource`.
    """
    if isinstance(image, np.ndarray):
        return _encode(image, compress)
    if isinstance(image, (bytes, bytearray, memoryview)):
        data = bytes(image)
        name = "the picture"
    elif isinstance(image, (str, os.PathLike)):
        path = Path(image)
        name = str(path)
        if path.stat().st_size > MAX_BYTES:
            raise _too_large(name, path.stat().st_size)
        data = path.read_bytes()
    else:
        raise TypeError(f"a picture is a path, bytes or a uint8 array, not {type(image).__name__}")
    if not data:
        raise BadImage(f"{name} is empty (0 bytes). Send a JPEG, PNG, WebP, BMP or TIFF file.")
    if len(data) > MAX_BYTES:
        raise _too_large(name, len(data))
    return data


def _too_large(name: str, size: int) -> ImageTooLarge:
    return ImageTooLarge(
        f"{name} has {size / 2**20:.0f} MiB; at most {MAX_BYTES // 2**20} can be sent. Make it smaller."
    )


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
        raise _too_large("the array", len(data))
    return data


def open_upright(image: ImageSource) -> Image.Image:
    """The picture as RGB, turned by its EXIF tag: the raster whose pixels the service's "source pixels" are.

    Raises:
        BadImage: Pillow cannot read it.
        OSError: the file cannot be read.
    """
    from PIL import ImageOps

    data = image_bytes(image)
    try:
        with Image.open(io.BytesIO(data)) as opened:
            return ImageOps.exif_transpose(opened).convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise BadImage(
            f"this picture cannot be decoded: {error}. Send a whole JPEG, PNG, WebP, BMP or TIFF."
        ) from error
