"""docs/field.md: every kind names tests that exist, and how many kinds there are."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "docs" / "field.md").read_text(encoding="utf-8")
ROWS = [line for line in TEXT.splitlines() if line.startswith("| ")][1:]


def files_named(name: str) -> list[Path]:
    """The test files that a row means: by path, or by name where a row above has the path."""
    exact = ROOT / name
    if exact.is_file():
        return [exact]
    full = {path for path in re.findall(r"`(tests/[\w/]*?\w+\.py)", TEXT) if Path(path).name == name}
    return [ROOT / path for path in full]


def test_every_kind_names_tests_that_exist() -> None:
    for row in ROWS:
        named = re.findall(r"`((?:[\w/]*/)?test_\w+\.py)(?:::(\w+))?`", row.rsplit("|", 2)[1])
        assert named or "client/README.md" in row, row
        for file, function in named:
            (path,) = files_named(file)
            assert not function or f"def {function}(" in path.read_text(encoding="utf-8"), (row, function)


def test_the_kinds_are_counted() -> None:
    assert f"\n{len(ROWS)} kinds." in TEXT
