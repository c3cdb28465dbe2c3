"""Version folders of the model repository: written beside, renamed into place, and never half there.

A version that was asked for by number is never overwritten. Without a number the version is the checkout's own (1), a
build product like an object file: left alone while what it is made of has not changed, and made anew when it has.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from export.errors import ExportError

SIDECAR = "export.json"
TOOLS = {
    "report.py",
    "report_page.py",
    "sensitivity.py",
    "calibrate.py",
    "parity.py",
    "face_models.py",
    "without_vnni.py",
}
"""Programs in `export/` that read graphs and change none."""
OWN_VERSION = 1
"""The version that a checkout builds from its own weights."""


def sha256(path: Path) -> str:
    """Hexadecimal digest of a file, or of all files of a folder with their names."""
    digest = hashlib.sha256()
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    for file in files:
        if file is not path:
            digest.update(str(file.relative_to(path)).encode())
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def code_digest() -> str:
    """Digest of everything in `export/` that can change a graph; tools beside it do not count."""
    folder = Path(__file__).parent
    digest = hashlib.sha256()
    for file in sorted([*folder.rglob("*.py"), *folder.rglob("*.json")]):
        if file.name in TOOLS or file.parent.name == "plans" or file.stem.endswith("-sensitivity"):
            continue
        digest.update(str(file.relative_to(folder)).encode() + file.read_bytes())
    return digest.hexdigest()


def read_sidecar(folder: Path) -> dict[str, Any] | None:
    """What `export.json` of a version folder says; None where there is none that can be read."""
    try:
        content = json.loads((folder / SIDECAR).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def up_to_date(folder: Path, main_file: str, key: dict[str, Any]) -> bool:
    """Whether a version folder holds its main file, made of exactly what `key` says."""
    sidecar = read_sidecar(folder)
    return sidecar is not None and (folder / main_file).is_file() and sidecar.get("key") == key


def free_to_write(folder: Path, main_file: str, own: bool) -> None:
    """Raise ExportError when a version must not be written because it exists.

    A folder without its main file is the remains of `make clean` and no version.
    """
    if (folder / main_file).exists() and not own:
        raise ExportError(
            f"Version {folder.name} of the model '{folder.parent.name}' exists and was made of something else; a "
            "version is never overwritten: choose another number with --version."
        )


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """A temporary folder that becomes the version folder if the block ends well, and vanishes if it does not.

    The name of the temporary folder is no number, so Triton does not take it for a version; a rename within one file
    system is atomic, so nobody sees half a version. What already stood there goes only after the new one is complete.
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
