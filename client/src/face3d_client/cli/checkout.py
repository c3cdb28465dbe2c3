"""The checkout of the repository, where there is one."""

from __future__ import annotations

import importlib.util
from pathlib import Path

__all__ = ["checkout_face_model", "repository_root"]


def checkout_face_model() -> Path | None:
    """Find the face model of the checkout."""
    root = repository_root()
    path = None if root is None else root / "weights" / "face_model.npz"
    return path if path is not None and path.is_file() else None


def repository_root() -> Path | None:
    """Find the checkout that this was started in, or that is on the import path."""
    for folder in (Path.cwd(), *Path.cwd().parents):
        if _is_repository(folder):
            return folder
    spec = importlib.util.find_spec("server")
    if spec is not None and spec.origin is not None and _is_repository(root := Path(spec.origin).parent.parent):
        return root
    return None


def _is_repository(folder: Path) -> bool:
    # The name `server` is common; the model repository beside it is not.
    return (folder / "server" / "__main__.py").is_file() and (folder / "model_repository").is_dir()
