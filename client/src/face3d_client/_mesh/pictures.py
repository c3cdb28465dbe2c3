"""Texture and preview files of an answer: checked, then decoded."""

from __future__ import annotations

import io
from typing import Final, Literal

from PIL import Image

from face3d_client._errors import BadResponse

__all__ = ["check_texture", "open_texture"]

_SIGNATURES: Final = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")  # how PNG and JPEG files begin
_MAX_TEXELS: Final = 4096 * 4096  # the largest texture, a preview has less


def check_texture(data: bytes) -> bytes:
    """Return a texture's or preview's file if it begins as a PNG or JPEG.

    Raises:
        BadResponse: neither PNG nor JPEG.
    """
    if not data.startswith(_SIGNATURES):
        raise BadResponse("the server sent a picture that is neither PNG nor JPEG. Is it a Face3D server?")
    return data


def open_texture(data: bytes, mode: Literal["RGB", "RGBA"] = "RGB") -> Image.Image:
    """Decode a texture's or preview's file to pixels of a mode.

    Raises:
        BadResponse: neither PNG nor JPEG, larger than any that the service makes, or damaged.
    """
    try:
        with Image.open(io.BytesIO(check_texture(data)), formats=("PNG", "JPEG")) as opened:
            if opened.width * opened.height <= _MAX_TEXELS:
                return opened.convert(mode)
            raise BadResponse(f"the server sent a picture of {opened.width} x {opened.height} pixels.")
    except BadResponse:
        raise
    except Exception as error:  # decoders raise nearly anything on hostile bytes
        raise BadResponse(f"the server sent a picture that cannot be decoded ({error}).") from error
