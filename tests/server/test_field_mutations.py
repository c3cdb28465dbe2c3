"""Damaged pictures of the field's kinds through the whole service: a typed refusal, or the face of the photograph.

A file whose damage moves the pixels about (another width, another order of planes) may still be decoded; what must not
come of it is a mesh of scrambled pixels.
"""

from __future__ import annotations

import io
import struct
from collections import Counter
from typing import Any

import cv2
import numpy as np
import pytest
from face3d_client import Face3DClient, RequestError
from numpy.typing import NDArray
from PIL import Image

from server.service import Service
from tests.model_repository.picture_fuzz import mutations
from tests.model_repository.test_field_colours import with_chunk
from tests.model_repository.tiff_files import DEFLATE, GREY, PALETTE, Page, written
from tests.model_repository.version_folder import load

pictures = load("preprocess", "pictures")
icc = load("preprocess", "icc")

# Of two crops of one face; of a face and of noise, or of its planes side by side, it is below 0.4.
LIKE = 0.6


def kinds(portrait: Image.Image) -> list[bytes]:
    """One file of each kind of the field that is decoded, all of one portrait."""
    rgb = np.asarray(portrait)

    def file(image: Image.Image, kind: str, **options: Any) -> bytes:
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        return buffer.getvalue()

    wide = (rgb.astype(np.uint16) * 257)[..., :3]
    grey = rgb.mean(axis=2, keepdims=True).astype(np.uint8)
    clear = np.dstack([rgb, np.zeros_like(grey)])
    palette = portrait.quantize(64)
    colours = np.zeros((256, 3), int)
    colours[:64] = np.array(palette.getpalette()[:192]).reshape(64, 3) * 257  # type: ignore[index]
    indices = np.dstack([np.asarray(palette), np.full_like(grey[..., 0], 255)])
    linear = icc.profile(icc.BT709, icc.power(1.0)).replace(b"stated by the file", b"sRGB IEC61966-2.1 ")
    jpeg = file(portrait, "JPEG", quality=90)
    film = struct.pack(">I4s4sI", 16, b"ftyp", b"mp42", 0) + np.random.default_rng(1).bytes(200_000)
    preview = Page(rgb[::5, ::5], tags={254: [1]})
    return [
        written([preview, Page(rgb)]),
        written([Page(rgb[::5, ::5], tags={254: [1]}, sub=[Page(rgb)])], ">"),
        file(portrait, "PNG", icc_profile=linear),
        with_chunk(file(portrait, "PNG"), b"gAMA", struct.pack(">I", 100_000)),
        with_chunk(file(portrait, "PNG"), b"cICP", bytes((12, 13, 0, 1))),
        file(Image.fromarray(clear), "PNG"),
        file(Image.fromarray(clear), "TIFF"),
        written([Page(wide, planar=True)]),
        written([Page(wide, planar=True, compression=DEFLATE, predictor=2)], ">"),
        written([Page((rgb / 255).astype(np.float16))]),
        written([Page((rgb / 255).astype(np.float32), compression=DEFLATE, predictor=3, tile=32)], ">", True),
        written([Page(np.dstack([grey, grey * 0 + 255]).astype(np.uint16) * 257, GREY, tags={338: [2]})]),
        written([Page(indices, PALETTE, tags={320: colours.T.ravel().tolist(), 338: [2]})]),
        written([Page(np.asarray(portrait.convert("CMYK")), 5, planar=True)]),
        jpeg + film,
        jpeg[:-2],
        file(portrait, "JPEG", progressive=True, quality=85)[:-2],
        file(portrait.convert("CMYK"), "JPEG", quality=85),
        file(portrait, "AVIF", quality=80),
        file(portrait, "WEBP", quality=85),
        file(portrait, "BMP"),
        pictures.sample("HEIF"),
        jpeg.replace(b"\n", b"\r\n"),
    ]


def shown(picture: Any, box: NDArray[np.float32]) -> NDArray[np.float32]:
    """The luminance of a box of the picture, 12 x 12, without its mean: also of a preview, whose face has 15 pixels."""
    x1, y1, x2, y2 = (box / np.tile(picture.ratio, 2)).round().astype(int)
    rows, cols = picture.pixels.shape[:2]
    crop = picture.pixels[max(0, y1) : min(rows, y2), max(0, x1) : min(cols, x2)]
    small = cv2.resize(crop, (12, 12), interpolation=cv2.INTER_AREA).astype(np.float32).mean(axis=2)
    return np.asarray(small - small.mean(), np.float32)


def likeness(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    return float((one * other).sum() / np.sqrt((one**2).sum() * (other**2).sum() + 1e-6))


@pytest.fixture(scope="module")
def portrait(portrait_jpeg: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(portrait_jpeg)).convert("RGB")
    image.thumbnail((256, 256))
    return image


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("files", [46, pytest.param(300, marks=pytest.mark.soak)])
def test_a_damaged_picture_is_refused_or_gives_the_face_of_the_photograph(
    running_service: Service, portrait: Image.Image, files: int
) -> None:
    results: Counter[str] = Counter()
    originals = kinds(portrait)
    with Face3DClient(running_service.grpc, timeout=60) as client:
        whole = pictures.decode(originals[0], pictures.Limits())
        face = client.reconstruct(originals[0], outputs=["face"])
        true = shown(whole, face.box)
        for number, data in enumerate((*originals, *mutations(files, 23, originals))):
            try:
                found = client.reconstruct(data, outputs=["face"])
            except RequestError as error:
                results[type(error).__name__] += 1
                continue
            seen = likeness(shown(pictures.decode(data, pictures.Limits()), found.box), true)
            assert seen > LIKE, f"file {number}: a face of other pixels ({seen:.2f}, score {found.score:.2f})"
            results["face"] += 1
        assert client.ready()
    print(f"\n{dict(results)}")
    # Both happen: neither is every file damaged beyond use, nor is the damage without effect.
    assert min(results["face"], results["BadImage"]) > len(originals) / 5
    assert sum(results.values()) == files + len(originals)


@pytest.mark.filterwarnings("ignore")
def test_every_kind_of_the_field_gives_the_face_of_the_photograph(
    running_service: Service, portrait: Image.Image
) -> None:
    originals = kinds(portrait)
    with Face3DClient(running_service.grpc, timeout=60) as client:
        whole = pictures.decode(originals[0], pictures.Limits())
        true = shown(whole, client.reconstruct(originals[0], outputs=["face"]).box)
        for number, data in enumerate(originals[:-2]):  # the last two hold no face, and no picture any more
            found = client.reconstruct(data, outputs=["face"])
            assert likeness(shown(pictures.decode(data, pictures.Limits()), found.box), true) > 0.8, number
