"""A folder such as people have: most files are photographs of a face, some are not."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

FORMATS = (("jpg", "JPEG"), ("png", "PNG"), ("webp", "WEBP"), ("bmp", "BMP"), ("tif", "TIFF"))
FOLDERS = ("", "deep", "deep/er", "Fotos \u00fc", "\u5199\u771f/\u4e09")


def landscape(width: int = 640, height: int = 400) -> Image.Image:
    """Sky, hills, a field."""
    y, x = np.mgrid[0:height, 0:width]
    sky = np.stack([120 + y * 0.2, 170 + y * 0.15, 235 - y * 0.05], -1)
    hills = height * (0.55 + 0.08 * np.sin(x / 70) + 0.04 * np.sin(x / 23))
    field = np.stack([70 + y * 0.1, 120 + y * 0.05, 50 + 10 * np.sin(x / 5)], -1)
    return Image.fromarray(np.where((y > hills)[..., None], field, sky).clip(0, 255).astype(np.uint8))


def _file(picture: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind)
    return buffer.getvalue()


def _bomb() -> bytes:
    """A whole PNG file of a few bytes that says it has 60,000 x 60,000 pixels."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def build(folder: Path, portraits: list[bytes], count: int) -> tuple[set[str], dict[str, str]]:
    """Fill a folder with `count` files, three of ten unusable.

    Returns:
        the usable ones' names below the folder, and of the others the reason that must be given.
    """
    faces = [Image.open(io.BytesIO(data)).convert("RGB") for data in portraits]
    good: set[str] = set()
    bad: dict[str, str] = {}
    random = np.random.default_rng(7)
    for number in range(count):
        place = FOLDERS[number % len(FOLDERS)]
        if number % 10 < 7:
            suffix, kind = FORMATS[number % len(FORMATS)]
            picture = faces[number % len(faces)]
            side = int(random.integers(300, 800))
            picture = ImageOps.contain(picture, (side, side))
            if number % 3 == 0:
                picture = ImageOps.mirror(picture)
            name, content = f"portrait-{number:03} \u00e9.{suffix}", _file(picture, kind)
            good.add(f"{place}/{name}".lstrip("/"))
        else:
            whole = _file(faces[0], "JPEG")
            name, content, reason = (
                (f"letter-{number}.txt", b"Dear Sir or Madam, this is no picture.", "BadImage"),
                (f"cut-{number}.jpg", whole[: len(whole) // 3], "BadImage"),
                (f"landscape-{number}.jpg", _file(landscape(), "JPEG"), "NoFace"),
                (f"bomb-{number}.png", _bomb(), "ImageTooLarge"),
                (f"empty-{number}.jpg", b"", "BadImage"),
                (f"noise-{number}.png", random.bytes(3000), "BadImage"),
            )[(number // 10 * 3 + number % 10 - 7) % 6]
            bad[f"{place}/{name}".lstrip("/")] = reason
        path = folder / place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    # One that no reader should even open: 65 MiB of nothing, which takes no room on the disk.
    huge = folder / "huge.tif"
    with huge.open("wb") as file:
        file.truncate(65 << 20)
    bad["huge.tif"] = "ImageTooLarge"
    return good, bad
