"""Embedders in ArcFace's format: the published vector behind the embedder's contract, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper
from torch import nn

from export.__main__ import main
from export.errors import ExportError
from export.official import arcface
from export.session import Session
from networks.embedder.embedder import default_weights, example_inputs
from tests.export.official import layouts

FACES = example_inputs()[0]


def own_vectors(network: nn.Module, pixels: torch.Tensor) -> NDArray[np.float32]:
    """Compute the vectors of a network, of length 1, in PyTorch."""
    with torch.no_grad():
        return np.asarray(nn.functional.normalize(network(pixels)).numpy())


@pytest.mark.parametrize(
    ("recipe", "prepared"),
    [
        ("arcface", (FACES.float() - 127.5) / 127.5),
        ("arcface-128", (FACES.float() - 127.5) / 128),
        ("arcface-bgr", ((FACES.float() - 127.5) / 127.5).flip(1)),
        ("arcface-0-255", FACES.float()),
    ],
)
def test_the_vector_is_the_network_s_own_for_pixels_by_the_recipe(
    tmp_path: Path, recipe: str, prepared: torch.Tensor
) -> None:
    network = layouts.save_arcface(tmp_path / "net.onnx")
    answer = Session(arcface.graph_of(tmp_path / "net.onnx", recipe))({"aligned": FACES.numpy()})
    np.testing.assert_allclose(answer["embedding"], own_vectors(network, prepared), atol=1e-5)
    assert answer["embedder"].shape == (len(FACES), 1)


def test_each_file_and_each_recipe_has_a_fingerprint_of_its_own(tmp_path: Path) -> None:
    def fingerprint(seed: int, recipe: str) -> int:
        layouts.save_arcface(tmp_path / "net.onnx", seed)
        answer = Session(arcface.graph_of(tmp_path / "net.onnx", recipe))({"aligned": FACES.numpy()})
        return int(answer["embedder"][0, 0])

    first = fingerprint(0, "arcface")
    assert first == fingerprint(0, "arcface")
    assert first > 0
    assert len({first, fingerprint(1, "arcface"), fingerprint(0, "arcface-128")}) == 3


def test_a_file_of_a_fixed_batch_serves_any(tmp_path: Path) -> None:
    network = layouts.save_arcface(tmp_path / "net.onnx", batch=1)
    answer = Session(arcface.graph_of(tmp_path / "net.onnx", "arcface"))({"aligned": FACES.numpy()})
    np.testing.assert_allclose(answer["embedding"], own_vectors(network, (FACES.float() - 127.5) / 127.5), atol=1e-5)


def test_the_command_asks_for_the_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layouts.save_arcface(tmp_path / "net.onnx")
    words = ["embedder", "--weights", str(tmp_path / "net.onnx"), "--version", "2", "--repository", str(tmp_path)]
    assert main(words) == 2
    assert "--recipe: arcface, arcface-128" in capsys.readouterr().err
    assert main([*words, "--recipe", "imagenet"]) == 2
    assert "not by 'imagenet'" in capsys.readouterr().err
    assert not (tmp_path / "embedder").exists()


def interface(path: Path, shape: list[int | str], external: bool = False) -> None:
    """Save a graph that only flattens its input."""
    value = helper.make_tensor_value_info("data", TensorProto.FLOAT, shape)
    vector = helper.make_tensor_value_info("vector", TensorProto.FLOAT, [shape[0], "n"])
    domain = "com.microsoft" if external else ""
    graph = helper.make_graph([helper.make_node("Flatten", ["data"], ["vector"])], "net", [value], [vector])
    opsets = [helper.make_opsetid("", 17), *([helper.make_opsetid(domain, 1)] if external else [])]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)


def test_what_is_no_embedder_is_refused_in_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    with pytest.raises(ExportError, match="cannot be read"):
        arcface.graph_of(path, "arcface")
    path.write_bytes(b"no graph at all")
    with pytest.raises(ExportError, match="no ONNX file"):
        arcface.graph_of(path, "arcface")
    interface(path, ["n", 3, 160, 160])
    with pytest.raises(ExportError, match=r"data \['n', 3, 160, 160\]"):
        arcface.graph_of(path, "arcface")
    interface(path, ["n", 3, 112, 112])
    with pytest.raises(ExportError, match="numbers for two faces"):
        arcface.graph_of(path, "arcface")
    interface(path, ["n", 3, 112, 112], external=True)
    with pytest.raises(ExportError, match="own operators"):
        arcface.graph_of(path, "arcface")
    with pytest.raises(ExportError, match="not by 'rgb'"):
        arcface.graph_of(path, "rgb")


def test_the_default_weights_need_no_recipe_and_take_none(tmp_path: Path) -> None:
    # SFace's file lists 112 px and 128 numbers too, but its weights are blocks of integers with operators of opset 21.
    with pytest.raises(ExportError):
        arcface.graph_of(default_weights(), "arcface")
