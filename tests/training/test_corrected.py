"""The regressor beneath the correction of its identity: training sees what is served, and the files belong together."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from networks.camera import project
from networks.certainty import digest
from networks.embedder.dlib_resnet import FEATURES
from networks.face_model import COEFFICIENTS
from networks.identity_correction import FILE, IDENTITY, IdentityCorrection
from networks.regressor import ReconstructionNet, Regressor
from tests.export.synthetic import face_model
from tests.training.made import run_arguments, shard
from training.corrected import FixedCorrection, assign
from training.regressor import Task
from training.render import MARGIN, SIZE

POINTS = torch.tensor([[82.0, 92], [142, 90], [110, 126], [88, 158], [138, 156]])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A correction by some matrix, of dlib's network and of another regressor."""
    torch.manual_seed(0)
    save_file(
        {"matrix": torch.randn(IDENTITY + FEATURES, IDENTITY) * 0.02, "offset": torch.full((IDENTITY,), 0.1)},
        tmp_path / "correction.safetensors",
        {"regressor": "another", "embedder": "dlib's"},
    )
    return tmp_path / "correction.safetensors"


def test_features_of_mirrored_pictures_are_those_of_the_picture_that_is_mirrored(file: Path) -> None:
    fixed = FixedCorrection(file, MARGIN, torch.device("cpu"))
    torch.manual_seed(1)
    coarse = torch.rand(2, 3, 9, 9)
    smooth = torch.nn.functional.interpolate(coarse, size=(SIZE, SIZE), mode="bilinear")
    pictures = (smooth * 255).to(torch.uint8)
    points = torch.stack([POINTS, POINTS + 3])
    found = fixed.features(pictures, points)
    assert found.shape == (2, 2, FEATURES)
    turned = points[:, [1, 0, 2, 4, 3]] * torch.tensor([-1.0, 1.0]) + torch.tensor([223.0, 0.0])
    again = fixed.features(pictures.flip(3), turned)
    torch.testing.assert_close(again[:, 0], found[:, 1])
    torch.testing.assert_close(again[:, 1], found[:, 0])
    assert float((found[:, 0] - found[:, 1]).abs().max()) > 1e-3


def test_losses_see_the_coefficients_that_the_served_module_gives(file: Path, tmp_path: Path) -> None:
    run = run_arguments(tmp_path)
    task = Task(argparse.Namespace(**{**vars(run), "correction": file}))
    assert task.correction is not None
    served = Regressor(ReconstructionNet(), face_model(), correction=task.correction.correction)
    torch.manual_seed(2)
    out = torch.randn(5, 257) * 0.2
    out[:, COEFFICIENTS["translation"]] = 0
    five = task.points_of_pictures()
    margin = slice(MARGIN, SIZE - MARGIN)
    context = torch.zeros(5, 23)
    context[:, 5:15], context[:, 15:17] = five.flatten(1), 1.0
    with torch.no_grad():
        crops = task.crops[..., margin, margin]
        wanted = served.corrected(task.correction.correction, out, crops, context)
        found = task.corrected(out, task.features, torch.zeros(5, dtype=torch.bool))
        k = task.probes.landmark_probes
        before, after = (project(task.decode(part)[2])[:, k] for part in (out, found))
    # features in training are those of bfloat16 where that is fast, and translations are not rounded
    torch.testing.assert_close(found, wanted, atol=0.02, rtol=0.02)
    moved = float((found - out)[:, COEFFICIENTS["identity"]].abs().max())
    assert moved > 0.1
    assert float((after - before).norm(dim=2).mean()) < float(
        (project(task.decode(torch.cat([found[:, :80], out[:, 80:]], 1))[2])[:, k] - before).norm(dim=2).mean()
    )


def test_renders_that_appear_later_get_their_features(file: Path, tmp_path: Path) -> None:
    run = run_arguments(tmp_path)
    task = Task(argparse.Namespace(**{**vars(run), "correction": file}))
    shard(run.renders, 1, count=4)
    task.find_renders()
    assert [labels["features"].shape for labels in task.renders.labels] == [(3, 2, FEATURES), (4, 2, FEATURES)]
    assert Task(run).features.shape[-1] == 0, "nothing is corrected unless it is asked for"


def test_the_correction_is_written_as_belonging_to_the_weights_beside_it(file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "written"
    folder.mkdir()
    save_file({"any": torch.ones(1)}, folder / "regressor.safetensors")
    assign(file, folder / "regressor.safetensors")
    with safe_open(folder / FILE, "pt") as written:
        assert written.metadata() == {"regressor": digest(folder / "regressor.safetensors"), "embedder": "dlib's"}
        assert set(written.keys()) == {"matrix", "offset"}
    assert IdentityCorrection.beside(folder / "regressor.safetensors", 1) is None, "of another face model"
