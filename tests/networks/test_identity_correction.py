"""The correction of the identity: the chip that the embedder sees, what is added, and where the head then stands."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from networks import identity_correction
from networks.camera import project
from networks.certainty import digest
from networks.embedder.dlib_resnet import DIMENSIONS, FEATURES, SIDE, DlibResNet
from networks.errors import NetworkError
from networks.face_model import COEFFICIENTS
from networks.head_model import load_face_model
from networks.identity_correction import CHIP, FILE, IDENTITY, IdentityCorrection, returned
from networks.regressor import ReconstructionNet, Regressor, example_inputs
from tests.export.synthetic import face_model

MODEL = face_model()
RANDOM = torch.Generator().manual_seed(3)


def correction(seed: int = 0, scale: float = 0.02) -> IdentityCorrection:
    """A correction by some matrix, with an untrained network."""
    torch.manual_seed(seed)
    matrix = torch.randn(IDENTITY + FEATURES, IDENTITY) * scale
    return IdentityCorrection(DlibResNet(), matrix, torch.full((IDENTITY,), 0.3)).eval()


def turned(degrees: float, scale: float, shift: tuple[float, float]) -> torch.Tensor:
    """The chip's five points as they lie in a crop: (5, 2)."""
    a = np.radians(degrees)
    turn = scale * torch.tensor([[np.cos(a), np.sin(a)], [-np.sin(a), np.cos(a)]], dtype=torch.float32)
    return torch.tensor(CHIP) @ turn + torch.tensor(shift)


def test_the_chip_shows_what_lies_under_the_points() -> None:
    rows, columns = torch.meshgrid(torch.arange(224.0), torch.arange(224.0), indexing="ij")
    crop = torch.stack([columns, rows, torch.ones(224, 224)])[None].repeat(2, 1, 1, 1)
    points = torch.stack([turned(0, 1, (40, 30)), turned(20, 0.8, (70, 20))])
    chips = correction().chip(crop, points)
    assert chips.shape == (2, 3, SIDE, SIDE)
    for chip, five in zip(chips, points, strict=True):
        for (column, row), place in zip(CHIP, five, strict=True):
            seen = chip[:, round(row), round(column)]
            np.testing.assert_allclose(seen[:2], place, atol=1.0)  # the points lie between pixels
            assert seen[2] == pytest.approx(1)
    assert correction().chip(crop[:1], turned(0, 1, (200, 0))[None])[0, 2, :, -1].max() == 0  # beyond the crop


def test_points_that_are_no_similar_picture_of_the_chip_are_fitted_by_least_squares() -> None:
    noisy = turned(10, 1.2, (20, 10)) + torch.randn(5, 2, generator=RANDOM) * 3
    rows, columns = torch.meshgrid(torch.arange(224.0), torch.arange(224.0), indexing="ij")
    chip = correction().chip(torch.stack([columns, rows, rows])[None], noisy[None])[0]
    template = np.array(CHIP) @ (1, 1j)
    system = np.stack([template, np.ones(5)], 1)
    a, b = np.linalg.lstsq(system, noisy.double().numpy() @ (1, 1j), rcond=None)[0]
    place = a * (75 + 75j) + b
    np.testing.assert_allclose(chip[:2, 75, 75], [place.real, place.imag], atol=0.02)


def test_heads_are_moved_back_to_where_they_were_seen() -> None:
    before = torch.randn(3, 68, 3, generator=RANDOM) * 0.6
    shift = torch.tensor([[0.3, -0.2, 1.0], [0, 0.1, -0.5], [0.0, 0.0, 0.0]])
    back = returned(before + shift[:, None], before)
    np.testing.assert_allclose(back, -shift, atol=1e-4)
    larger = before * 1.1
    placed = larger + returned(larger, before)[:, None]
    off, moved = ((project(points) - project(before)).norm(dim=-1).mean() for points in (larger, placed))
    assert moved < 0.5 * off


