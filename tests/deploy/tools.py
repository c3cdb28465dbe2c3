"""Programs and schemas that `make validators` fetched; a test that needs one skips, saying so, where they are not."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

VALIDATORS = Path(__file__).resolve().parents[2] / ".tools" / "validators"


def validator(path: str) -> Path:
    """A file of `.tools/validators`."""
    file = VALIDATORS / path
    if not file.exists():
        pytest.skip(f"{path} is not here: run `make validators` (deploy/validators.txt, from the package index)")
    return file


def program(name: str) -> str:
    """A program of this machine, or of where Debian keeps the administrator's."""
    found = shutil.which(name, path="/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin")
    if found is None:
        pytest.skip(f"the program {name} is not installed here")
    return found
