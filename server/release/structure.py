"""Holds a candidate against its configuration without a server: what takes seconds, before the trial."""

from __future__ import annotations

import ast
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.json_format import MessageToDict

from server.release.store import ReleaseError
from server.repository import Model

# Platforms of the onnxruntime backend, and its name.
_ONNX = {"onnxruntime", "onnxruntime_onnx"}
# A protobuf message, which an ONNX file is, has no more bytes.
_LARGEST_ONNX = 2**31 - 1
# A Python model's code is pages, not megabytes; the parser takes a hundred times its size of memory.
_LARGEST_CODE = 1 << 20


class CandidateRefused(ReleaseError):
    """A candidate is not what its configuration says, or did not pass its trial; the reason is in the message."""


def check_structure(model: Model, folder: Path) -> None:
    """See that a version folder holds a model that loads and has the configuration's inputs and outputs.

    An ONNX file is loaded by ONNX Runtime on the CPU, and its tensors' names, types and dimensions are held against the
    configuration. The code of a Python model is parsed, not run. Arrays (``.npz``) are opened without pickles. A
    TensorRT plan loads only on its GPU: of plans, only that they are not empty is seen here.

    Args:
        model: the model as the repository describes it.
        folder: a version folder that holds the files that the model needs.

    Raises:
        CandidateRefused: with one sentence on what is wrong.
    """
    kind = str(model.config.backend or model.config.platform)
    try:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and path.name in model.needed_files() and path.stat().st_size == 0:
                raise ValueError(f"{path.name} is empty")
            if path.suffix == ".npz":
                _check_arrays(path)
        main = model.needed_files()[0] if model.needed_files() else None
        if kind in _ONNX and main is not None:
            _check_onnx(model, folder / main)
        if kind == "python" and main is not None:
            _check_code(folder / main)
    except (OSError, ValueError) as error:
        raise CandidateRefused(f"the candidate for '{model.name}' was refused: {error}") from None


def _check_onnx(model: Model, path: Path) -> None:
    # ONNX Runtime takes a second to import: other commands do without it.
    from server.backends.onnxruntime.onnx_session import read_specs, trial_session

    if path.stat().st_size > _LARGEST_ONNX:
        raise ValueError(f"{path.name} has {path.stat().st_size / 2**30:.1f} GiB, more than an ONNX file can have")
    config: dict[str, Any] = MessageToDict(model.config, preserving_proto_field_name=True)
    read_specs(trial_session(path), config)


def _check_code(path: Path) -> None:
    if path.stat().st_size > _LARGEST_CODE:
        raise ValueError(f"{path.name} has {path.stat().st_size / 2**20:.1f} MiB, which no model's code has")
    try:
        tree = ast.parse(path.read_bytes(), path.name)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"{path.name} is not Python code ({error})") from None
    if not any(isinstance(node, ast.ClassDef) and node.name == "TritonPythonModel" for node in tree.body):
        raise ValueError(f"{path.name} has no class TritonPythonModel, which Triton calls")


def _check_arrays(path: Path) -> None:
    try:
        # Opened here: where a file is damaged, np.load leaves one that it opened itself to the garbage collector.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            for name in arrays.files:
                arrays[name]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path.name} is not a file of arrays ({error})") from None