def test_the_regressor_adds_it_and_leaves_everything_else_but_the_place() -> None:
    torch.manual_seed(1)
    net = ReconstructionNet().eval()
    with torch.no_grad():
        for head in net.final_layers:
            assert isinstance(head.bias, torch.Tensor)
            torch.nn.init.normal_(head.bias, 0, 0.2)
    crop = torch.randint(0, 256, (2, 3, 224, 224), dtype=torch.uint8, generator=RANDOM)
    _, context = example_inputs(2)
    context[:, 15:19] = torch.tensor([2.0, 2.0, 10.0, 5.0])
    context[:, 5:15] = (turned(0, 1, (40, 40)).flatten() * 2) + torch.tensor([10.0, 5.0]).repeat(5)
    fixed = correction()
    with torch.no_grad():
        plain, found = (
            dict(zip(Regressor.OUTPUTS, Regressor(net, MODEL, correction=one).eval()(crop, context), strict=True))
            for one in (None, fixed)
        )
        identity = plain["coefficients"][:, :IDENTITY]
        wanted = fixed(crop.float(), turned(0, 1, (40, 40))[None].repeat(2, 1, 1), identity)
    np.testing.assert_allclose(found["coefficients"][:, :IDENTITY], wanted, atol=1e-4)
    kept = slice(COEFFICIENTS["identity"].stop, COEFFICIENTS["translation"].start)
    np.testing.assert_array_equal(found["coefficients"][:, kept], plain["coefficients"][:, kept])
    np.testing.assert_array_equal(found["certainty"], plain["certainty"])
    assert (wanted - identity).abs().max() > 0.1
    middle = (found["landmarks"] - plain["landmarks"]).mean(1).abs().max() / 2  # pixels of the crop
    assert middle < 1


def saved(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A regressor's weights with a correction beside them, and an embedder's file."""
    regressor, weights = folder / "regressor.safetensors", folder / "network.dat"
    regressor.write_bytes(b"some weights")
    weights.write_bytes(b"an embedder")
    monkeypatch.setattr(identity_correction, "default_weights", lambda: weights)
    monkeypatch.setattr(DlibResNet, "load", lambda path: DlibResNet())
    arrays = {"matrix": torch.zeros(IDENTITY + FEATURES, IDENTITY).half(), "offset": torch.ones(IDENTITY)}
    about = {"regressor": digest(regressor), "embedder": digest(weights), "face_model": "6"}
    save_file(arrays, folder / FILE, about)
    return regressor


def test_the_file_is_taken_with_its_regressor_and_its_face_model_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    regressor = saved(tmp_path, monkeypatch)
    found = IdentityCorrection.beside(regressor, 6)
    assert found is not None
    assert found.offset.tolist() == [1.0] * IDENTITY
    assert IdentityCorrection.beside(regressor, 7) is None
    regressor.write_bytes(b"other weights")
    assert IdentityCorrection.beside(regressor, 6) is None
    (tmp_path / FILE).unlink()
    assert IdentityCorrection.beside(regressor, 6) is None


def test_another_embedder_is_refused_and_a_missing_one_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    regressor = saved(tmp_path, monkeypatch)
    (tmp_path / "network.dat").write_bytes(b"another embedder")
    with pytest.raises(NetworkError, match="run `make setup`"):
        IdentityCorrection.beside(regressor, 6)
    (tmp_path / "network.dat").unlink()
    with pytest.raises(NetworkError, match="run `make setup`"):
        IdentityCorrection.beside(regressor, 6)


def test_the_file_of_the_repository_belongs_to_its_regressor() -> None:
    weights = Path(__file__).resolve().parents[2] / "weights"
    model = load_face_model(weights / "face_model.npz")
    found = IdentityCorrection.beside(weights / "regressor.safetensors", model.fingerprint)
    assert found is not None
    with torch.no_grad():
        chip = torch.rand(1, 3, SIDE, SIDE, generator=RANDOM) * 255
        features = found.network.features(chip)
        np.testing.assert_allclose(found.network(chip), features @ found.network.linear.weight.T, atol=1e-5)
    assert found.network.linear.weight.shape == (DIMENSIONS, FEATURES)
