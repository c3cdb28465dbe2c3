"""The decoder of `preprocess` against damaged picture files; see picture_fuzz.py."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(files: int, seed: int, folder: Path) -> dict[str, float]:
    command = [sys.executable, "-W", "ignore", "-m", "tests.model_repository.picture_fuzz"]
    command += ["--files", str(files), "--seed", str(seed), "--keep", str(folder / "file")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=1800)
    assert done.returncode == 0, (done.returncode, done.stderr[-2000:], f"the file is {folder / 'file'}")
    result: dict[str, float] = json.loads(done.stdout)
    return result


@pytest.mark.parametrize("files", [210, pytest.param(5000, marks=pytest.mark.soak)])
def test_damaged_files_are_decoded_or_refused_with_a_sentence(files: int, tmp_path: Path) -> None:
    result = run(files, 1, tmp_path)
    print(f"\n{result}")
    assert result["decoded"] + result["BadImage"] + result.get("ImageTooLarge", 0) == files
    # Both happen: neither is every file damaged beyond use, nor is the damage without effect.
    assert min(result["decoded"], result["BadImage"]) > files / 10
