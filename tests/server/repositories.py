"""Tiny model repositories for tests: graphs of one or two nodes, and the configurations around them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx
from onnx import TensorProto, helper

Tensor = tuple[str, int, Sequence[int | str]]

FLOAT, INT64, UINT8 = TensorProto.FLOAT, TensorProto.INT64, TensorProto.UINT8
_TRITON = {FLOAT: "TYPE_FP32", INT64: "TYPE_INT64", UINT8: "TYPE_UINT8"}


def save_graph(
    path: Path, nodes: Sequence[onnx.NodeProto], inputs: Sequence[Tensor], outputs: Sequence[Tensor], **arrays: object
) -> Path:
    """Write an ONNX model; ``arrays``: one-dimensional float constants by name."""
    constants = [helper.make_tensor(name, FLOAT, [len(list(v))], list(v)) for name, v in arrays.items()]  # type: ignore[call-overload]
    graph = helper.make_graph(
        list(nodes),
        "tiny",
        [helper.make_tensor_value_info(*tensor) for tensor in inputs],
        [helper.make_tensor_value_info(*tensor) for tensor in outputs],
        constants,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def tensors(kind: str, entries: Sequence[tuple[str, str, Sequence[int]]]) -> str:
    """The ``input``/``output`` part of a configuration: name, type, dims without batch."""
    lines = [f'{{ name: "{n}" data_type: {t} dims: {list(d)} }}' for n, t, d in entries]
    return f"{kind} [ {', '.join(lines)} ]\n"


def arithmetic(
    repository: Path, name: str = "arithmetic", config: str = "", count: int = 1, factor: float = 2.0
) -> Path:
    """A model with ``twice`` = factor * x and ``square`` = x * x, x FP32 [4], batches up to 8; returns its folder."""
    folder = repository / name
    write_arithmetic_version(folder / "1", factor)
    (folder / "config.pbtxt").write_text(
        'backend: "onnxruntime"\nmax_batch_size: 8\n'
        + tensors("input", [("x", "TYPE_FP32", [4])])
        + tensors("output", [("twice", "TYPE_FP32", [4]), ("square", "TYPE_FP32", [4])])
        + f"instance_group [ {{ count: {count} kind: KIND_CPU }} ]\n"
        + 'parameters { key: "intra_op_thread_count" value { string_value: "1" } }\n'
        + config
    )
    return folder


def write_arithmetic_version(version: Path, factor: float = 2.0) -> Path:
    """The ``model.onnx`` of one version of `arithmetic`."""
    return save_graph(
        version / "model.onnx",
        [helper.make_node("Mul", ["x", "factor"], ["twice"]), helper.make_node("Mul", ["x", "x"], ["square"])],
        [("x", FLOAT, ["batch", 4])],
        [("twice", FLOAT, ["batch", 4]), ("square", FLOAT, ["batch", 4])],
        factor=[factor],
    )


def lookup(repository: Path, name: str = "lookup", config: str = "") -> Path:
    """A model ``value`` = (0, 10, 20, 30)[index], index INT64 [1]: it fails where the index is out of range."""
    folder = repository / name
    save_graph(
        folder / "1" / "model.onnx",
        [helper.make_node("Gather", ["table", "index"], ["value"])],
        [("index", INT64, ["batch", 1])],
        [("value", FLOAT, ["batch", 1])],
        table=[0.0, 10.0, 20.0, 30.0],
    )
    (folder / "config.pbtxt").write_text(
        'backend: "onnxruntime"\nmax_batch_size: 8\n'
        + tensors("input", [("index", "TYPE_INT64", [1])])
        + tensors("output", [("value", "TYPE_FP32", [1])])
        + "instance_group [ { count: 1 kind: KIND_CPU } ]\n"
        + config
    )
    return folder


def python_model(repository: Path, name: str, body: str, config: str = "") -> Path:
    """A Python model x FP32 [4] -> y FP32 [4] whose ``execute`` body is given; ``initialize`` too, if it has one."""
    folder = repository / name
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "model.py").write_text(
        "import os, time\nimport numpy as np\nimport triton_python_backend_utils as pb_utils\n\n"
        "def answer(request, value):\n"
        "    return pb_utils.InferenceResponse([pb_utils.Tensor('y', value)])\n\n"
        "class TritonPythonModel:\n" + "".join(f"    {line}\n" for line in body.splitlines())
    )
    (folder / "config.pbtxt").write_text(
        'backend: "python"\nmax_batch_size: 8\n'
        + tensors("input", [("x", "TYPE_FP32", [4])])
        + tensors("output", [("y", "TYPE_FP32", [4])])
        + "instance_group [ { count: 1 kind: KIND_CPU } ]\n"
        + config
    )
    return folder


ECHO = """\
def execute(self, requests):
    return [answer(r, pb_utils.get_input_tensor_by_name(r, 'x').as_numpy()) for r in requests]
"""


def ensemble(
    repository: Path, name: str = "chain", steps: Sequence[str] = ("arithmetic",), output: str = "twice", batch: int = 8
) -> Path:
    """An ensemble x -> y around one `arithmetic` (y = its ``twice``), or a chain of models with another ``output``."""
    folder = repository / name
    (folder / "1").mkdir(parents=True)
    parts = []
    for index, step in enumerate(steps):
        source = "x" if index == 0 else f"t{index}"
        target = "y" if index == len(steps) - 1 else f"t{index + 1}"
        parts.append(
            f'{{ model_name: "{step}" model_version: -1 input_map {{ key: "x" value: "{source}" }} '
            f'output_map {{ key: "{output}" value: "{target}" }} }}'
        )
    (folder / "config.pbtxt").write_text(
        f'platform: "ensemble"\nmax_batch_size: {batch}\n'
        + tensors("input", [("x", "TYPE_FP32", [4])])
        + tensors("output", [("y", "TYPE_FP32", [4])])
        + f"ensemble_scheduling {{ step [ {', '.join(parts)} ] }}\n"
    )
    return folder
