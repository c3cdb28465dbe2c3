"""Version folders: whole or not at all, never overwritten, left alone when up to date."""

from __future__ import annotations

from pathlib import Path

import pytest

from export.errors import ExportError
from export.stages.write import free_to_write, read_sidecar, sha256, staged, up_to_date, write_sidecar


def _write(folder: Path, text: str, key: dict[str, str]) -> None:
    with staged(folder) as staging:
        (staging / "model.onnx").write_text(text)
        write_sidecar(staging, {"key": key})


def test_a_version_appears_whole_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    folder = tmp_path / "detector" / "1"
    _write(folder, "graph", {"weights": "a"})
    assert (folder / "model.onnx").read_text() == "graph"
    assert [path.name for path in folder.parent.iterdir()] == ["1"]
    assert up_to_date(folder, "model.onnx", {"weights": "a"})
    assert not up_to_date(folder, "model.onnx", {"weights": "b"})


def test_a_failure_on_the_way_leaves_the_old_version_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "detector" / "1"
    _write(folder, "old", {"weights": "a"})

    def fail() -> None:
        with staged(folder) as staging:
            (staging / "model.onnx").write_text("half")
            raise ExportError("no room on the disk.")

    with pytest.raises(ExportError, match="no room"):
        fail()
    assert (folder / "model.onnx").read_text() == "old"
    assert [path.name for path in folder.parent.iterdir()] == ["1"]


def test_a_numbered_version_that_exists_is_never_overwritten(tmp_path: Path) -> None:
    folder = tmp_path / "regressor" / "2"
    _write(folder, "graph", {})
    with pytest.raises(ExportError, match=r"Version 2 of the model 'regressor' exists.*choose another number"):
        free_to_write(folder, "model.onnx", own=False)
    free_to_write(folder, "model.onnx", own=True)
    (folder / "model.onnx").unlink()
    free_to_write(folder, "model.onnx", own=False)


def test_the_checkouts_own_version_is_replaced_in_one_step(tmp_path: Path) -> None:
    folder = tmp_path / "detector" / "1"
    _write(folder, "old", {"weights": "a"})
    _write(folder, "new", {"weights": "b"})
    assert (folder / "model.onnx").read_text() == "new"
    assert [path.name for path in folder.parent.iterdir()] == ["1"]


def test_an_unreadable_sidecar_means_not_up_to_date(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_text("x")
    for content in ("", "{", "[]"):
        (tmp_path / "export.json").write_text(content)
        assert read_sidecar(tmp_path) is None
        assert not up_to_date(tmp_path, "model.onnx", {})


def test_the_digest_of_a_folder_depends_on_names_and_contents(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.pt").write_bytes(b"1")
    assert sha256(tmp_path / "a") == sha256(tmp_path / "b")
    (tmp_path / "b" / "x.pt").rename(tmp_path / "b" / "y.pt")
    assert sha256(tmp_path / "a") != sha256(tmp_path / "b")
