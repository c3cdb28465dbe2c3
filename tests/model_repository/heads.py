"""The built-in head as `postprocess` has it."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.stages.topology import arrays_of
from networks.head_model import HeadModel
from tests.model_repository.version_folder import load

MODEL = HeadModel.load(Path(__file__).parents[2] / "weights" / "face_model.npz")


@cache
def surface_of_head() -> Any:
    """The `Surface` that the version folder reads from the file of an export."""
    return load("postprocess", "surface").Surface.from_arrays(arrays_of(MODEL))


def expression_of(**weights: float) -> NDArray[np.float32]:
    """float32 [64] from the names of expressions."""
    expression = np.zeros(64, np.float32)
    for name, weight in weights.items():
        expression[MODEL.expression_names.index(name)] = weight
    return expression


def tensors(expression: NDArray[np.float32], yaw: float = 0.0, seed: int | None = None) -> dict[str, NDArray[Any]]:
    """The inputs of `postprocess` for a face of the model, turned by ``yaw`` degrees, on a grey photograph."""
    identity = np.zeros(80, np.float32)
    if seed is not None:
        identity = np.random.default_rng(seed).standard_normal(80).astype(np.float32)
    neutral, expressive = MODEL.shape(identity, np.zeros(64, np.float32)), MODEL.shape(identity, expression)
    a = np.radians(yaw)
    turn = np.array([[np.cos(a), 0, -np.sin(a)], [0, 1, 0], [np.sin(a), 0, np.cos(a)]], np.float32)
    posed = expressive @ turn + np.array([0.1, -0.2, 0.3], np.float32)
    step = 224 / 512
    context = np.array([0] * 15 + [1, 1, 0, 0, step, step, step / 2 - 0.5, step / 2 - 0.5], np.float32)
    return {
        "texture": np.full((3, 1024, 1024), 150, np.uint8),
        "shapes": np.stack([posed, expressive, neutral]).astype(np.float32),
        "fingerprint": np.array([MODEL.fingerprint]),
        "expression": expression,
        "context": context,
        "crop_hd": np.full((3, 512, 512), 120, np.uint8),
    }
