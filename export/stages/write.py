"""Stage 5: write version folders of the model repository, complete or not at all.

A version that is requested by number is never overwritten. Without a number the version is the checkout's own (1), a
build product like an object file: rebuilt when its inputs have changed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from export.errors import ExportError
from export.graph import VERTICES
from export.options import ROOT
from export.session import Feed
from export.tensorrt.profile import MAX_VERTICES

SIDECAR = "export.json"
MODEL_FILE = "model.onnx"
TOOLS = ("torch", "onnx", "onnxruntime", "onnx-graphsurgeon", "polygraphy")
"""Packages whose version can change a graph."""
GRAPH_SOURCES = (
    "networks",
    "export/models",
    "export/official",
    "export/precision",
    "export/stages",
    "export/graph.py",
    "export/graphsurgeon.py",
)
"""Folders and files that can change a graph: after a change there every version is rebuilt."""
OWN_VERSION = 1
"""The version that a checkout builds from its own weights."""


def sha256(path: Path) -> str:
    """Return the hexadecimal digest of a file, or of all files of a folder with their names."""
    digest = hashlib.sha256()
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    for file in files:
        if file is not path:
            digest.update(str(file.relative_to(path)).encode())
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def graph_sources_digest() -> str:
    """Return the digest of all sources that can change a graph."""
    digest = hashlib.sha256()
    for source in GRAPH_SOURCES:
        path = ROOT / source
        for file in [path] if path.is_file() else sorted([*path.rglob("*.py"), *path.rglob("*.json")]):
            digest.update(str(file.relative_to(ROOT)).encode() + file.read_bytes())
    return digest.hexdigest()


def tool_versions() -> dict[str, str]:
    """Return the installed versions of `TOOLS`."""
    return {tool: version(tool) for tool in TOOLS}


def read_sidecar(folder: Path) -> dict[str, Any] | None:
    """Read `export.json` of a version folder; None where there is no readable one."""
    try:
        content = json.loads((folder / SIDECAR).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def up_to_date(folder: Path, main_file: str, key: dict[str, Any]) -> bool:
    """Tell whether a version folder holds its main file and has this `key`."""
    sidecar = read_sidecar(folder)
    return sidecar is not None and (folder / main_file).is_file() and sidecar.get("key") == key


def free_to_write(folder: Path, main_file: str, own: bool) -> None:
    """Raise ExportError when a version must not be written because it exists.

    A folder without its main file is left by `make clean` and is no version.
    """
    if (folder / main_file).exists() and not own:
        raise ExportError(
            f"Version {folder.name} of the model '{folder.parent.name}' exists and was made of something else; a "
            "version is never overwritten: choose another number with --version."
        )


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """Provide a temporary folder that becomes the version folder when the block succeeds, and is removed when it fails.

    Its name is no number, so Triton does not take it for a version. A rename within one file system is atomic, so no
    reader sees an incomplete version. An existing folder is removed only when the new one is complete.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = folder.parent / f".staging-{folder.name}-{os.getpid()}"
    old = folder.parent / f".staging-old-{folder.name}-{os.getpid()}"
    try:
        staging.mkdir()
        yield staging
        if folder.exists():
            folder.rename(old)
        staging.rename(folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def write_sidecar(folder: Path, content: dict[str, Any]) -> None:
    """Write `export.json`, sorted, so that two of them can be compared."""
    (folder / SIDECAR).write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def write_warmup(model: Path, feed: Feed, dynamic_axes: Mapping[str, Mapping[int, str]]) -> None:
    """Write the raw input files that `model_warmup` of the configuration names: a sample without batch axis."""
    folder = model / "warmup"
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in feed.items():
        padding = [(0, 0)] * value.ndim
        for axis, axis_name in dynamic_axes.get(name, {}).items():
            if axis_name == VERTICES:  # the configuration names the largest face model's size
                padding[axis] = (0, MAX_VERTICES - value.shape[axis])
        value = np.pad(value, padding)
        temporary = folder / f".{name}"
        temporary.write_bytes(np.ascontiguousarray(value[0]).tobytes())
        temporary.rename(folder / name)
