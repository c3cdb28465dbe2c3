"""Mutated picture files against the decoder of `preprocess`, in a process of its own with a limit on its memory.

    python -m tests.model_repository.picture_fuzz --files 5000 [--seed 1]

Prints one line of JSON: how many were decoded, how many refused by tag, what the slowest took. A file that ends the
process, or that makes the decoder raise anything but its own refusal, is written to ``--keep`` and ends the run with
status 1.
"""

from __future__ import annotations

import argparse
import io
import json
import resource
import struct
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms

from tests.model_repository.version_folder import load

# Twice what the largest picture that is allowed takes (65 megapixels with alpha, and its copy).
_MEMORY = 3 << 30


def seeds() -> list[bytes]:
    """Small valid files of every format and of the variants that run other code in the decoders."""
    rows, cols = np.mgrid[0:96, 0:128]
    colour = Image.fromarray(np.stack([rows * 2, cols, (rows * cols) % 256], axis=-1).astype(np.uint8))
    grey16 = Image.fromarray((rows * 500 + cols).astype(np.uint16))
    exif = Image.Exif()
    exif[0x0112] = 6
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes().replace(b"sRGB", b"mine")

    def frames() -> list[Image.Image]:
        # New ones each time: Pillow leaves the settings of a codec on a picture that was saved.
        return [colour.rotate(angle) for angle in (90, 180)]

    variants: list[tuple[Image.Image, str, dict[str, object]]] = [
        (colour, "JPEG", {"quality": 90, "exif": exif, "icc_profile": profile}),
        (colour, "JPEG", {"progressive": True, "subsampling": 0}),
        (colour.convert("CMYK"), "JPEG", {"icc_profile": profile}),
        (colour.convert("L"), "JPEG", {}),
        (colour, "MPO", {"save_all": True, "append_images": frames()}),
        (colour, "PNG", {"icc_profile": profile, "exif": exif}),
        (colour.convert("RGBA"), "PNG", {}),
        (colour.convert("P"), "PNG", {"transparency": 0}),
        (grey16, "PNG", {}),
        (colour, "PNG", {"save_all": True, "append_images": frames()}),
        (colour, "WEBP", {"exif": exif, "icc_profile": profile}),
        (colour.convert("RGBA"), "WEBP", {"lossless": True}),
        (colour, "WEBP", {"save_all": True, "append_images": frames()}),
        (colour, "TIFF", {"icc_profile": profile}),
        (colour, "TIFF", {"compression": "tiff_lzw"}),
        (colour, "TIFF", {"save_all": True, "append_images": frames()}),
        (colour, "TIFF", {"compression": "jpeg"}),
        (colour, "TIFF", {"compression": "tiff_adobe_deflate"}),
        (colour.convert("1"), "TIFF", {"compression": "group4"}),
        (grey16, "TIFF", {}),
        (colour, "BMP", {}),
        (colour.convert("P"), "BMP", {}),
    ]
    files = []
    for image, kind, options in variants:
        buffer = io.BytesIO()
        image.copy().save(buffer, kind, **options)
        files.append(buffer.getvalue())
    return files


def mutations(count: int, seed: int, originals: list[bytes] | None = None) -> Iterator[bytes]:
    """``count`` damaged files: bytes and bits changed, numbers made extreme, pieces cut, doubled, moved and mixed.

    Args:
        count, seed: of the files, and of the random numbers.
        originals: what is damaged, one after the other; by default `seeds`.
    """
    random = np.random.default_rng(seed)
    originals = originals or seeds()
    extremes = [struct.pack(order + "I", value) for order in "<>" for value in (0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 65_535)]
    for index in range(count):
        data = bytearray(originals[index % len(originals)])
        for _ in range(int(random.integers(1, 5))):
            # Half of the damage goes into the first 600 bytes: what is read there steers the decoder.
            size = len(data) if random.random() < 0.5 else min(len(data), 600)
            at = int(random.integers(0, max(1, size)))
            match int(random.integers(0, 7)):
                case 0:
                    data[at : at + 1] = random.bytes(1)
                case 1 if data:
                    data[at] ^= 1 << int(random.integers(0, 8))
                case 2:
                    data[at : at + 4] = extremes[int(random.integers(0, len(extremes)))]
                case 3:
                    del data[at : at + int(random.integers(1, 64))]
                case 4:
                    data[at:at] = data[at : at + int(random.integers(1, 256))]
                case 5:
                    del data[max(1, len(data) - int(random.integers(1, len(data) + 1))) :]
                case _:
                    other = originals[int(random.integers(0, len(originals)))]
                    start = int(random.integers(0, len(other)))
                    data[at : at + 32] = other[start : start + 32]
        yield bytes(data)


def main() -> int:
    """Run the command; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=5000, metavar="N")
    parser.add_argument("--seed", type=int, default=1, metavar="N")
    parser.add_argument("--keep", type=Path, default=Path("picture-that-broke-it"), metavar="FILE")
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    pictures = load("preprocess", "pictures")
    limits, results, slowest = pictures.Limits(), Counter[str](), 0.0
    for number, data in enumerate(mutations(options.files, options.seed)):
        options.keep.write_bytes(data)  # if this one ends the process, it is there
        began = time.perf_counter()
        try:
            picture = pictures.decode(data, limits)
            canvas, ratio = pictures.canvas_of(picture)
            assert canvas.shape == (3, 512, 512)
            assert np.isfinite(pictures.geometry_of(picture, ratio)).all()
            results["decoded"] += 1
        except pictures.BadPicture as error:
            results[error.tag] += 1
        except BaseException as error:
            print(f"file {number} of seed {options.seed}: {type(error).__name__}: {error}", file=sys.stderr)
            raise
        slowest = max(slowest, time.perf_counter() - began)
        if number % 500 == 499:
            print(f"{number + 1} of {options.files}: {dict(results)}", file=sys.stderr, flush=True)
    options.keep.unlink()
    print(json.dumps({"files": options.files, **results, "slowest_seconds": round(slowest, 3)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
