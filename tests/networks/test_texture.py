"""The texture network keeps what the picture shows, hides what it does not, and fills that in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from networks.chart import Chart
from networks.face_model import FaceModel
from networks.head_model import HeadModel
from networks.parser import HAIR, OTHER, PARTS, PARTS_SIDE, SKIN
from networks.texture import SIZE, TABLE, TextureNet, UVSampler, example_inputs, mix
from networks.texture_fill import UNet, fill
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


def all_of(part: int) -> torch.Tensor:
    """Return the parser's answer for a crop of which all is one part."""
    parts = torch.zeros(1, len(PARTS), PARTS_SIDE, PARTS_SIDE, dtype=torch.uint8)
    parts[:, part] = 255
    return parts


def seen_at(sampler: UVSampler, shape: torch.Tensor, u: float, v: float) -> float:
    """Return the visibility at a UV of the model."""
    attributes = sampler.attributes(shape)
    seen = sampler.visibility(sampler.field(attributes), attributes)
    return float(seen[0, 0, int((1 - v) * TABLE), int(u * TABLE)])


def some_texture(seed: int = 0) -> torch.Tensor:
    return 255 * torch.rand(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


def complete(colour: torch.Tensor, seen: torch.Tensor, unet: UNet | None = None) -> torch.Tensor:
    """Complete a texture (1, 3, SIZE, SIZE) of which ``seen`` (1, 1, 256, 256) is known, over a grey albedo."""
    small_seen = F.avg_pool2d(seen, 2)
    small = F.avg_pool2d(F.avg_pool2d(colour, SIZE // TABLE) * seen, 2)
    shaded = torch.full((1, 3, 128, 128), 100.0)
    return mix(colour, seen, *fill(small, small_seen, shaded, torch.zeros(1, 1, 128, 128), unet))


def unet_that_adds(levels: float) -> UNet:
    unet = UNet().eval()
    assert unet.head.bias is not None
    with torch.no_grad():
        unet.head.bias.fill_(levels / 255)
    return unet


def test_what_is_fully_seen_is_left_as_it_is() -> None:
    with torch.no_grad():
        completed = complete(some_texture(), torch.ones(1, 1, TABLE, TABLE), unet_that_adds(60))
    assert torch.equal(completed, some_texture())


def test_what_nobody_saw_is_the_albedo_corrected_by_the_u_net() -> None:
    grey = torch.full((1, 3, SIZE, SIZE), 120.0)
    with torch.no_grad():
        completed = complete(grey, torch.zeros(1, 1, TABLE, TABLE), unet_that_adds(60))
    np.testing.assert_allclose(completed.numpy(), 160, atol=1e-3)


def test_a_side_that_is_not_seen_is_the_mirrored_other_side() -> None:
    seen = torch.zeros(1, 1, TABLE, TABLE)
    seen[..., : TABLE // 2] = 1
    filled = complete(some_texture(), seen)
    away = SIZE // 2 + 2 * SIZE // TABLE  # from the border, over which visibility fades
    np.testing.assert_allclose(
        filled[..., away:].numpy(), some_texture()[..., : SIZE - away].flip(3).numpy(), atol=0.02
    )
    assert torch.equal(filled[..., : SIZE - away], some_texture()[..., : SIZE - away])


def test_the_mirrored_side_takes_this_side_s_light() -> None:
    colour = torch.full((1, 3, SIZE, SIZE), 60.0)
    colour[..., : SIZE // 2] = 120  # twice as bright on the left
    seen = torch.ones(1, 1, TABLE, TABLE)
    seen[:, :, 60:200, TABLE // 2 + 40 :] = 0  # a part of the right is hidden
    colour[:, :, 240:800, SIZE // 2 + 160 :] = 255
    filled = complete(colour, seen)
    assert float((filled[:, :, 280:760, SIZE // 2 + 200 : SIZE - 40] - 60).abs().max()) < 8


def test_a_hole_on_both_sides_is_filled_smoothly_from_around() -> None:
    seen = torch.ones(1, 1, TABLE, TABLE)
    seen[:, :, 100:150, 78:178] = 0
    wide = F.interpolate(seen, scale_factor=SIZE // TABLE)
    wrong = torch.where(wide > 0, torch.full((1, 3, SIZE, SIZE), 80.0), torch.full((1, 3, SIZE, SIZE), 255.0))
    filled = complete(wrong, seen)
    hole = filled[:, :, 410:590, 322:702]
    assert float((hole - 80).abs().max()) < 3  # the mean tone, 100, pulls a little


def test_texels_show_the_place_of_the_picture_where_their_vertex_is_seen(model: FaceModel, sampler: UVSampler) -> None:
    columns = torch.arange(512.0).view(1, 1, 1, 512).expand(1, 1, 512, 512) / 2
    picture = torch.cat([columns, columns.transpose(2, 3), torch.full_like(columns, 99)], 1)
    attributes = sampler.attributes(posed(model))
    field = sampler.field(attributes)
    colour, seen = sampler.sample(picture, sampler.places(field, camera())), sampler.visibility(field, attributes)
    at = np.floor(np.stack([model.uv[:, 0], 1 - model.uv[:, 1]]) * SIZE).astype(int)
    judged = seen[0, 0].numpy()[at[1] * TABLE // SIZE, at[0] * TABLE // SIZE] > 0.9
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


def test_normals_are_unit_vectors_out_of_the_face(model: FaceModel, sampler: UVSampler) -> None:
    normals = sampler.normals(posed(model))[0].numpy()
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-5)
    assert (normals[:, 2] > 0).all()


def outputs(network: TextureNet, posed_shape: torch.Tensor, parts: torch.Tensor, crop: torch.Tensor) -> torch.Tensor:
    """Return texture and visibility as one (4, SIZE, SIZE)."""
    _, shapes, context, _ = example_inputs(posed_shape.shape[1], 1)
    shapes[:, 0] = posed_shape
    context[:, 15:23] = camera()
    with torch.no_grad():
        return torch.cat(network(crop, shapes, context, parts)[:2], 1)[0]


GREY = torch.full((1, 3, 512, 512), 200, dtype=torch.uint8)


def test_a_network_answers_bytes_of_the_promised_shapes(model: FaceModel, without_unet: TextureNet) -> None:
    answer = outputs(without_unet, posed(model), all_of(SKIN), GREY)
    assert answer.shape == (4, SIZE, SIZE)
    assert answer.dtype == torch.uint8
    assert ((answer[:3] >= 199) & (answer[:3] <= 201)).all()
    assert answer[3].max() == 255


def test_what_lies_beyond_the_picture_is_not_seen(model: FaceModel, without_unet: TextureNet) -> None:
    aside = posed(model) + torch.tensor([0.9, 0.0, 0.0])  # the right half of the face leaves the crop
    seen = outputs(without_unet, aside, all_of(SKIN), GREY)[3]
    assert seen[int(0.7 * SIZE), int(0.8 * SIZE)] == 0
    assert seen[int(0.7 * SIZE), int(0.25 * SIZE)] > 230


def test_what_covers_the_skin_leaves_no_colour(model: FaceModel, without_unet: TextureNet) -> None:
    parts, crop = all_of(SKIN), GREY.clone()
    crop[:, 1, 200:280, 160:240] = 0  # a magenta patch on one cheek
    parts[:, SKIN, 46:74, 36:64], parts[:, OTHER, 46:74, 36:64] = 0, 255
    texture = outputs(without_unet, posed(model), parts, crop)[:3]
    assert int(texture[1].min()) > 180


@pytest.fixture(scope="module")
def head() -> HeadModel:
    return HeadModel.load(Path(__file__).parents[2] / "weights" / "face_model.npz")


@pytest.fixture(scope="module")
def network(head: HeadModel) -> TextureNet:
    """Load the head's network without its U-Net."""
    return TextureNet.load(None, head)


class TestHead:
    def test_both_sides_of_the_chart_are_alike(self, head: HeadModel) -> None:
        chart = Chart.of(head, TABLE)
        place = (head.mean[chart.skin][chart.corners] * chart.weights[..., None]).sum(1).reshape(TABLE, TABLE, 3)
        apart = np.abs(place[:, ::-1] * [-1, 1, 1] - place).max(-1)
        assert (apart > 2e-4).mean() < 1e-3  # where thin triangles meet, either may hold a texel
        assert apart.max() < 0.02
        np.testing.assert_array_equal(chart.inside[:, ::-1], chart.inside)

    def test_hair_on_the_forehead_leaves_no_colour(self, head: HeadModel, network: TextureNet) -> None:
        crop, parts = GREY.clone(), all_of(SKIN)
        crop[:, :, :130] = 20
        parts[:, SKIN, :35], parts[:, HAIR, :35] = 0, 255
        answer = outputs(network, torch.from_numpy(head.mean)[None], parts, crop)
        assert int(answer[:3, : SIZE // 2].min()) > 130

    def test_a_rim_unlike_the_skin_further_inside_leaves_no_colour(self, head: HeadModel, network: TextureNet) -> None:
        crop = GREY.clone()
        crop[:, :, :, :120] = torch.tensor([205, 185, 150], dtype=torch.uint8)[:, None, None]  # strands over a cheek
        answer = outputs(network, torch.from_numpy(head.mean)[None], all_of(SKIN), crop)[:3].numpy().astype(np.int16)
        apart = answer[0] - answer[2]  # 55 in the strands
        assert apart[int(0.4 * SIZE) : int(0.6 * SIZE), : int(0.4 * SIZE)].max() < 36
        assert apart[int(0.4 * SIZE) : int(0.6 * SIZE), int(0.15 * SIZE) : int(0.2 * SIZE)].max() < 12

    def test_a_beard_stays_and_long_hair_beside_the_chin_does_not(self, head: HeadModel, network: TextureNet) -> None:
        jaw = slice(69, 103)  # rows of the crop from the mouth to under the chin
        for bearded in (True, False):
            parts = all_of(SKIN)
            sides = torch.ones(PARTS_SIDE, dtype=torch.bool)
            if not bearded:
                sides[46:82] = False  # the chin itself is bare
            parts[:, HAIR, jaw, sides], parts[:, SKIN, jaw, sides] = 255, 0
            seen = outputs(network, torch.from_numpy(head.mean)[None], parts, GREY)[3]
            at = int(0.30 * SIZE), int(0.72 * SIZE)
            assert (seen[at[1], at[0]] > 128) == bearded

    def test_inside_the_mouth_nothing_is_seen(self, head: HeadModel, network: TextureNet) -> None:
        seen = outputs(network, torch.from_numpy(head.mean)[None], all_of(SKIN), GREY)[3]
        assert seen[int((1 - 0.34) * SIZE), SIZE // 2] == 0
