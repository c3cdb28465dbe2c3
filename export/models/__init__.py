"""The models of the repository that are exported from weights: one module and one class each.

A new one is a module here, with a class and its instance `MODEL`, a folder in `model_repository/`, and its name below.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from export.models.base import ExportedModel

MODEL_NAMES = ("detector", "regressor", "parser", "texture", "embedder", "enhance")
"""Names in the order of export. The modules import PyTorch; this list does not."""


def get_model(name: str) -> ExportedModel:
    """Return the model of that name.

    Raises:
        ModuleNotFoundError: there is no such model.
    """
    model: ExportedModel = importlib.import_module(f"export.models.{name}").MODEL
    return model
