"""Imports a module out of a version folder, the way the Python stub does: the folder is on the path."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

REPOSITORY = Path(__file__).resolve().parents[2] / "model_repository"


def load(model: str, module: str, version: int = 1) -> ModuleType:
    """Import ``module`` of a model. Names of modules differ between models, so that they can all be loaded at once."""
    folder = str(REPOSITORY / model / str(version))
    if folder not in sys.path:
        sys.path.append(folder)
    return importlib.import_module(module)
