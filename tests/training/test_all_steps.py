"""The one command: its steps, what it leaves out, where it stops."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from training.__main__ import ROOT, Step, main, parse, plan, run


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    for name in ("permissive", "portraits", "others"):
        (folder / name).mkdir(parents=True)
        (folder / name / "index.csv").write_text("file\n")
    (folder / "ict_facekit.npz").touch()
    return folder


def test_every_step_calls_a_program_that_is_there_with_options_it_has(data: Path, tmp_path: Path) -> None:
    steps = plan(parse([str(data), str(tmp_path / "work")]))
    names = list(dict.fromkeys(step.name for step in steps))
    assert names == ["label", "face-model", "teacher-map", "render", "regressor", "texture", "albedo", "evaluate"]
    for step in steps:
        words = step.command
        source = ROOT / (words[2].replace(".", "/") + ".py") if words[1] == "-m" else Path(words[1])
        text = source.read_text()
        for option in filter(lambda word: word.startswith("--"), words):
            assert f'"{option}"' in text, (source.name, option)


def test_only_the_permissive_pictures_train(data: Path, tmp_path: Path) -> None:
    for step in plan(parse([str(data), str(tmp_path / "work")])):
        if step.name in {"regressor", "texture", "albedo"}:
            assert not re.search("portraits|others", " ".join(step.command))


def test_a_step_whose_results_are_there_is_left_out(
    data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    (work / "face_model.npz").touch()
    assert main([str(data), str(work), "--only", "face-model", "--dry-run"]) == 0
    assert "is there" in capfd.readouterr().out
    (work / "face_model.npz").unlink()
    assert main([str(data), str(work), "--only", "face-model", "--dry-run"]) == 0
    assert "training.face_model" in capfd.readouterr().out


def test_a_step_that_fails_stops_the_run_and_what_was_done_stays(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def step(name: str, code: str, result: Path) -> Step:
        return Step(name, "", [sys.executable, "-c", code, str(result)], [result])

    write = "import pathlib, sys; pathlib.Path(sys.argv[1]).touch()"
    steps = [
        step("one", write, tmp_path / "one"),
        step("two", "import sys; sys.exit(3)", tmp_path / "two"),
        step("three", write, tmp_path / "three"),
    ]
    assert run(steps, dry=False) == 3
    assert "goes on from here" in capfd.readouterr().err
    assert (tmp_path / "one").exists()
    assert not (tmp_path / "three").exists()
    steps[1] = step("two", write, tmp_path / "two")
    assert run(steps, dry=False) == 0
    assert (tmp_path / "three").exists()


def test_missing_data_and_unknown_steps_are_said_by_name(
    data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main([str(data), str(tmp_path / "work"), "--only", "bake"]) == 2
    assert "no step bake" in capfd.readouterr().err
    (data / "ict_facekit.npz").unlink()
    with pytest.raises(SystemExit) as stopped:
        main([str(data), str(tmp_path / "work")])
    assert stopped.value.code == 2
    assert "ict_facekit.npz is missing" in capfd.readouterr().err
