"""The probe and the control interface against a real server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from onnx import helper

from server import probe
from server.control import Control, ControlError, Unreachable
from server.embedded import ServerOptions, on_free_ports
from tests.server.repositories import FLOAT, arithmetic, ensemble, lookup, python_model, save_graph, tensors
from tests.servers import serving

PICTURE = """\
def execute(self, requests):
    values = [pb_utils.get_input_tensor_by_name(r, 'image').as_numpy()[0, 0] for r in requests]
    assert all(value.startswith(b'\\xff\\xd8') for value in values)
    text = pb_utils.Tensor('text', np.array([[b'a', b'bc']], dtype=object))
    return [pb_utils.InferenceResponse([text]) for _ in values]
"""


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Control]:
    repository = tmp_path_factory.mktemp("repository")
    arithmetic(repository)
    ensemble(repository, "chain", ["arithmetic"])
    lookup(repository)
    picture = python_model(repository, "picture", PICTURE) / "config.pbtxt"
    picture.write_text(
        'backend: "python"\nmax_batch_size: 4\n'
        + tensors("input", [("image", "TYPE_STRING", [1])])
        + tensors("output", [("text", "TYPE_STRING", [2])])
    )
    save_graph(
        repository / "inverse" / "1" / "model.onnx",
        [helper.make_node("Div", ["one", "x"], ["y"])],
        [("x", FLOAT, ["batch", 1])],
        [("y", FLOAT, ["batch", 1])],
        one=[1.0],
    )
    (repository / "inverse" / "config.pbtxt").write_text(
        'backend: "onnxruntime"\nmax_batch_size: 4\n'
        + tensors("input", [("x", "TYPE_FP32", [1])])
        + tensors("output", [("y", "TYPE_FP32", [1])])
    )
    options = ServerOptions(repository=repository, model_control_mode="explicit", admin_key="sesame")
    with serving(on_free_ports(options)) as server:
        yield Control(server.http, "sesame")


@pytest.mark.parametrize("model", ["chain", "arithmetic", "lookup"])
def test_gets_an_answer_from_models_and_ensembles(control: Control, model: str) -> None:
    outputs = probe.check(control, model)
    assert outputs
    assert all((values == 0).all() for values in outputs.values())


def test_sends_a_portrait_where_a_picture_is_wanted(control: Control) -> None:
    assert probe.check(control, "picture")["text"].tolist() == [[b"a", b"bc"]]


def test_does_not_take_infinities_for_an_answer(control: Control) -> None:
    with pytest.raises(
        probe.ProbeError, match="the model 'inverse' gave numbers that are not finite in its output 'y'"
    ):
        probe.check(control, "inverse")


def test_passes_on_what_the_server_says(control: Control) -> None:
    with pytest.raises(ControlError, match="unknown model: 'nobody'"):
        control.config("nobody")
    with pytest.raises(ControlError, match="failed to load 'nobody'"):
        control.load("nobody")


def test_knows_what_is_served(control: Control) -> None:
    assert control.serving("chain") == [1]
    assert control.serving("nobody") == []
    assert control.is_ready("chain")
    assert not control.is_ready("nobody")


def test_needs_the_admin_key_to_change_anything(control: Control) -> None:
    with pytest.raises(ControlError, match="restricted"):
        Control(control.endpoint).load("chain")


def test_says_that_nobody_is_there() -> None:
    nobody = Control("127.0.0.1:1")
    with pytest.raises(Unreachable, match=r"the server at 127.0.0.1:1 cannot be reached \(Connection refused\)"):
        nobody.index()
    assert not nobody.is_ready("chain")
