"""`preprocess`: which page of a TIFF is the picture, and every kind of samples decoded rightly or named."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.model_repository.test_pictures import colour_chart, decode, quarters, refusal
from tests.model_repository.tiff_files import DEFLATE, GREY, INKS, LAB, NONE, PALETTE, Page, written

CHART = colour_chart(70, 50)
WANTED = np.array(quarters(CHART))
PREVIEW = Page(255 - CHART[::4, ::4], tags={254: [1]})
MASK = Page(CHART[..., :1], photometric=4, tags={254: [4]})
SENSOR = Page(CHART[..., :1].astype(np.uint16), photometric=32803)


def off(data: bytes) -> int:
    """The largest difference to the chart, in levels."""
    picture = decode(data)
    assert picture.source == (70, 50)
    return int(np.abs(np.array(quarters(picture.pixels)) - WANTED).max())


def samples(kind: str, alpha: bool = False) -> NDArray[Any]:
    """The chart as samples of a NumPy type, whole numbers over all of their range."""
    dtype = np.dtype(kind)
    top = 1.0 if dtype.kind == "f" else float(np.iinfo(dtype).max)
    channels = [CHART / 255.0, *([np.ones((50, 70, 1))] if alpha else [])]
    return np.asarray((np.concatenate(channels, axis=2) * top).astype(dtype))


# --- pages ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize(
    "pages",
    [
        [PREVIEW, Page(CHART)],
        [PREVIEW, MASK, Page(CHART)],
        [Page(255 - CHART[::2, ::2], tags={255: [2]}), Page(CHART)],
        [MASK, PREVIEW, PREVIEW, Page(CHART), PREVIEW],
        [Page(255 - CHART[::4, ::4], tags={254: [1]}, sub=[Page(CHART)])],
        [Page(255 - CHART[::4, ::4], tags={254: [1]}, sub=[PREVIEW, Page(CHART)])],
        [PREVIEW, Page(CHART, tags={254: [1]})],
        [Page(CHART), PREVIEW],
        [Page(CHART), Page(255 - CHART)],
    ],
    ids=["preview", "mask", "old-mark", "many", "sub", "second-sub", "all-reduced", "last", "two"],
)
def test_the_page_that_is_no_reduced_version_is_decoded(pages: list[Page], order: str, big: bool) -> None:
    assert off(written(pages, order, big)) == 0


@pytest.mark.parametrize(
    ("pages", "word"),
    [
        ([Page(PREVIEW.samples, tags={254: [1]}, sub=[SENSOR])], "raw file"),
        ([SENSOR], "raw file"),
        ([Page(CHART, photometric=34892)], "raw file"),
        ([Page(PREVIEW.samples, tags={254: [1], 50706: [1]})], "raw file (DNG)"),
    ],
)
def test_a_camera_s_raw_file_is_named(pages: list[Page], word: str) -> None:
    tag, sentence = refusal(written(pages))
    assert tag == "BadImage"
    assert word in sentence
    assert "develop it" in sentence


def test_canon_s_raw_file_is_named() -> None:
    data = written([Page(CHART)])
    assert "CR2" in refusal(data[:8] + b"CR\2\0" + data[12:])[1]


def test_pages_that_name_each_other_end() -> None:
    data = bytearray(written([PREVIEW, Page(CHART)]))
    first = int.from_bytes(data[4:8], "little")
    count = int.from_bytes(data[first : first + 2], "little")
    at = first + 2 + 12 * count
    data[at : at + 4] = data[4:8]
    assert "loop" in refusal(bytes(data))[1]


# --- samples --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["u1", "u2", "u4", "i2", "f2", "f4", "f8"])
def test_samples_of_every_type_and_layout_are_decoded(kind: str) -> None:
    predictors = (1, 3) if kind[0] == "f" else (1, 2)
    for planar, tile, alpha, order, big in itertools.product((False, True), (0, 16), (0, 1, 2), "<>", (False, True)):
        for compression, predictor in [(NONE, 1), *((DEFLATE, number) for number in predictors)]:
            page = Page(
                samples(kind, alpha > 0), planar=planar, tile=tile, compression=compression, predictor=predictor
            )
            page.tags = {338: [alpha]} if alpha else {}
            error = off(written([page], order, big))
            assert error <= 1, (planar, tile, alpha, order, big, compression, predictor)


@pytest.mark.parametrize("top", [1.0, 255.0, 65_535.0])
def test_floating_point_is_judged_by_most_of_its_values(top: float) -> None:
    values = samples("f4") * np.float32(top)
    values[0, 0], values[1, 1], values[2, 2] = 40.0 * top, np.inf, np.nan
    assert off(written([Page(values)])) <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_rare_samples_are_turned_like_common_ones(orientation: int) -> None:
    common = decode(written([Page(CHART, tags={274: [orientation]})]))
    rare = decode(written([Page(samples("u2"), planar=True, tags={274: [orientation]})]))
    assert rare.source == common.source
    np.testing.assert_allclose(rare.pixels.astype(int), common.pixels, atol=1)


def _indices() -> tuple[NDArray[np.uint8], list[int]]:
    corners = np.zeros((50, 70, 1), np.uint8)
    corners[:25, 35:], corners[25:, :35], corners[25:, 35:] = 1, 2, 3
    colours = [CHART[0, 0], CHART[0, -1], CHART[-1, 0], CHART[-1, -1], *[np.zeros(3, int)] * 252]
    return corners, [int(colour[channel]) * 257 for channel in range(3) for colour in colours]


@pytest.mark.parametrize("opacity", [None, 255, 0])
def test_a_palette_with_opacity_is_decoded(opacity: int | None) -> None:
    indices, colours = _indices()
    page = Page(indices, PALETTE, tags={320: colours})
    if opacity is not None:
        page.samples = np.concatenate([indices, np.full_like(indices, opacity)], axis=2)
        page.tags[338] = [2]
    assert off(written([page])) == 0


@pytest.mark.parametrize("kind", ["u1", "u2"])
@pytest.mark.parametrize("planar", [False, True])
def test_inks_are_decoded(kind: str, planar: bool) -> None:
    inks = np.asarray(Image.fromarray(CHART).convert("CMYK")).astype(kind) * (257 if kind == "u2" else 1)
    assert off(written([Page(inks.astype(kind), INKS, planar=planar)])) <= 1


@pytest.mark.parametrize("planar", [False, True])
def test_cie_lab_is_decoded_alike_in_eight_and_sixteen_bits(planar: bool) -> None:
    lab = np.empty((50, 70, 3), np.uint8)
    lab[...] = (150, 40, 226)  # a = 40, b = -30
    narrow = decode(written([Page(lab, LAB)])).pixels[5, 5].astype(int)
    wide = np.concatenate([lab[..., :1].astype(np.uint16) * 257, lab[..., 1:].astype(np.uint16) * 256], axis=2)
    for page in (Page(wide, LAB, planar=planar), Page(lab, LAB, planar=planar)):
        np.testing.assert_allclose(decode(written([page])).pixels[5, 5], narrow, atol=1)
    assert narrow[0] > narrow[1] + 30


@pytest.mark.parametrize("kind", ["u1", "u2"])
@pytest.mark.parametrize("opacity", [0, 1])
def test_grey_with_opacity_is_decoded(kind: str, opacity: int) -> None:
    top = np.iinfo(kind).max
    grey = np.full((50, 70, 2), round(0.4 * top), kind)
    grey[..., 1] = opacity * top
    for stated in (1, 2):
        np.testing.assert_allclose(decode(written([Page(grey, GREY, tags={338: [stated]})])).pixels, 102, atol=1)


@pytest.mark.parametrize("kind", ["u1", "u2", "f4"])
def test_white_may_be_zero(kind: str) -> None:
    values = (samples(kind)[..., :1] * 0 + (np.iinfo(kind).max // 5 if kind != "f4" else 0.2)).astype(kind)
    np.testing.assert_allclose(decode(written([Page(values, 0)])).pixels, 204, atol=1)


@pytest.mark.parametrize("stated", [0, 1, 2])
def test_opacity_that_is_zero_everywhere_means_opaque(stated: int) -> None:
    rgba = np.dstack([CHART, np.zeros((50, 70), np.uint8)])
    assert off(written([Page(rgba, tags={338: [stated]})])) == 0


def test_colours_weighed_by_their_opacity_are_laid_on_white_like_others() -> None:
    weighed = np.dstack([(CHART * 0.5).round().astype(np.uint8), np.full((50, 70), 128, np.uint8)])
    plain = np.dstack([CHART, np.full((50, 70), 128, np.uint8)])
    one, other = (decode(written([Page(rows, tags={338: [n]})])).pixels for rows, n in ((weighed, 1), (plain, 2)))
    np.testing.assert_allclose(one.astype(int), other, atol=3)


@pytest.mark.parametrize(
    ("page", "word"),
    [
        (Page(samples("u4"), tags={339: [5] * 3}), "complex"),
        (Page(CHART, tags={258: [8, 8, 4]}), "differ in size"),
        (Page(samples("u4"), tags={258: [24] * 3}), "24 bits"),
        (Page(CHART, photometric=32845), "LogLuv"),
        (Page(CHART, photometric=9), "ICC Lab"),
        (Page(CHART, photometric=6, planar=True), "separate planes"),
        (Page(CHART, tags={259: [34676]}), "compression 34676"),
    ],
)
def test_samples_that_are_not_served_are_named(page: Page, word: str) -> None:
    tag, sentence = refusal(written([page]))
    assert tag == "BadImage"
    assert word in sentence


def test_planes_that_end_early_are_refused() -> None:
    data = written([Page(samples("u2"), planar=True)])
    page = Page(samples("u2"), planar=True, tags={273: [8] * 3, 279: [100] * 3})
    assert refusal(written([page]))[0] == "BadImage"
    assert off(data) <= 1
