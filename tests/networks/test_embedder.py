"""The embedder: the published graphs' vectors, from their weights alone; files that are none get a sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from networks.embedder import onnx_weights
from networks.embedder.dlib_resnet import SIDE, DlibResNet, FromCrop
from networks.embedder.embedder import Embedder, default_weights, example_inputs
from networks.errors import NetworkError


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return Embedder.load(default_weights())


def published() -> ort.InferenceSession:
    """SFace's file itself, but for the weights that it lists as inputs."""
    model = onnx.load(str(default_weights()))
    inputs = [value for value in model.graph.input if value.name == "data"]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def test_sface_gives_what_the_published_graph_gives(embedder: Embedder) -> None:
    (pixels,) = example_inputs()
    session = published()
    expected = np.concatenate([session.run(None, {"data": row[None].float().numpy()})[0] for row in pixels])
    with torch.no_grad():
        np.testing.assert_allclose(embedder.network(pixels.float()).numpy(), expected, atol=1e-4)
        embedding, _ = embedder(pixels)
    np.testing.assert_allclose(embedding, expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-5)


def test_the_fingerprint_is_of_the_weights(embedder: Embedder) -> None:
    _, fingerprint = embedder(example_inputs()[0])
    assert fingerprint.shape == (2, 1)
    assert int(fingerprint[0]) == int(Embedder.load(default_weights()).fingerprint)
    changed = Embedder(embedder.network)
    with torch.no_grad():
        weight = next(changed.network.parameters())
        weight[0] += 1e-3
        try:
            assert int(Embedder(changed.network).fingerprint) != int(fingerprint[0])
        finally:
            weight[0] -= 1e-3


@pytest.mark.parametrize("content", [b"", b"no graph at all", b"\x08\x07" * 100])
def test_a_file_that_is_no_embedder_is_refused_in_a_sentence(tmp_path: Path, content: bytes) -> None:
    for name in ("weights.onnx", "weights.dat"):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(NetworkError, match=name):
            Embedder.load(path)


def test_a_graph_of_another_network_is_refused(tmp_path: Path) -> None:
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    other = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "other", [value], [other])
    onnx.save(onnx.helper.make_model(graph), tmp_path / "other.onnx")
    with pytest.raises(NetworkError, match="not those of SFace"):
        Embedder.load(tmp_path / "other.onnx")


def test_blocks_are_dequantised_as_the_standard_says(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    tensors: dict[str, NDArray[Any]] = {
        "w_quantized": rng.integers(-128, 128, (4, 10)).astype(np.int8),
        "scales": rng.random((4, 3)).astype(np.float32),
        "zeros": rng.integers(-5, 5, (4, 3)).astype(np.int8),
    }
    node = onnx.helper.make_node("DequantizeLinear", list(tensors), ["w"], axis=1, block_size=4)
    output = onnx.helper.make_tensor_value_info("w", onnx.TensorProto.FLOAT, [4, 10])
    initializers = [onnx.numpy_helper.from_array(value, name) for name, value in tensors.items()]
    graph = onnx.helper.make_graph([node], "blocks", [], [output], initializers)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10)
    onnx.save(model, tmp_path / "blocks.onnx")
    (expected,) = ReferenceEvaluator(model).run(None, {})
    np.testing.assert_array_equal(onnx_weights.read(tmp_path / "blocks.onnx")["w"], expected)


def _integer(value: int) -> bytes:
    return bytes([4]) + value.to_bytes(4, "little")


def _tensor(values: NDArray[Any]) -> bytes:
    return _integer(2) + b"".join(_integer(n) for n in (values.size, 1, 1, 1)) + values.astype("<f4").tobytes()


def test_dlib_s_file_is_read_layer_by_layer(tmp_path: Path) -> None:
    """A file written in dlib's serialisation from a network of known weights gives that network again."""
    torch.manual_seed(0)
    wanted, stream = DlibResNet(), b"\x01\x08dnn_name"
    for module in wanted.modules():
        if isinstance(module, torch.nn.Conv2d):
            assert module.bias is not None
            gamma = np.full(module.out_channels, 2.0)
            weight, bias = (value.detach().numpy() / 2 for value in (module.weight, module.bias))
            stream += b"\x01\x05con_4" + _tensor(np.concatenate([weight.ravel(), bias]))
            stream += b"\x01\x07affine_" + _tensor(np.concatenate([gamma, np.zeros(module.out_channels)]))
    stream += b"\x01\x04fc_2" + _integer(128) + _integer(256) + _tensor(wanted.linear.weight.detach().numpy().T.ravel())
    path = tmp_path / "net.dat"
    path.write_bytes(stream)
    chip = torch.rand(1, 3, SIDE, SIDE) * 255
    with torch.no_grad():
        torch.testing.assert_close(DlibResNet.load(path)(chip), wanted(chip), atol=1e-5, rtol=1e-5)
    path.write_bytes(stream[: len(stream) // 2])
    with pytest.raises(NetworkError, match=r"net\.dat"):
        DlibResNet.load(path)


def test_dlib_s_chip_is_cut_out_of_the_crop() -> None:
    """A crop that grows along its columns gives a chip that does, at the chip's scale."""
    layer = FromCrop(DlibResNet())
    ramp = torch.arange(112.0).expand(1, 1, 112, 112)
    chip = (layer.rows @ ramp @ layer.columns)[0, 0]
    # The eyes of the template, columns 38.29 and 73.53, lie on dlib's chip near columns 47.9 and 100.9.
    assert float(chip[47, 48]) == pytest.approx(38.3, abs=2.0)
    assert float(chip[47, 101]) == pytest.approx(73.5, abs=2.0)
    assert float(chip[-5:].abs().max()) == 0
