"""The pages about pictures name what is there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_every_warning_is_explained() -> None:
    page = (ROOT / "docs" / "guides" / "pictures.md").read_text("utf-8")
    sources = "".join(path.read_text("utf-8") for path in (ROOT / "model_repository" / "align" / "1").glob("*.py"))
    kinds = set(re.findall(r"\bsay\(\s*\"(\w+)\"", sources))
    assert kinds
    assert {kind for kind in kinds if f"| `{kind}` |" not in page} == set()


def test_every_test_of_the_table_is_there() -> None:
    page = (ROOT / "docs" / "field.md").read_text("utf-8")
    for name in set(re.findall(r"`(?:tests/[\w/]*/)?(test_\w+\.py)`", page)):
        assert list((ROOT / "tests").rglob(name)), name
    for folder in set(re.findall(r"`(tests/[\w/]+/)", page)):
        assert (ROOT / folder).is_dir(), folder
