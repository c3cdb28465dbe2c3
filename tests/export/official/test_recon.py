"""Published `net_recon` checkpoints against an independent computation of the published formulas."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from export.errors import ExportError
from export.graph import VERTICES
from export.models import get_model
from export.official import bfm, checkpoint
from export.official.recon import load_regressor
from export.session import Session
from networks.face_model import FaceModel
from networks.regressor import Regressor, example_inputs
from tests.export.official import layouts


@pytest.fixture(scope="module")
def face_model(tmp_path_factory: pytest.TempPathFactory) -> FaceModel:
    return bfm.load(layouts.save_bfm(tmp_path_factory.mktemp("bfm") / "BFM_model_front.mat"))


def coefficients(state: layouts.State, picture: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Compute ResNet50 v1.5 and seven heads from the layer names, in double precision."""
    w = {key: value.double() for key, value in state.items()}

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        scale = w[f"{name}.weight"] / (w[f"{name}.running_var"] + 1e-5).sqrt()
        return x * scale[:, None, None] + (w[f"{name}.bias"] - w[f"{name}.running_mean"] * scale)[:, None, None]

    x = torch.from_numpy(picture).double() / 255
    x = F.max_pool2d(F.relu(norm(F.conv2d(x, w["backbone.conv1.weight"], None, 2, 3), "backbone.bn1")), 3, 2, 1)
    for layer, blocks in enumerate((3, 4, 6, 3), 1):
        for block in range(blocks):
            name = f"backbone.layer{layer}.{block}"
            stride = 2 if block == 0 and layer > 1 else 1
            y = F.relu(norm(F.conv2d(x, w[f"{name}.conv1.weight"]), f"{name}.bn1"))
            y = F.relu(norm(F.conv2d(y, w[f"{name}.conv2.weight"], None, stride, 1), f"{name}.bn2"))
            y = norm(F.conv2d(y, w[f"{name}.conv3.weight"]), f"{name}.bn3")
            if block == 0:
                x = norm(F.conv2d(x, w[f"{name}.downsample.0.weight"], None, stride), f"{name}.downsample.1")
            x = F.relu(x + y)
    x = x.mean((2, 3))
    heads = [x @ w[f"final_layers.{i}.weight"].flatten(1).T + w[f"final_layers.{i}.bias"] for i in range(7)]
    return torch.cat(heads, 1).numpy()


