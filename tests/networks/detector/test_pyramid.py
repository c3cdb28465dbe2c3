"""The pyramid and the crops against adaptive mean pooling."""

import numpy as np
import torch
from torch.nn.functional import adaptive_avg_pool2d

from networks.detector import pyramid
from networks.detector.contract import GREY


def _canvas(seed: int = 0) -> torch.Tensor:
    chance = np.random.default_rng(seed)
    return torch.from_numpy(chance.integers(0, 256, (2, 3, 512, 512)).astype(np.uint8))


def test_every_level_is_the_area_interpolation_of_the_canvas() -> None:
    canvas = _canvas()
    table = pyramid.summed_area_table(canvas)
    for scale in pyramid.level_scales():
        side = int(512 * scale + 1)
        wanted = adaptive_avg_pool2d(canvas.float() - GREY, side)
        torch.testing.assert_close(pyramid.level(table, scale), wanted, rtol=0, atol=1e-3)


def test_a_crop_is_the_area_interpolation_of_its_pixels_whether_it_shrinks_or_grows() -> None:
    canvas = _canvas(1)
    table = pyramid.summed_area_table(canvas)
    low = torch.tensor([[[0, 0], [100, 7], [511, 511], [30, 40]], [[5, 5], [0, 500], [200, 200], [1, 2]]]).float()
    high = torch.tensor([[[512, 512], [117, 40], [512, 512], [54, 64]], [[6, 512], [512, 510], [447, 448], [3, 5]]])
    crops = pyramid.crops(table, low, high.float(), 24).reshape(2, 4, 3, 24, 24)
    for picture in range(2):
        for box in range(4):
            (x0, y0), (x1, y1) = low[picture, box].int().tolist(), high[picture, box].tolist()
            wanted = adaptive_avg_pool2d(canvas[picture : picture + 1, :, y0:y1, x0:x1].float() - GREY, 24)[0]
            torch.testing.assert_close(crops[picture, box], wanted, rtol=0, atol=1e-3)


def test_an_empty_rectangle_gives_a_crop_of_zeros_and_no_nan() -> None:
    table = pyramid.summed_area_table(_canvas(2))
    low, high = torch.full((2, 1, 2), 300.0), torch.full((2, 1, 2), 200.0)
    assert torch.count_nonzero(pyramid.crops(table, low, high, 24)) == 0


def test_the_table_stays_exact_to_half_a_grey_level_on_an_all_white_picture() -> None:
    table = pyramid.summed_area_table(torch.full((1, 3, 512, 512), 255, dtype=torch.uint8))
    whole = pyramid.crops(table, torch.tensor([[[480.0, 480.0]]]), torch.tensor([[[504.0, 504.0]]]), 24)
    assert float((whole - (255 - GREY)).abs().max()) <= 8.0  # windows of one pixel in the far corner
    level = pyramid.level(table, 0.1)
    assert float((level - (255 - GREY)).abs().max()) <= 0.5
