"""`postprocess`: the texture's last touches."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.model_repository.version_folder import load

finish = load("postprocess", "finish")
options = load("postprocess", "options")
U8 = NDArray[np.uint8]


def portrait(size: int = 512, seed: int = 2) -> U8:
    """Skin-like colours with grain before a grey wall, a few white highlights; [3, size, size]."""
    random = np.random.default_rng(seed)
    rows, cols = np.mgrid[0:size, 0:size] / size
    base = np.stack([150 + 60 * cols, 110 + 50 * rows, 95 + 40 * cols * rows])
    base[:, :, size // 2 :] = 185
    base[:, ::37, ::41] = 235
    return np.asarray(np.clip(base + random.normal(0, 5, base.shape), 0, 255), np.uint8)


def finished(texture: U8, crop: U8, chosen: Any) -> U8:
    """Finish a texture uint8 [3, h, w] at the side that the options ask for."""
    image = np.ascontiguousarray(texture.transpose(1, 2, 0))
    return np.asarray(finish.finish(image, crop, chosen, chosen.texture_size))


def plain(**changes: Any) -> Any:
    return options.Options(**{"sharpen": 0.0, "texture_size": 512, **changes})


def test_without_options_the_texture_stays_as_it_is() -> None:
    texture = portrait()
    np.testing.assert_array_equal(finished(texture, portrait(), plain()), texture.transpose(1, 2, 0))


@pytest.mark.parametrize("size", [64, 300, 512, 2048])
def test_the_texture_gets_the_size_that_was_asked_for(size: int) -> None:
    done = finished(portrait(), portrait(), options.Options(texture_size=size))
    assert done.shape == (size, size, 3)
    np.testing.assert_allclose(done.mean(axis=(0, 1)), portrait().mean(axis=(1, 2)), atol=1.5)


def test_sharpening_raises_contrast_at_edges_and_keeps_the_level() -> None:
    texture = np.full((3, 64, 64), 80, np.uint8)
    texture[:, :, 32:] = 160
    size = {"texture_size": 64}
    results = [finished(texture, texture, plain(sharpen=s, **size)).astype(int) for s in (0.0, 0.3, 1.0)]
    steps = [result[32, 33, 0] - result[32, 30, 0] for result in results]
    assert steps[0] < steps[1] < steps[2]
    for result in results:
        assert (result[32, 5], result[32, 60]) == (pytest.approx(80, abs=1), pytest.approx(160, abs=1))


def linear(stored: NDArray[Any]) -> NDArray[np.float64]:
    return np.asarray((stored / 255) ** 2.2)


def test_white_balance_takes_the_colour_of_the_light_out() -> None:
    neutral = portrait()
    light = np.array([0.75, 1.0, 1.3])
    tinted = np.clip(255 * (linear(neutral) * light[:, None, None]) ** (1 / 2.2), 0, 255).astype(np.uint8)
    reference = finished(neutral, neutral, plain(white_balance=True)).astype(float)
    balanced = finished(tinted, tinted, plain(white_balance=True)).astype(float)
    untouched = finished(tinted, tinted, plain()).astype(float)
    np.testing.assert_allclose(reference, finished(neutral, neutral, plain()), atol=1)
    assert np.abs(balanced - reference).mean() < 0.6 * np.abs(untouched - reference).mean()


def test_white_balance_leaves_skin_in_white_light_warm() -> None:
    """A face alone, without a grey wall: linear skin is some 1.4 times as red as green."""
    skin = np.empty((3, 64, 64), np.uint8)
    skin[0], skin[1], skin[2] = 205, 172, 164
    done = finished(skin, skin, plain(white_balance=True, texture_size=64))[32, 32].astype(int)
    np.testing.assert_allclose(done, (205, 172, 164), atol=3)


def test_white_balance_leaves_what_shows_no_light_alone() -> None:
    assert finish.gains(np.zeros((3, 64, 64), np.uint8)) == (1.0, 1.0, 1.0)
    assert finish.gains(np.full((3, 64, 64), 255, np.uint8)) == (1.0, 1.0, 1.0)


def test_white_balance_never_goes_wild() -> None:
    red = np.zeros((3, 64, 64), np.uint8)
    red[0], red[1:] = 240, 10
    assert all(1 / 1.4 <= gain <= 1.4 for gain in finish.gains(red))


@pytest.mark.parametrize(("kind", "format_"), [("png", "PNG"), ("jpeg", "JPEG")])
def test_the_file_is_what_it_says_it_is(kind: str, format_: str) -> None:
    image = np.ascontiguousarray(portrait(128).transpose(1, 2, 0))
    opened = Image.open(io.BytesIO(finish.encode(image, kind)))
    assert opened.format == format_
    difference = np.abs(np.asarray(opened).astype(int) - image)
    assert difference.max() == 0 if kind == "png" else difference.mean() < 5
    assert finish.MIME[kind] == Image.MIME[format_]


def test_a_jpeg_texture_keeps_the_full_resolution_of_its_colours() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2], stripes[:, 1::2] = (200, 60, 60), (60, 60, 200)
    opened = np.asarray(Image.open(io.BytesIO(finish.encode(stripes, "jpeg")))).astype(int)
    assert np.abs(opened - stripes).mean() < 12
