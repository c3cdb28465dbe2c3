"""The decoder of `preprocess` against damaged picture files; see picture_fuzz.py."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(files: int, seed: int, folder: Path) -> dict[str, float]:
    """The result of one run; its lines of progress are shown, the decoders' own complaints are not."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.model_repository.picture_fuzz"]
    command += ["--files", str(files), "--seed", str(seed), "--keep", str(folder / "file")]
    said = []
    with (folder / "result").open("w+") as out:
        process = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=subprocess.PIPE, text=True, errors="replace")
        assert process.stderr is not None
        with process.stderr:
            for line in process.stderr:
                said.append(line)
                if f" of {files}: " in line:
                    print(line, end="", flush=True)
        assert process.wait() == 0, (process.returncode, said[-20:], f"the file is {folder / 'file'}")
        out.seek(0)
        result: dict[str, float] = json.load(out)
    return result


@pytest.mark.parametrize("files", [210, pytest.param(5000, marks=pytest.mark.soak)])
def test_damaged_files_are_decoded_or_refused_with_a_sentence(
    files: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with capsys.disabled():
        result = run(files, 1, tmp_path)
    print(f"\n{result}")
    assert result["decoded"] + result["BadImage"] + result.get("ImageTooLarge", 0) == files
    # Both happen: neither is every file damaged beyond use, nor is the damage without effect.
    assert min(result["decoded"], result["BadImage"]) > files / 10
