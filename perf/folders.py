"""Modules of the repository's version folders, for measurements that run the same steps without a server."""

from __future__ import annotations

import importlib
import sys
from typing import Any

from server.repository import DEFAULT_REPOSITORY, read_repository

REPOSITORY = DEFAULT_REPOSITORY


def newest(model: str) -> str:
    """Return the path of a model's highest version folder."""
    versions = [entry for entry in (REPOSITORY / model).iterdir() if entry.name.isdigit()]
    return str(max(versions, key=lambda entry: int(entry.name)))


def load(model: str, module: str) -> Any:
    """Import ``module`` of a model's highest version, the way the Python stub does: the folder is on the path."""
    if (folder := newest(model)) not in sys.path:
        sys.path.append(folder)
    return importlib.import_module(module)


def parameter(model: str, name: str) -> str:
    """Read a ``parameters`` entry of a model's portable configuration."""
    return str(read_repository(REPOSITORY)[model].config.parameters[name].string_value)
