"""The refinement looks where the first answer says, and learns to correct it."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from networks.camera import project, rotation
from networks.face_model import COEFFICIENTS, FaceModel
from networks.regressor import ReconstructionNet, Regressor
from tests.export.synthetic import face_model
from tests.training.made import run_arguments, shard
from training import refinement, regressor
from training.refinement import Answers, GridDecoder, Refiner, sample_flat
from training.refinement_net import COLUMNS, ROWS, Refinement, RefinementNet
from training.regressor import Warp
from training.render import MARGIN


def coefficients(count: int = 2) -> torch.Tensor:
    drawn = torch.randn(count, 257, generator=torch.Generator().manual_seed(0)) * 0.1
    drawn[:, COEFFICIENTS["translation"]] *= 0.2
    return drawn


def test_the_grid_is_seen_where_the_decoded_surface_is() -> None:
    model = face_model()
    given = coefficients()
    decoder = GridDecoder(model)
    places, facing = decoder(given)
    posed = Regressor(torch.nn.Identity(), model).decoder(given).posed
    np.testing.assert_allclose(places, project(decoder.grid.on(posed)), atol=2e-3)
    assert facing.shape == (2, 1, ROWS, COLUMNS)
    assert facing.abs().max() <= 1 + 1e-5


def test_a_flat_face_is_the_same_however_the_picture_was_warped() -> None:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 3, 9, 9, generator=generator) * 255
    smooth = torch.nn.functional.interpolate(coarse, (288, 288), mode="bicubic").clamp(0, 255).byte()
    picture = [smooth[0].permute(1, 2, 0).contiguous().numpy()]
    places = torch.rand(1, ROWS * COLUMNS, 2, generator=generator) * 120 + 50
    still = Warp.random(1, False)
    warp = Warp(torch.tensor([0.2]), torch.tensor([1.1]), torch.tensor([[4.0, -3.0]]))
    wanted = sample_flat(picture, places, still)
    np.testing.assert_allclose(sample_flat(picture, warp.points(places), warp), wanted, atol=0.01)
    mirrored, flip = [np.ascontiguousarray(picture[0][:, ::-1])], torch.tensor([True])
    np.testing.assert_allclose(sample_flat(mirrored, warp.points(places), warp, flip), wanted, atol=0.01)
    # and it is what the picture has there
    column, row = places[0, 0].round().int().tolist()
    at = torch.tensor([[[float(column), float(row)]]]).expand(1, ROWS * COLUMNS, 2)
    seen = sample_flat(picture, at, still)[0, :, 0, 0]
    np.testing.assert_allclose(seen, picture[0][row + MARGIN, column + MARGIN] / 255, atol=1e-5)


@torch.no_grad()
def test_a_refinement_that_was_never_trained_changes_nothing_and_a_trained_one_only_what_it_corrects() -> None:
    model = face_model()
    given = coefficients()
    picture = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    posed = Regressor(torch.nn.Identity(), model).decoder(given).posed
    turn = rotation(given[:, COEFFICIENTS["angle"]])
    refined = Refinement(model, RefinementNet().eval())
    np.testing.assert_array_equal(refined(picture, given, posed, turn), given)
    torch.nn.init.normal_(refined.net.correction.weight, 0, 0.1)
    moved = (refined(picture, given, posed, turn) - given).abs()
    for name, part in COEFFICIENTS.items():
        assert bool(moved[:, part].any()) == (name not in ("albedo", "light")), name


def test_weights_that_lack_a_part_are_refused(tmp_path: Path) -> None:
    state = RefinementNet().state_dict()
    del state["look.bias"]
    save_file(state, tmp_path / "weights.safetensors")
    with pytest.raises(RuntimeError, match=r"look\.bias"):
        RefinementNet.load(tmp_path / "weights.safetensors")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> argparse.Namespace:
    """Arguments of a run on noise: two batches of four."""
    for name in ("RENDERS_A_BATCH", "PICTURES_A_BATCH"):
        monkeypatch.setattr(refinement, name, 2)
    monkeypatch.setattr(regressor, "HELD_OUT", 2)
    given = run_arguments(tmp_path)
    net = ReconstructionNet()
    for head in net.final_layers.parameters():
        torch.nn.init.normal_(head, 0, 0.01)
    save_file(net.state_dict(), tmp_path / "first.safetensors", {"resolution": "112"})
    shard(tmp_path / "held", 0)
    return argparse.Namespace(
        **{**vars(given), "regressor": tmp_path / "first.safetensors", "held": [tmp_path / "held-0-000"], "rounds": 2}
    )


def test_a_run_keeps_the_first_answers_and_goes_on_counting_where_it_stopped(run: argparse.Namespace) -> None:
    first = Refiner(run)
    first.run()
    assert first.samples == 8
    assert first.net.correction.weight.any(), "something was learned"
    kept = run.renders.with_name("r-0-000.first.npz")
    stamp = kept.stat().st_mtime_ns
    more = Refiner(argparse.Namespace(**{**vars(run), "samples": 16}))
    assert more.samples == 8
    assert kept.stat().st_mtime_ns == stamp
    more.run()
    assert more.samples == 16
    with np.load(kept) as data:
        assert data["coefficients"].shape == (3, refinement.RENDER_VARIANTS, 257)


def test_first_answers_belong_to_the_warps_beside_them(run: argparse.Namespace) -> None:
    model = FaceModel.load(run.face_model)
    net = Regressor.load(run.regressor, model)
    crops = torch.randint(0, 256, (3, 3, 288, 288), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    found = Answers.ask(net, crops, 2, seed=5)
    again = Answers.ask(net, crops, 2, seed=5)
    np.testing.assert_array_equal(found.coefficients, again.coefficients)
    first, flip, warp = found.pick(np.array([2, 0]), np.array([1, 0]))
    np.testing.assert_array_equal(first, found.coefficients[[2, 0], [1, 0]])
    assert flip.tolist() == found.flip[[2, 0], [1, 0]].tolist()
    np.testing.assert_array_equal(warp.shift, found.warp[[2, 0], [1, 0], 2:])


def test_written_weights_are_read_and_correct_an_answer(run: argparse.Namespace, tmp_path: Path) -> None:
    trained = Refiner(run)
    trained.run()
    regressor.write_weights(trained.average, trained.samples, tmp_path / "refinement.safetensors", 224)
    with safe_open(tmp_path / "refinement.safetensors", "pt") as file:
        assert file.metadata()["samples"] == "8"
    model = FaceModel.load(run.face_model)
    net = Regressor.load(run.regressor, model)
    crop = torch.randint(0, 256, (1, 3, 224, 224), dtype=torch.uint8)
    with torch.no_grad():
        shapes, _, plain, *_ = net(crop, torch.zeros(1, 23))
        turn = rotation(plain[:, COEFFICIENTS["angle"]])
        read = Refinement(model, RefinementNet.load(tmp_path / "refinement.safetensors"))
        found = read(crop.float() / 255, plain, shapes[:, 0], turn)
    assert not torch.equal(found[:, COEFFICIENTS["identity"]], plain[:, COEFFICIENTS["identity"]])
    np.testing.assert_array_equal(found[:, COEFFICIENTS["light"]], plain[:, COEFFICIENTS["light"]])
