"""The texture network keeps what the picture shows, hides what it does not, and fills that in."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from networks.face_model import FaceModel
from networks.texture import SIZE, TextureNet, UNet, UVSampler, complete, example_inputs
from tests.export.synthetic import face_model, pixels, rotation_matrix

RATIO = 224 / 512  # pixels of the small crop per pixel of the large one, when both show the same square


@pytest.fixture(scope="module")
def model() -> FaceModel:
    return face_model()


@pytest.fixture(scope="module")
def without_unet(model: FaceModel) -> TextureNet:
    """Load the network without its U-Net."""
    return TextureNet.load(None, model)


@pytest.fixture(scope="module")
def sampler(without_unet: TextureNet) -> UVSampler:
    return without_unet.sampler


def camera() -> torch.Tensor:
    """Return (1, 8): source pixels are those of the 224 px crop; the 512 px crop shows the same square."""
    shift = 0.5 * RATIO - 0.5
    return torch.tensor([[1.0, 1.0, 0.0, 0.0, RATIO, RATIO, shift, shift]])


def posed(model: FaceModel, yaw: float = 0.0) -> torch.Tensor:
    return torch.from_numpy((model.mean @ rotation_matrix(0, np.radians(yaw), 0).T).astype(np.float32))[None]


def seen_at(sampler: UVSampler, shape: torch.Tensor, u: float, v: float) -> float:
    """Return the visibility at a UV of the model, on a uniformly grey picture."""
    _, seen = sampler(torch.full((1, 3, 512, 512), 90.0), shape, camera())
    return float(seen[0, 0, int((1 - v) * SIZE), int(u * SIZE)])


def some_texture(seed: int = 0) -> torch.Tensor:
    return 255 * torch.rand(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


def unet_that_adds(levels: float) -> UNet:
    unet = UNet().eval()
    assert unet.head.bias is not None
    with torch.no_grad():
        unet.head.bias.fill_(levels / 255)
    return unet


def test_what_is_fully_seen_is_left_as_it_is() -> None:
    with torch.no_grad():
        completed = complete(some_texture(), torch.ones(1, 1, SIZE, SIZE), unet_that_adds(60))
    assert torch.equal(completed, some_texture())


def test_what_is_not_seen_is_corrected_by_the_u_net() -> None:
    grey = torch.full((1, 3, SIZE, SIZE), 120.0)
    with torch.no_grad():
        completed = complete(grey, torch.zeros(1, 1, SIZE, SIZE), unet_that_adds(60))
    np.testing.assert_allclose(completed.numpy(), 60, atol=1e-3)  # filling knows nothing here: 0, corrected by 60


def test_what_is_mirrored_is_corrected_by_the_u_net() -> None:
    grey, left = torch.full((1, 3, SIZE, SIZE), 120.0), torch.zeros(1, 1, SIZE, SIZE)
    left[..., : SIZE // 2] = 1
    with torch.no_grad():
        completed = complete(grey, left, unet_that_adds(-20))
    np.testing.assert_allclose(completed[..., : SIZE // 2].numpy(), 120, atol=1e-3)
    np.testing.assert_allclose(completed[..., SIZE // 2 :].numpy(), 100, atol=1e-3)


def test_a_side_that_is_not_seen_is_the_mirrored_other_side() -> None:
    seen = torch.zeros(1, 1, SIZE, SIZE)
    seen[..., : SIZE // 2] = 1
    filled = complete(some_texture(), seen)
    assert torch.equal(filled[..., SIZE // 2 :], some_texture()[..., : SIZE // 2].flip(3))
    assert torch.equal(filled[..., : SIZE // 2], some_texture()[..., : SIZE // 2])


def test_a_hole_on_both_sides_is_filled_smoothly_from_around() -> None:
    seen = torch.ones(1, 1, SIZE, SIZE)
    seen[:, :, 200:300, 156:356] = 0
    wrong = torch.where(seen > 0, torch.full((1, 3, SIZE, SIZE), 80.0), torch.full((1, 3, SIZE, SIZE), 255.0))
    np.testing.assert_allclose(complete(wrong, seen).numpy(), 80, atol=0.02)


def test_texels_show_the_place_of_the_picture_where_their_vertex_is_seen(model: FaceModel, sampler: UVSampler) -> None:
    columns = torch.arange(512.0).view(1, 1, 1, 512).expand(1, 1, 512, 512) / 2
    picture = torch.cat([columns, columns.transpose(2, 3), torch.full_like(columns, 99)], 1)
    colour, seen = sampler(picture, posed(model), camera())
    at = np.floor(np.stack([model.uv[:, 0], 1 - model.uv[:, 1]]) * SIZE).astype(int)
    judged = seen[0, 0].numpy()[at[1], at[0]] > 0.9
    assert judged.mean() > 0.5
    expected: NDArray[np.float64] = (pixels(model.mean.astype(np.float64)) + 0.5) / RATIO - 0.5
    shown = colour[0, :2].numpy()[:, at[1], at[0]].T * 2
    assert np.abs(shown - expected)[judged].max() < 2  # a texel is a third of a pixel; its vertex lies anywhere in it


def test_the_cheek_behind_the_nose_is_hidden_at_45_degrees(model: FaceModel, sampler: UVSampler) -> None:
    beside = (
        0.22 / 1.6
    )  # the nose is 0.4 dm high: it covers the cheek 0.22 dm beside its bridge, which faces the camera
    assert seen_at(sampler, posed(model, 45), 0.5 + beside, 0.5) < 0.05
    assert seen_at(sampler, posed(model, 45), 0.5 - beside, 0.5) > 0.9
    assert seen_at(sampler, posed(model, -45), 0.5 - beside, 0.5) < 0.05
    assert seen_at(sampler, posed(model), 0.5 + beside, 0.5) > 0.9


def test_what_lies_beyond_the_picture_is_not_seen(model: FaceModel, sampler: UVSampler) -> None:
    aside = posed(model) + torch.tensor([0.9, 0.0, 0.0])  # the right half of the face leaves the crop
    assert seen_at(sampler, aside, 0.8, 0.3) == 0
    assert seen_at(sampler, aside, 0.25, 0.3) > 0.9


def test_normals_are_unit_vectors_out_of_the_face(model: FaceModel, sampler: UVSampler) -> None:
    normals = sampler.normals(posed(model))[0].numpy()
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-5)
    assert (normals[:, 2] > 0).all()


def test_a_network_answers_bytes_of_the_promised_shapes(model: FaceModel, without_unet: TextureNet) -> None:
    crop, shapes, context = example_inputs(len(model.mean), 1)
    shapes[:, 0] = posed(model)
    context[:, 15:23] = camera()
    with torch.no_grad():
        texture, visibility = without_unet(torch.full_like(crop, 200), shapes, context)
    assert texture.shape == (1, 3, 512, 512)
    assert visibility.shape == (1, 1, 512, 512)
    assert texture.dtype == visibility.dtype == torch.uint8
    assert ((texture >= 199) & (texture <= 201)).all()
    assert visibility.max() == 255
