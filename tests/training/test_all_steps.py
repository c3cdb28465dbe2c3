"""The one command: its steps, what it leaves out, where it stops."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from training.__main__ import main, parse, run
from training.steps import ROOT, Plan, Step


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    for name in ("permissive", "portraits", "others"):
        (folder / name).mkdir(parents=True)
        (folder / name / "index.csv").write_text("file\n")
    (folder / "ict_facekit.npz").touch()
    (folder / "ict_facekit_full.npz").touch()
    return folder


def test_every_step_calls_a_program_that_is_there_with_options_it_has(data: Path, tmp_path: Path) -> None:
    steps = Plan(parse([str(data), str(tmp_path / "work")])).steps()
    names = list(dict.fromkeys(step.name for step in steps))
    assert names == [
        "label",
        "face-model",
        "teacher-map",
        "render",
        "regressor",
        "head",
        "parser",
        "texture",
        "screen",
        "albedo",
        "certainty",
        "identity-correction",
        "person-correction",
        "evaluate",
    ]
    for step in steps:
        words = step.command
        source = ROOT / (words[2].replace(".", "/") + ".py") if words[1] == "-m" else Path(words[1])
        text = source.read_text()
        for option in filter(lambda word: word.startswith("--"), words):
            assert f'"{option}"' in text, (source.name, option)


def test_a_step_reads_what_an_earlier_one_has_written(data: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    written: list[str] = []
    for step in Plan(parse([str(data), str(work)])).steps():
        assert all(path.is_relative_to(work) for path in step.results), step.says
        own = [str(path) for path in step.results]
        for word in step.command:
            if word.startswith(str(work)) and not word.endswith(".pt") and word not in own:
                # a file, or the stem of several; what a step keeps for itself has the name of nothing
                known = any(path.startswith(word) for path in (*written, *own)) or Path(word).parent.name == "weights"
                assert known or word.endswith(("weights", "textures.npy")), (step.says, word)
        written += own
        assert not any(word.isdigit() for word, option in zip(step.command[1:], step.command, strict=False)
                       if option in ("--weights", "--checkpoint", "--regressor")), step.says  # fmt: skip


def test_only_the_permissive_pictures_train(data: Path, tmp_path: Path) -> None:
    for step in Plan(parse([str(data), str(tmp_path / "work")])).steps():
        if step.name in {"regressor", "parser", "texture", "screen", "albedo", "certainty", "identity-correction"}:
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
    assert run(steps, dry=False, work=tmp_path) == 3
    assert "goes on from here" in capfd.readouterr().err
    assert (tmp_path / "one").exists()
    assert not (tmp_path / "three").exists()
    steps[1] = step("two", write, tmp_path / "two")
    assert run(steps, dry=False, work=tmp_path) == 0
    assert (tmp_path / "three").exists()


def test_half_of_a_result_that_an_interruption_left_is_not_taken_for_all_of_it(tmp_path: Path) -> None:
    result = tmp_path / "result"
    write = "import pathlib, sys; pathlib.Path(sys.argv[1]).write_text('half'); sys.exit(int(sys.argv[2]))"
    whole = "import pathlib, sys; pathlib.Path(sys.argv[1]).write_text('whole')"
    half = Step("one", "", [sys.executable, "-c", write, str(result), "1"], [result])
    assert run([half], dry=False, work=tmp_path) == 1
    assert result.read_text() == "half"
    assert run([Step("one", "", [sys.executable, "-c", whole, str(result)], [result])], dry=False, work=tmp_path) == 0
    assert result.read_text() == "whole"
    assert run([half], dry=False, work=tmp_path) == 0  # it is there: nothing to do


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_ends_the_step_and_says_how_to_go_on(data: Path, tmp_path: Path, kind: signal.Signals) -> None:
    # A teacher that says who it is and then takes for ever.
    teacher = tmp_path / "python"
    teacher.write_text("#!/bin/sh\necho $$ > " + f"{tmp_path / 'pid'}\nexec sleep 600\n")
    teacher.chmod(0o755)
    command = [sys.executable, "-m", "training", str(data), str(tmp_path / "work"), "--teacher", str(teacher)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        for _ in range(600):
            if (tmp_path / "pid").exists() and (tmp_path / "pid").read_text():
                break
            time.sleep(0.05)
        second = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        process.send_signal(kind)
        _, told = process.communicate(timeout=60)
    assert second.returncode == 2
    assert "Wait for it" in second.stderr
    assert process.returncode == 130
    assert told.endswith("the same command goes on from here.\n")
    assert "Traceback" not in told
    with contextlib.suppress(psutil.NoSuchProcess):  # a container's first process may leave the dead unburied
        assert psutil.Process(int((tmp_path / "pid").read_text())).status() == psutil.STATUS_ZOMBIE


def test_a_few_renders_are_one_small_file_and_many_are_files_of_several_seeds(data: Path, tmp_path: Path) -> None:
    def renders(count: int) -> list[list[str]]:
        steps = Plan(parse([str(data), str(tmp_path / "work"), "--renders", str(count)])).steps()
        return [step.command for step in steps if "shards" in str(step.results)]

    def numbers(command: list[str]) -> tuple[int, ...]:
        named = ("--count", "--shards", "--seed")
        return tuple(int(command[command.index(option) + 1]) for option in named)

    assert [numbers(command) for command in renders(40)] == [(40, 1, 1)]
    assert [numbers(command) for command in renders(25_000)] == [(500, 10, seed) for seed in range(1, 6)]
    assert [numbers(command) for command in renders(6_200)] == [(500, 10, 1), (500, 3, 2)]


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
