"""The generated configurations are what their description says."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy import configuration_page
from deploy.configurations.__main__ import configurations, main
from tests.model_repository.version_folder import REPOSITORY


@pytest.mark.parametrize("name", sorted(configurations()))
def test_a_generated_configuration_is_as_described(name: str) -> None:
    assert (REPOSITORY / name).read_text(encoding="utf-8") == configurations()[name], "run `make configs`"


def test_check_names_what_differs_and_writing_mends_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--repository", str(tmp_path)]) == 0
    changed = tmp_path / "reconstruct" / "config.pbtxt"
    changed.write_text(changed.read_text(encoding="utf-8").replace("max_batch_size: 4", "max_batch_size: 3"))
    capsys.readouterr()
    assert main(["--repository", str(tmp_path), "--check"]) == 1
    assert capsys.readouterr().out.startswith("reconstruct/config.pbtxt differs")
    assert main(["--repository", str(tmp_path)]) == 0
    assert main(["--repository", str(tmp_path), "--check"]) == 0


def test_the_page_of_configuration_says_what_the_sources_say() -> None:
    assert configuration_page.PAGE.read_text(encoding="utf-8") == configuration_page.page(), "run `make configs`"


def test_every_row_of_the_page_has_its_effect() -> None:
    rows = [line for line in configuration_page.page().splitlines() if line.startswith("| `")]
    assert rows
    assert not [row for row in rows if row.endswith("|  |")]
