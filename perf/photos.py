"""The photographs that measurements send: two portraits in the public domain that come with installed packages."""

from __future__ import annotations

import importlib.util
import io
from functools import cache
from pathlib import Path

from PIL import Image

from server.demo import default_photo


def astronaut() -> Path:
    """Return the path of scikit-image's public-domain portrait (Eileen Collins, NASA), a PNG of 512 x 512."""
    spec = importlib.util.find_spec("skimage")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "data" / "astronaut.png"


def grace_hopper() -> Path:
    """Return the path of matplotlib's public-domain portrait (Grace Hopper, US Navy), a JPEG of 512 x 600."""
    return default_photo()


@cache
def mix() -> dict[str, bytes]:
    """Return name -> file bytes: 0.26 MP PNG, 0.31 MP JPEG, and both portraits as JPEGs of one megapixel."""
    return {
        "png-0.26MP": astronaut().read_bytes(),
        "jpeg-0.31MP": grace_hopper().read_bytes(),
        "jpeg-1MP-a": of_size(1.0),
        "jpeg-1MP-b": of_size(1.0, grace_hopper()),
    }


@cache
def of_size(megapixels: float, portrait: Path | None = None) -> bytes:
    """Make a JPEG (quality 90) of ``megapixels`` that shows one portrait, scaled."""
    with Image.open(portrait or astronaut()) as opened:
        picture = opened.convert("RGB")
    scale = (megapixels * 1e6 / (picture.width * picture.height)) ** 0.5
    size = (round(picture.width * scale), round(picture.height * scale))
    return _jpeg(picture.resize(size, Image.Resampling.BICUBIC))


@cache
def group(faces: int, side: int = 1600) -> bytes:
    """Make a JPEG of ``side`` x ``side`` pixels with 1 to 16 faces in a grid of four columns."""
    with Image.open(astronaut()) as opened:
        face = opened.convert("RGB").resize((side // 4, side // 4), Image.Resampling.LANCZOS)
    canvas = Image.new("RGB", (side, side), (96, 110, 120))
    for index in range(faces):
        canvas.paste(face, (index % 4 * face.width, index // 4 * face.height))
    return _jpeg(canvas)


@cache
def no_face() -> bytes:
    """Make a JPEG without a face: a gradient."""
    return _jpeg(Image.linear_gradient("L").resize((640, 480)).convert("RGB"))


def broken() -> bytes:
    """Return a truncated JPEG."""
    complete = of_size(0.3)
    return complete[: len(complete) // 3]


def _jpeg(picture: Image.Image) -> bytes:
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=90)
    return out.getvalue()
