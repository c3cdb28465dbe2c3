"""What surrounds the model `enhance`: tiles, which faces are enhanced, and where what is enhanced lies."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.model_repository.version_folder import load

enhancing = load("postprocess", "enhancing")
photograph = load("postprocess", "photograph")

U8 = NDArray[np.uint8]


class Brighter:
    """Stands where `enhance` is asked: adds 10 levels, and counts tiles."""

    def __init__(self) -> None:
        self.tiles = 0

    def __call__(self, tiles: U8) -> U8:
        assert tiles.dtype == np.uint8
        assert tiles.shape[1:] == (3, enhancing.TILE, enhancing.TILE)
        assert 0 < len(tiles) <= enhancing.TILES
        self.tiles += len(tiles)
        return tiles + np.uint8(10)


def noise(height: int, width: int) -> U8:
    return np.random.default_rng(2).integers(0, 240, (height, width, 3)).astype(np.uint8)


@pytest.mark.parametrize(
    ("height", "width", "tiles"), [(320, 320, 1), (1, 1, 1), (200, 321, 2), (576, 400, 4), (700, 700, 9)]
)
def test_every_pixel_passes_once_whatever_the_size(height: int, width: int, tiles: int) -> None:
    picture, brighter = noise(height, width), Brighter()
    np.testing.assert_array_equal(enhancing.enhanced(picture, brighter), picture + 10)
    assert brighter.tiles == tiles


def test_a_tile_gives_nothing_near_an_edge_that_it_shares() -> None:
    def edged(tiles: U8) -> U8:
        made = tiles.copy()
        rim = enhancing.SHARED // 2 - 1
        made[..., :rim] = made[..., -rim:] = 255
        return made

    made = enhancing.enhanced(np.zeros((320, 576, 3), np.uint8), edged)
    assert not made[:, 40:-40].any()


def shown(size: float) -> Any:
    """A face in the middle of the crops; a pixel of the 224 px crop is ``size`` pixels of the photograph."""
    axis = (np.arange(256, dtype=np.float32) + 0.5) * (224 / 256) - 0.5
    columns, rows = np.meshgrid(axis, axis)
    seen = np.zeros((256, 256), np.float32)
    seen[60:200, 60:200] = 1
    fine = 224 / 512 * size
    context = np.array([0] * 15 + [size, size, 0, 0, fine, fine, 0, 0], np.float32)
    crop = np.ascontiguousarray(cv2.GaussianBlur(noise(512, 512), (0, 0), 3).transpose(2, 0, 1))
    none = np.zeros((1, 1, 3), np.uint8), np.zeros(4, np.float32)
    return photograph.Photograph.of(np.stack([columns, rows, seen, seen]), context, crop, *none)


@pytest.mark.parametrize("size", [0.9, 0.5])
def test_a_face_of_few_pixels_is_enhanced_where_its_skin_is_seen(size: float) -> None:
    face, brighter = shown(size), Brighter()
    made = face.upscaled(brighter)
    assert (face.largest_texture, made.largest_texture) == (512, 1024)
    changed = (made.pixels != face.pixels).any(axis=2)
    assert changed[200:300, 200:300].all()
    assert not changed[:40].any()
    assert not changed[:, -40:].any()
    assert np.abs(made.pixels[200:300, 200:300].astype(int) - face.pixels[200:300, 200:300] - 10).max() <= 2
    assert brighter.tiles <= 4


def test_a_face_with_its_own_pixels_stays_as_it_is() -> None:
    face, brighter = replace(shown(0.5), coarse=False), Brighter()
    assert face.upscaled(brighter) is face
    assert not brighter.tiles
