"""Fused pictures: one person's face on another picture, signed by the server."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from face3d_client._errors import BadResponse
from face3d_client._images import MAX_PIXELS
from face3d_client._mesh.formats import write_whole
from face3d_client._provenance import Manifest, read_manifest

__all__ = ["Fusion"]

_SUFFIXES: Final = {"png": (".png",), "jpeg": (".jpg", ".jpeg")}


@dataclass(frozen=True, eq=False)
class Fusion:
    """A fused picture.

    Attributes:
        data: the file as the server signed it, PNG or JPEG. What is decoded and written anew has no manifest.
        warnings: what is doubtful about either photograph, one sentence each.
        sources: the photographs' files, which `save` does not write over.
    """

    data: bytes
    mask_data: bytes
    warnings: tuple[str, ...] = ()
    sources: tuple[Path, ...] = ()

    @property
    def format(self) -> str:
        """``png`` or ``jpeg``."""
        return "png" if self.data.startswith(b"\x89PNG") else "jpeg"

    @cached_property
    def picture(self) -> Image.Image:
        """The picture, RGB, of the target's size.

        Raises:
            BadResponse: it cannot be decoded.
        """
        return _decoded(self.data, "RGB")

    @cached_property
    def mask(self) -> NDArray[np.uint8]:
        """uint8 (H, W): how much of each pixel is new, 0 where the target's own pixel stands.

        Raises:
            BadResponse: it cannot be decoded.
        """
        return np.asarray(_decoded(self.mask_data, "L"))

    @cached_property
    def manifest(self) -> Manifest:
        """What the picture says about its making; see also `read_manifest`, which can be told whom to trust.

        Raises:
            BadResponse: it has none, or one that does not hold: this service signs whatever it gives out.
            ModuleNotFoundError: c2pa-python is not installed (``pip install face3d-client[provenance]``).
        """
        found = read_manifest(self.data)
        if found is None or found.state == "Invalid":
            raise BadResponse("the server sent a fused picture without a valid manifest. Is it a Face3D server?")
        return found

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the file as it was signed; it appears whole or not at all.

        Raises:
            ValueError: another suffix than that of its format, since what is written anew has no manifest; or it would
                be written over one of the photographs.
        """
        target = Path(path)
        if target.suffix.lower() not in _SUFFIXES[self.format]:
            raise ValueError(
                f"the picture is signed as a {self.format.upper()} file: name it {_SUFFIXES[self.format][0]}, or ask "
                "for the other format (picture_format)."
            )
        if any(source.exists() and target.exists() and target.samefile(source) for source in self.sources):
            raise ValueError(f"{target} is one of the photographs. Choose another name.")
        return write_whole(target, self.data)


def _decoded(data: bytes, mode: str) -> Image.Image:
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as opened:
            if opened.width * opened.height <= MAX_PIXELS:
                return opened.convert(mode)
            raise BadResponse(f"the server sent a picture of {opened.width} x {opened.height} pixels.")
    except BadResponse:
        raise
    except Exception as error:  # decoders raise nearly anything on hostile bytes
        raise BadResponse(f"the server sent a picture that cannot be decoded ({error}).") from error