def decoded(model: FaceModel, c: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute posed vertices (dm) and landmarks (column, row of the 224 crop) by the published formulas."""
    shape = model.mean.astype(np.float64) + np.tensordot(c[:80], model.identity.astype(np.float64), 1)
    shape = shape + np.tensordot(c[80:144], model.expression.astype(np.float64), 1)
    (px, py, pz), (sx, sy, sz) = np.cos(c[224:227]), np.sin(c[224:227])
    rx = np.array([[1, 0, 0], [0, px, -sx], [0, sx, px]])
    ry = np.array([[py, 0, sy], [0, 1, 0], [-sy, 0, py]])
    rz = np.array([[pz, -sz, 0], [sz, pz, 0], [0, 0, 1]])
    posed = shape @ (rz @ ry @ rx).T + c[254:257]
    depth = 10 - posed[:, 2]
    u, v = 1015 * posed[:, 0] / depth + 112, 1015 * posed[:, 1] / depth + 112
    return posed, np.stack([u, 223 - v], 1)[model.landmarks]


def test_the_layouts_here_are_the_published_ones() -> None:
    recon, retina = layouts.net_recon(), layouts.retinaface(mobile=False)
    assert (len(recon), sum(v.numel() for v in recon.values())) == (332, 24_087_798)
    assert (len(retina), sum(v.numel() for v in retina.values())) == (456, 27_351_657)


def test_a_downloaded_modelscope_folder_gives_its_network(tmp_path: Path, face_model: FaceModel) -> None:
    torch.save(layouts.hrn(3), tmp_path / "pytorch_model.pt")
    loaded = load_regressor(tmp_path, face_model).net.state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in layouts.net_recon(3).items())


@pytest.mark.parametrize("wrapping", ["hrn", "deep3d", "3ddfa-v3", "flat", "module."])
def test_every_published_wrapping_is_opened(tmp_path: Path, wrapping: str) -> None:
    state = {"backbone.conv1.weight": torch.ones(1), "final_layers.0.bias": torch.zeros(2)}
    contents: dict[str, dict[str, object]] = {
        "hrn": {"net_recon": state, "mid_net": {}, "alpha": torch.zeros(1), "opt_00": {}},
        "deep3d": {"net_recon": state, "opt_00": {"state": {}}, "sched_00": {"last_epoch": 20}},
        "3ddfa-v3": {"net_recon": state},
        "flat": {**state, "backbone.fc.weight": torch.zeros(3), "epoch": 7},
        "module.": {"state_dict": {f"module.net_recon.{key}": value for key, value in state.items()}},
    }
    torch.save(contents[wrapping], tmp_path / "x.pth")
    opened = checkpoint.state_dict(checkpoint.read(tmp_path / "x.pth"), tmp_path / "x.pth")
    assert {key: value.tolist() for key, value in opened.items()} == {
        "backbone.conv1.weight": [1.0],
        "final_layers.0.bias": [0.0, 0.0],
    }


@pytest.mark.slow
def test_the_exported_graph_agrees_with_the_published_formulas(tmp_path: Path, face_model: FaceModel) -> None:
    torch.save(layouts.hrn(1), tmp_path / "pytorch_model.pt")
    network = get_model("regressor")
    graph = network.clean(network.trace(tmp_path / "pytorch_model.pt", face_model))
    session = Session(graph)
    chance = np.random.default_rng(0)
    picture = chance.integers(0, 256, (2, 3, 224, 224)).astype(np.uint8)
    context = np.zeros((2, 23), np.float32)
    context[:, 15:19] = (1.5, 1.25, 100, 50)
    result = session({"crop": picture, "context": context})

    expected = coefficients(layouts.net_recon(1), picture)
    np.testing.assert_allclose(result["coefficients"], expected, rtol=1e-4, atol=1e-4)
    for index in range(2):
        posed, landmarks = decoded(face_model, expected[index])
        np.testing.assert_allclose(result["shapes"][index, 0], posed, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(result["vertices"][index], posed * 100, rtol=1e-4, atol=1e-2)
        pixels = landmarks * (1.5, 1.25) + (100, 50)
        np.testing.assert_allclose(result["landmarks"][index], pixels, rtol=1e-4, atol=1e-2)
        assert result["fingerprint"][index, 0] == face_model.fingerprint
    assert result["vertices"].shape == (2, layouts.BFM_VERTICES, 3)
    assert VERTICES in str(graph.graph.output)


def test_missing_and_unexpected_keys_are_named(tmp_path: Path, face_model: FaceModel) -> None:
    state = layouts.net_recon()
    del state["backbone.layer2.0.conv1.weight"]
    state["backbone.extra.weight"] = torch.zeros(1)
    torch.save({"net_recon": state}, tmp_path / "net_recon.pth")
    with pytest.raises(
        ExportError, match=r"1 missing \(backbone\.layer2\.0\.conv1\.weight\); 1 unexpected \(backbone\.extra"
    ):
        load_regressor(tmp_path / "net_recon.pth", face_model)


def test_a_wrong_shape_is_named(tmp_path: Path, face_model: FaceModel) -> None:
    state = layouts.net_recon()
    state["final_layers.0.weight"] = torch.zeros(100, 2048, 1, 1)
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(ExportError, match=r"final_layers\.0\.weight has shape \(100, 2048, 1, 1\), not \(80"):
        load_regressor(tmp_path / "x.pth", face_model)


def test_untrained_heads_are_refused(tmp_path: Path, face_model: FaceModel) -> None:
    state = layouts.net_recon()
    for key in state:
        if key.startswith("final_layers"):
            state[key] = torch.zeros_like(state[key])
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(ExportError, match="heads that are all zero"):
        load_regressor(tmp_path / "x.pth", face_model)


@pytest.mark.parametrize("asset", [None, "head_model_for_maas.mat"])
def test_the_first_revision_is_refused_by_name(tmp_path: Path, face_model: FaceModel, asset: str | None) -> None:
    content: dict[str, object] = layouts.hrn() if asset else {"net_recon": layouts.net_recon()}
    torch.save(content, tmp_path / "pytorch_model.pt")
    if asset:
        (tmp_path / asset).touch()
    with pytest.raises(ExportError, match=r"first revision.*v2\.0\.0-HRN"):
        load_regressor(tmp_path, face_model)


def test_detail_networks_of_another_size_are_refused(tmp_path: Path, face_model: FaceModel) -> None:
    torch.save({**layouts.hrn(), "mid_net": layouts.detail_net(3, 3)}, tmp_path / "pytorch_model.pt")
    with pytest.raises(ExportError, match=r"mid_net\.model\.1\.weight has shape \(64, 3, 7, 7\)"):
        load_regressor(tmp_path, face_model)


def test_a_face_model_of_another_size_is_refused_by_name(tmp_path: Path, face_model: FaceModel) -> None:
    torch.save({"net_recon": layouts.net_recon()}, tmp_path / "net_recon.pth")
    small = FaceModel(
        mean=face_model.mean[:100],
        identity=face_model.identity[:, :100],
        expression=face_model.expression[:, :100],
        albedo_mean=face_model.albedo_mean[:100],
        albedo=face_model.albedo[:, :100],
        triangles=np.array([[0, 1, 2]], np.int32),
        uv=face_model.uv[:100],
        landmarks=np.arange(68, dtype=np.int32),
        name="small",
    )
    with pytest.raises(ExportError, match=r"35709 vertices, and the face model 'small' has 100"):
        load_regressor(tmp_path / "net_recon.pth", small)


@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "nan"])
def test_a_damaged_file_gives_one_sentence(tmp_path: Path, face_model: FaceModel, damage: str) -> None:
    path = tmp_path / "net_recon.pth"
    state = layouts.net_recon()
    if damage == "nan":
        state["backbone.bn1.weight"] = state["backbone.bn1.weight"] * torch.nan
    torch.save({"net_recon": state}, path)
    data = path.read_bytes()
    if damage != "nan":
        path.write_bytes({"truncated": data[: len(data) // 2], "empty": b"", "text": b"<html>not found</html>"}[damage])
    with pytest.raises(ExportError) as caught:
        load_regressor(path, face_model)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_code_in_a_checkpoint_is_never_run(tmp_path: Path, face_model: FaceModel) -> None:
    class Malicious:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return (Path.touch, (tmp_path / "executed",))

    torch.save({"net_recon": {"backbone.conv1.weight": Malicious()}}, tmp_path / "net_recon.pth")
    with pytest.raises(ExportError, match="refused, because loading them would run code"):
        load_regressor(tmp_path / "net_recon.pth", face_model)
    assert not (tmp_path / "executed").exists()


def test_the_regressor_of_a_published_checkpoint_has_the_contracts_outputs(face_model: FaceModel) -> None:
    from networks.regressor import ReconstructionNet

    results = Regressor(ReconstructionNet(), face_model).eval()(*example_inputs())
    assert len(results) == len(Regressor.OUTPUTS) == len(get_model("regressor").outputs)
    assert get_model("regressor").outputs == Regressor.OUTPUTS
