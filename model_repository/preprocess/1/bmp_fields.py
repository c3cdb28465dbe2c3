"""BMP pixels whose colours are fields of bits anywhere in a word, of which Pillow knows but a few layouts."""

from __future__ import annotations

import struct

import bmp_structure
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from refusals import damaged

# Pixels that are unpacked at a time.
_BLOCK = 1 << 20
_MASKS, _ALPHA = 54, 66  # where the fields are stated, behind the first 40 bytes of any header
_HEADER_WITH_ALPHA = 56


def unpacked(data: bytes) -> Image.Image | None:
    """Unpack a BMP whose header states fields, to mode RGB or RGBA; None for other kinds.

    Raises:
        BadPicture: fields that are none, or data that end early.
    """
    if bmp_structure.compression(data) not in bmp_structure.FIELDS or len(data) < _ALPHA:
        return None
    place, header = struct.unpack_from("<II", data, 10)
    width, height, _, bits = struct.unpack_from("<iiHH", data, 18)
    masks = list(struct.unpack_from("<3I", data, _MASKS))
    if header >= _HEADER_WITH_ALPHA and len(data) >= _ALPHA + 4:
        masks += [mask for mask in struct.unpack_from("<I", data, _ALPHA) if mask]
    rows, size = abs(height), bits // 8
    if bits not in (16, 32) or width <= 0 or not rows or not all(map(_is_field, masks)):
        raise damaged("its fields of bits")
    stride = -(-width * size // 4) * 4
    if len(data) < place + stride * rows:
        raise damaged("its data end early")
    stored = np.frombuffer(data, np.uint8, stride * rows, place).reshape(rows, stride)[:, : width * size]
    out = np.empty((rows, width, len(masks)), np.uint8)
    step = max(1, _BLOCK // width)
    for top in range(0, rows, step):
        words = np.ascontiguousarray(stored[top : top + step]).view(f"<u{size}").astype(np.uint32)
        for channel, mask in enumerate(masks):
            out[top : top + step, :, channel] = _levels(words, mask)
    image = Image.fromarray(out[::-1] if height > 0 else out)
    image.format = "BMP"
    return image


def _is_field(mask: int) -> bool:
    """Return whether the bits of a mask stand together."""
    return mask > 0 and not (mask // (mask & -mask)) & (mask // (mask & -mask) + 1)


def _levels(words: NDArray[np.uint32], mask: int) -> NDArray[np.uint8]:
    shift = (mask & -mask).bit_length() - 1
    values = (words & np.uint32(mask)) >> np.uint32(shift)
    return np.asarray(np.rint(values * np.float32(255 / (mask >> shift))), np.uint8)
