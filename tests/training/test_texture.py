"""The U-Net learns from what another pose would hide, on photographs and on exact heads, and training goes on."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from networks.head_model import HeadModel
from networks.texture import FILL, TextureNet
from networks.texture_fill import UNet
from training import texture
from training.texture import Heads, batch_of, covers, errors, train

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def head() -> HeadModel:
    return HeadModel.load(ROOT / "weights" / "face_model.npz")


@pytest.fixture(scope="module")
def net(head: HeadModel) -> TextureNet:
    return TextureNet(head, None)


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    """Train with eight other poses, which are quickly made, and batches of four."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(texture, "POSES", 8)
        patch.setattr(texture, "BATCH", 4)
        yield


@pytest.fixture(scope="module")
def heads(head: HeadModel, net: TextureNet, small: None) -> Heads:
    del small
    return Heads(head, net, seed=0)


def samples(count: int = 4) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Make textures of which the left half was seen."""
    values = np.zeros((count, 4, FILL, FILL), np.uint8)
    values[:, :3, :, : FILL // 2], values[:, 3, :, : FILL // 2] = 140, 255
    return values


def test_exact_heads_differ_from_one_another_and_from_the_mean(heads: Heads) -> None:
    for drawn in heads.drawn(3, np.random.default_rng(0)):
        assert drawn.shape == (3, 3, FILL, FILL)
        assert float((drawn[0] - drawn[1]).abs().mean()) > 3
        assert float(drawn.min()) >= 1
        assert float(drawn.max()) <= 255


def test_the_softer_light_makes_no_dark_back_of_the_head(heads: Heads) -> None:
    full, soft = (drawn.mean(1) for drawn in heads.drawn(24, np.random.default_rng(1)))
    face, back = heads.normals[2] > 0.6, heads.normals[2] < -0.6
    spread = [float((drawn[:, back].mean(1) / drawn[:, face].mean(1)).log().std()) for drawn in (full, soft)]
    assert spread[1] < 0.6 * spread[0]


def test_poses_to_both_sides_hide_the_other_one(heads: Heads) -> None:
    left, right = heads.poses[..., 30:90, 20:50].mean((1, 2, 3)), heads.poses[..., 30:90, 78:108].mean((1, 2, 3))
    assert len(heads.poses) == 8
    assert float((left - right).max()) > 0.5
    assert float((left - right).min()) < -0.5


def test_some_samples_are_covered() -> None:
    left = covers(40, np.random.default_rng(0)).flatten(1).min(1).values
    assert 4 < int((left == 0).sum()) < 24


def test_what_is_given_is_not_judged(net: TextureNet, heads: Heads) -> None:
    colour, truth, left = batch_of(samples(), heads, np.random.default_rng(0))
    assert colour.shape == (texture.BATCH, 3, FILL, FILL)
    assert float(errors(net, None, colour, truth, torch.ones_like(left)).max()) == 0
    assert float(errors(net, None, colour, truth, left)[texture.BATCH // 2 :].min()) > 0


def test_the_colour_of_what_is_hidden_does_not_leak(net: TextureNet, heads: Heads) -> None:
    colour, truth, left = batch_of(samples(), heads, np.random.default_rng(0))
    hidden = left < 0.01
    other = torch.where(hidden, 255 - colour, colour)
    changed = (errors(net, None, other, truth, left) - errors(net, None, colour, truth, left)).abs()
    assert float(changed.max()) > 0.01  # judged against another truth, filled alike
    torch.manual_seed(0)
    unet = UNet()
    torch.nn.init.normal_(unet.head.weight, std=0.05)
    seen = truth * left
    torch.testing.assert_close(unet(colour * seen, seen), unet(other * seen, seen), atol=3, rtol=0.05)


def test_training_goes_on_from_its_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "textures.npy", samples(30))
    options = argparse.Namespace(
        face_model=ROOT / "weights" / "face_model.npz", regressor=None, crops=None, labels=None, start=None,
        cache=tmp_path / "textures.npy", checkpoint=tmp_path / "texture.pt", weights=tmp_path / "texture.safetensors",
        steps=1, minutes=1e9, rate=1e-3, seed=0,
    )  # fmt: skip
    train(options)
    TextureNet.load(options.weights, HeadModel.load(options.face_model))
    options.steps = 2
    train(options)
    assert "resumed at step 1" in capsys.readouterr().out
