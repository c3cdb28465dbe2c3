"""Augmentation moves pictures, points and angles together."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from networks.camera import rotation
from training.regressor import Warp
from training.render import MARGIN, SIZE

WARP = Warp(torch.tensor([0.3, -0.2]), torch.tensor([1.1, 0.93]), torch.tensor([[4.0, -7.0], [0.0, 3.5]]))


def dots(places: torch.Tensor) -> torch.Tensor:
    """(B, 3, 288, 288) uint8 with a soft dot at each place (B, 2) of the 224 px crop."""
    axis = torch.arange(SIZE) - float(MARGIN)
    x, y = places[:, 0, None, None], places[:, 1, None, None]
    soft = torch.exp(-((axis[None, None] - x) ** 2 + (axis[None, :, None] - y) ** 2) / (2 * 5.0**2))
    return (soft * 255).round().to(torch.uint8)[:, None].expand(-1, 3, -1, -1).contiguous()


def centres(pictures: torch.Tensor) -> torch.Tensor:
    """(B, 2) column and row of each picture's centre of mass."""
    mass = pictures[:, 0]
    axis = torch.arange(mass.shape[-1], dtype=torch.float32)
    total = mass.sum((1, 2))
    return torch.stack([(mass.sum(1) * axis).sum(1) / total, (mass.sum(2) * axis).sum(1) / total], 1)


@pytest.mark.parametrize("resolution", [224, 112])
def test_points_and_pictures_stay_together(resolution: int) -> None:
    places = torch.tensor([[80.0, 130.0], [150.0, 95.5]])
    found = (centres(WARP.picture(dots(places), resolution)) + 0.5) * (224 / resolution) - 0.5
    np.testing.assert_allclose(found.numpy(), WARP.points(places[:, None])[:, 0].numpy(), atol=0.15)


def test_a_warp_is_a_roll_of_the_head() -> None:
    head = torch.randn(2, 9, 3, generator=torch.Generator().manual_seed(0))
    plain = Warp(WARP.angle, torch.ones(2), torch.zeros(2, 2))
    rolled = head @ rotation(torch.stack([torch.zeros(2), torch.zeros(2), WARP.angle], 1))
    flat = torch.tensor([30.0, -30.0])  # rows run down
    np.testing.assert_allclose(plain.points(head[..., :2] * flat + 111.5), rolled[..., :2] * flat + 111.5, atol=1e-3)


def test_without_training_nothing_moves() -> None:
    still = Warp.random(2, False)
    points = torch.rand(2, 5, 2) * 224
    np.testing.assert_allclose(still.points(points).numpy(), points.numpy(), atol=1e-4)
    pictures = torch.randint(0, 256, (2, 3, SIZE, SIZE), dtype=torch.uint8)
    inner = pictures[..., MARGIN:-MARGIN, MARGIN:-MARGIN].float() / 255
    np.testing.assert_allclose(still.picture(pictures, 224).numpy(), inner.numpy(), atol=1e-4)


def test_at_half_size_training_sees_what_the_service_s_graph_makes_of_a_crop() -> None:
    pictures = torch.randint(0, 256, (2, 3, SIZE, SIZE), dtype=torch.uint8)
    inner = pictures[..., MARGIN:-MARGIN, MARGIN:-MARGIN].float() / 255
    halved = Warp.random(2, False).picture(pictures, 112)
    np.testing.assert_allclose(halved.numpy(), F.avg_pool2d(inner, 2).numpy(), atol=1e-4)


def test_what_comes_from_beyond_the_margin_is_black() -> None:
    far = Warp(torch.zeros(1), torch.ones(1), torch.tensor([[100.0, 0.0]]))
    moved = far.picture(torch.full((1, 3, SIZE, SIZE), 255, dtype=torch.uint8), 224)
    assert not moved[..., : 100 - MARGIN - 1].any()
    assert (moved[..., 100 - MARGIN + 1 :] == 1).all()
