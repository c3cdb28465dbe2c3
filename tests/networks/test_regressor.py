"""The regressor decodes coefficients as the family does and answers in the promised frames and units."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from networks.certainty import FEATURES, FILE, Certainty, digest
from networks.face_model import COEFFICIENTS
from networks.regressor import ReconstructionNet, Regressor, example_inputs, trained_resolution
from tests.export.synthetic import face_model, pixels, rotation_matrix

MODEL = face_model()


class Fixed(nn.Module):
    """Answers the given coefficients (B, 257), whatever the picture is."""

    def __init__(self, coefficients: torch.Tensor) -> None:
        super().__init__()
        self.coefficients = coefficients

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        """Return the coefficients."""
        return self.coefficients[: len(picture)]


def coefficients(batch: int = 2) -> torch.Tensor:
    drawn = torch.randn(batch, 257, generator=torch.Generator().manual_seed(0))
    drawn[:, COEFFICIENTS["angle"]] *= 0.4
    drawn[:, COEFFICIENTS["translation"]] *= 0.2
    return drawn


def answers(context: torch.Tensor | None = None) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float64]]]:
    crop, plain = example_inputs(2)
    with torch.no_grad():
        out = Regressor(Fixed(coefficients()), MODEL).eval()(crop, plain if context is None else context)
    return {name: tensor.numpy() for name, tensor in zip(Regressor.OUTPUTS, out, strict=True)}


@pytest.fixture(scope="module")
def net() -> ReconstructionNet:
    return ReconstructionNet().eval()


def test_shapes_are_decoded_as_the_formula_says() -> None:
    shapes = answers()["shapes"]
    for row, shape in zip(coefficients().double().numpy(), shapes, strict=True):
        neutral = MODEL.mean + np.tensordot(row[COEFFICIENTS["identity"]], MODEL.identity, 1)
        head = neutral + np.tensordot(row[COEFFICIENTS["expression"]], MODEL.expression, 1)
        posed = head @ rotation_matrix(*row[COEFFICIENTS["angle"]]).T + row[COEFFICIENTS["translation"]]
        np.testing.assert_allclose(shape, np.stack([posed, head, neutral]), atol=2e-5)


def test_vertices_are_the_shapes_in_millimetres() -> None:
    out = answers()
    np.testing.assert_allclose(out["vertices"], out["shapes"][:, 0] * 100, rtol=1e-6)
    np.testing.assert_allclose(out["vertices_neutral"], out["shapes"][:, 2] * 100, rtol=1e-6)
    np.testing.assert_array_equal(out["landmarks_3d"], out["vertices"][:, MODEL.landmarks])


def test_landmarks_are_in_source_pixels() -> None:
    _, context = example_inputs(2)
    context[:, 15:19] = torch.tensor([[2.0, 3.0, 40.0, 50.0], [0.5, 0.25, -7.0, 9.0]])
    out = answers(context)
    for camera, posed, landmarks in zip(context[:, 15:19].numpy(), out["shapes"][:, 0], out["landmarks"], strict=True):
        seen = pixels(posed[MODEL.landmarks].astype(np.float64))
        np.testing.assert_allclose(landmarks, seen * camera[0:2] + camera[2:4], atol=2e-3)


def test_coefficients_and_the_fingerprint_come_through_unchanged() -> None:
    out = answers()
    np.testing.assert_array_equal(out["coefficients"], coefficients().numpy())
    assert out["fingerprint"].tolist() == out["face_model"].tolist() == [[MODEL.fingerprint]] * 2
    assert out["fingerprint"].dtype == np.int64


def test_a_network_that_does_not_say_how_sure_it_is_answers_zero() -> None:
    assert answers()["certainty"].tolist() == [[0.0] * 4] * 2


def test_certainty_comes_from_the_file_beside_and_with_these_weights_alone(tmp_path: Path) -> None:
    net, certainty = ReconstructionNet(window=1).eval(), Certainty()
    with torch.no_grad():
        certainty.bias.copy_(torch.tensor([2.0, 4.0, 0.5, 1.0]).log())
    path = tmp_path / "weights.safetensors"
    save_file(net.state_dict(), path)

    def said() -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        regressor = Regressor.load(path, MODEL)
        with torch.no_grad():
            found = dict(zip(Regressor.OUTPUTS, regressor(*example_inputs(1)), strict=True))["certainty"]
        return np.asarray(found.numpy(), np.float32)

    assert not said().any()
    save_file(certainty.state_dict(), tmp_path / FILE, {"regressor": digest(path)})
    np.testing.assert_allclose(said(), [[0.5, 0.25, 2.0, 1.0]], rtol=1e-5)
    save_file(net.state_dict(), path, {"resolution": "112"})
    assert not said().any()


def test_the_head_of_the_certainty_computes_its_components() -> None:
    certainty = Certainty()
    generator = torch.Generator().manual_seed(0)
    certainty.begin(torch.rand(300, FEATURES, generator=generator), torch.ones(300, 4))
    maps = torch.rand(2, FEATURES, 3, 3, generator=generator)
    with torch.no_grad():
        by_head = certainty.head(3)(maps).flatten(1)
    np.testing.assert_allclose(by_head.numpy(), certainty.components(maps.mean((2, 3))).numpy(), atol=1e-3)


def test_the_state_dict_is_the_family_s(net: ReconstructionNet) -> None:
    state = net.state_dict()
    assert len(state) == 332
    assert sum(tensor.numel() for tensor in state.values()) == 24_087_798
    counts = {f"backbone.layer{k}.": n for k, n in zip(range(1, 5), (60, 78, 114, 60), strict=True)}
    for prefix, count in {**counts, "backbone.bn1.": 5, "final_layers.": 14}.items():
        assert sum(name.startswith(prefix) for name in state) == count
    assert state["backbone.conv1.weight"].shape == (64, 3, 7, 7)
    heads = [state[f"final_layers.{k}.weight"].shape for k in range(7)]
    assert heads == [(size, 2048, 1, 1) for size in (80, 64, 80, 3, 27, 2, 1)]


def test_a_network_that_was_never_trained_answers_zero(net: ReconstructionNet) -> None:
    with torch.no_grad():
        out = net(torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    assert out.shape == (1, 257)
    assert not out.any()


def test_weights_say_at_which_size_the_network_looks(net: ReconstructionNet, tmp_path: Path) -> None:
    crop = torch.randint(0, 256, (1, 3, 224, 224), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    save_file({"any": torch.zeros(1)}, tmp_path / "plain.safetensors")
    assert trained_resolution(tmp_path / "plain.safetensors") == 224
    whole = Regressor(net, MODEL).picture(crop)
    np.testing.assert_array_equal(whole.numpy(), crop.numpy().astype(np.float32) / 255)
    half = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in net.state_dict().items()}
    save_file(half, tmp_path / "halved.safetensors", {"resolution": "112"})
    halved = Regressor.load(tmp_path / "halved.safetensors", MODEL).picture(crop)
    blocks = whole.numpy().reshape(1, 3, 112, 2, 112, 2).mean((3, 5))
    np.testing.assert_allclose(halved.numpy(), blocks, atol=1e-6)


def test_weights_that_lack_a_part_are_refused(net: ReconstructionNet, tmp_path: Path) -> None:
    state = {name: tensor.half() for name, tensor in net.state_dict().items()}
    del state["final_layers.4.bias"]
    save_file(state, tmp_path / "weights.safetensors")
    with pytest.raises(RuntimeError, match=r"final_layers\.4\.bias"):
        Regressor.load(tmp_path / "weights.safetensors", MODEL)
