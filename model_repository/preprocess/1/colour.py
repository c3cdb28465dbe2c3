"""Colours of any profile as sRGB, by LittleCMS.

A profile is judged by what it does to colours, never by its name: files by GIMP name a linear profile after sRGB.
"""

from __future__ import annotations

from functools import lru_cache
from io import BytesIO
from typing import NamedTuple

import exif
import numpy as np
import stated_colours
from numpy.typing import NDArray
from PIL import Image, ImageCms

U8 = NDArray[np.uint8]

# Profiles of printers have 0.5 to 2 MiB; those of cameras and screens a few hundred bytes.
LARGEST_PROFILE = 4 << 20
# Transforms that a worker keeps: cameras of one kind write one profile.
_KEPT = 8
# A difference that nobody sees, in levels of 255: what rounding makes of sRGB's own profiles.
_UNSEEN = 3


class Colours(NamedTuple):
    """A conversion to sRGB.

    Attributes:
        transform: of LittleCMS.
        mode: of the pictures that it takes: RGB, L or CMYK.
    """

    transform: ImageCms.ImageCmsTransform
    mode: str


def colours_of(image: Image.Image, data: bytes) -> Colours | None:
    """Find how the colours of a file become sRGB; None for those that are, or whose profile cannot be used.

    Args:
        image: opened; its ``info`` may hold a profile.
        data: the file.

    Raises:
        BadPicture: colours that are stated and not served.
    """
    profile = image.info.get("icc_profile")
    if not isinstance(profile, bytes) or not profile or stated_colours.has_priority(image, data):
        profile = stated_colours.profile_of(image, data)
        block = image.info.get("exif")
        if profile is None and isinstance(block, bytes) and exif.is_adobe_rgb(block):
            profile = stated_colours.adobe_rgb()
    if profile is None or not 128 < len(profile) <= LARGEST_PROFILE:
        return None
    return _colours(profile)


@lru_cache(maxsize=_KEPT)
def _colours(data: bytes) -> Colours | None:
    try:
        profile = ImageCms.ImageCmsProfile(BytesIO(data))
        space = profile.profile.xcolor_space
        mode = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}[space]
        transform = ImageCms.buildTransform(
            profile,
            ImageCms.createProfile("sRGB"),
            mode,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
        return None if mode == "RGB" and _changes_nothing(transform) else Colours(transform, mode)
    except (ImageCms.PyCMSError, OSError, KeyError, TypeError, ValueError):
        return None  # a profile that cannot be read is no reason to refuse a picture that can


def _changes_nothing(transform: ImageCms.ImageCmsTransform) -> bool:
    """Return whether colours from all over the cube come out as they went in."""
    levels = np.linspace(0, 255, 9).round().astype(np.uint8)
    cube = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(27, 27, 3)
    converted = ImageCms.applyTransform(Image.fromarray(cube), transform)
    assert converted is not None
    return bool(np.abs(np.asarray(converted).astype(int) - cube).max() <= _UNSEEN)


def applied(image: Image.Image, colours: Colours | None) -> Image.Image:
    """Convert a picture to RGB, by its profile where its mode is the one that the conversion takes."""
    if colours is not None and image.mode == colours.mode:
        try:
            converted = ImageCms.applyTransform(image, colours.transform)
        except ImageCms.PyCMSError:  # as above
            converted = None
        image = image if converted is None else converted
    return image if image.mode == "RGB" else image.convert("RGB")


def grey_curve(colours: Colours | None) -> NDArray[np.float32] | None:
    """Return what grey becomes, float32 [256] in 0..255, for greys finer than 8 bits; None for no change."""
    if colours is None or colours.mode == "CMYK":
        return None
    ramp = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    converted = applied(ramp if colours.mode == "L" else ramp.convert("RGB"), colours)
    return np.asarray(np.asarray(converted)[0].mean(axis=1), np.float32)
