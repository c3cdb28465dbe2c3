"""The screen's training: scenes, what the cascade says of their candidates, and a bar that keeps the faces."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from export.samples import built_in_portraits
from export.stages.write import sha256
from networks.detector import pyramid
from networks.detector.contract import CANVAS
from networks.detector.screen import FEATURES, NEIGHBOURHOOD_RADIUS, PNET_OUTPUTS, Screen
from networks.detector.weights import default_weights
from training import screen
from training.screen import FACE, HELD_OUT, KEPT, OUTLIVED, Cases, Scenes, collect, judged, set_bar, train

LEVELS = len(pyramid.level_scales())


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("portraits")
    paths = []
    for name, picture in built_in_portraits():
        paths.append(folder / f"{name}.png")
        Image.fromarray(picture).resize((240, 260)).save(paths[-1])
    return paths


def made_up(count: int, seed: int) -> Cases:
    """Candidates that are taken when the first of what P-Net's heads read is high around them."""
    chance = np.random.default_rng(seed)
    around = chance.normal(size=(count, PNET_OUTPUTS + FEATURES, (2 * NEIGHBOURHOOD_RADIUS + 1) ** 2)).astype(
        np.float16
    )
    taken = chance.random(count) < 0.5
    around[:, PNET_OUTPUTS] += np.where(taken, 1, -1)[:, None].astype(np.float16)
    weight = np.where(taken, np.where(chance.random(count) < 0.2, FACE, OUTLIVED), 1.0).astype(np.float32)
    return Cases(around, chance.integers(0, LEVELS, count), taken, weight, np.arange(count) // 10)


def test_every_scene_is_a_canvas_and_says_how_much_of_it_is_picture(files: list[Path]) -> None:
    scenes = Scenes(files, seed=3)
    whole = 0
    for _ in range(40):
        canvas, geometry = scenes.one()
        assert canvas.shape == (CANVAS, CANVAS, 3)
        assert canvas.dtype == np.uint8
        width, height = (int(side) for side in geometry[0, :2])
        assert max(width, height) == CANVAS
        assert (canvas[height:] == 127).all()
        assert (canvas[:, width:] == 127).all()
        whole += width == height
    assert 5 < whole < 40


def test_the_cascade_says_which_candidates_became_faces(files: list[Path]) -> None:
    cases = collect(files, range(6))
    assert set(np.unique(cases.scene)) <= set(range(6))
    assert len(cases.taken) == len(cases.level) == len(cases.around)
    assert cases.taken[cases.weight == FACE].all()
    assert not cases.taken[cases.weight == 1].any()
    faces = [np.sum(cases.weight[cases.scene == scene] == FACE) for scene in range(6)]
    assert sum(count > 0 for count in faces) >= 4
    # P-Net took them all for faces.
    assert (cases.around[:, 0, 12] > 0).all()


def test_it_learns_what_is_taken_and_keeps_the_faces_of_scenes_it_has_not_seen(
    capsys: pytest.CaptureFixture[str],
) -> None:
    cases = made_up(6000, 0)
    taught = train(cases, epochs=20, seed=0)
    held_out = np.flatnonzero(cases.scene % HELD_OUT == 0)
    with torch.no_grad():
        logits = judged(taught, cases, held_out).numpy()
    assert (logits[cases.weight[held_out] == FACE] >= 0).mean() >= KEPT - 0.02
    assert (logits[~cases.taken[held_out]] >= 0).mean() < 0.2
    assert "held-out scenes" in capsys.readouterr().out


def test_the_bar_moves_with_the_faces_not_with_the_rest() -> None:
    cases = made_up(2000, 1)
    net = Screen(LEVELS)
    set_bar(net, cases)
    held_out = np.flatnonzero((cases.scene % HELD_OUT == 0) & (cases.weight == FACE))
    with torch.no_grad():
        logits = judged(net, cases, held_out)
    assert float((logits >= 0).float().mean()) == pytest.approx(KEPT, abs=1.5 / len(held_out))


def test_the_command_writes_weights_for_the_default_p_net(files: list[Path], tmp_path: Path) -> None:
    target = tmp_path / "screen.safetensors"
    screen.main([str(files[0].parent), str(target), "--scenes", "8", "--epochs", "1", "--workers", "1"])
    assert Screen.load(target, default_weights() / "pnet.pt", LEVELS) is not None
    with safe_open(target, "pt") as file:
        assert file.metadata()["p_net"] == sha256(default_weights() / "pnet.pt")


def test_a_folder_without_pictures_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        screen.main([str(tmp_path), str(tmp_path / "screen.safetensors")])
    assert "there are no pictures" in capsys.readouterr().err
