"""The Dockerfiles and what the images are made of; test_image.py builds one of them."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.docker import pick
from deploy.docker.entrypoint import BadSecret, admin_key, main, trace_arguments
from deploy.docker.gpu import NETWORKS, lay_out, serve_command
from export.models import MODEL_NAMES
from tests.deploy.dockerfile import Stage, parse
from tests.deploy.tools import validator

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "deploy" / "docker"
FILES = sorted(DOCKER.glob("*.Dockerfile"))


def final(name: str) -> Stage:
    return parse(DOCKER / f"{name}.Dockerfile")[-1]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_hadolint_has_nothing_to_say(file: Path) -> None:
    hadolint = validator("bin/hadolint")
    result = subprocess.run([hadolint, "--no-color", file], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_an_image_runs_as_nobody_special_and_says_how_it_is(name: str) -> None:
    stage = final(name)
    user, _, group = stage.last("USER").text.partition(":")
    assert int(user) >= 1000
    assert int(group) >= 1000
    assert stage.last("HEALTHCHECK").text
    assert stage.command("ENTRYPOINT")[:2] == ["python3", "-m"]


def test_nothing_that_builds_is_in_the_cpu_image() -> None:
    runs = [step.text for stage in (parse(DOCKER / "cpu.Dockerfile")[0], final("cpu")) for step in stage.instructions]
    for word in ("pip", "venv --", "build-essential", "gcc", "curl", "torch", "python3-dev"):
        assert not any(word in run for run in runs), word


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_every_file_that_is_copied_exists_and_no_stage_is_misspelt(name: str) -> None:
    stages = parse(DOCKER / f"{name}.Dockerfile")
    names = {stage.name for stage in stages}
    for step in (step for stage in stages for step in stage.instructions if step.keyword == "COPY"):
        if "from" in step.options:
            assert step.options["from"] in names
        else:
            for source in step.text.split()[:-1]:
                assert (ROOT / source).exists(), source


def test_an_instruction_that_the_tests_do_not_know_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "Dockerfile"
    file.write_text("FROM scratch\nADD x /\n")
    with pytest.raises(ValueError, match="ADD is not known"):
        parse(file)


@pytest.mark.parametrize("path", ["deploy/secrets", ".venv", ".git", "*.onnx", "*.plan"])
def test_the_build_context_leaves_out(path: str) -> None:
    assert path in (ROOT / ".dockerignore").read_text()


# --- packages -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["serving", "gpu"])
def test_the_packages_of_an_image_are_in_the_lock_with_hashes(name: str) -> None:
    names = pick.wanted((DOCKER / f"requirements-{name}.in").read_text())
    part = pick.pick((ROOT / "requirements.lock").read_text(), names)
    assert len(re.findall(r"(?m)^\S+==", part)) == len(names)
    for _, block in pick.entries(part):
        assert "--hash=sha256:" in block


def test_a_package_that_the_lock_does_not_have_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wanted = tmp_path / "list.in"
    wanted.write_text("numpy\nno-such-thing  # a comment\n")
    assert pick.main([str(ROOT / "requirements.lock"), str(wanted)]) == 2
    assert "no-such-thing" in capsys.readouterr().err


def test_what_the_served_code_imports_is_in_the_image() -> None:
    # (That the list is also enough for what these packages import is shown by test_image.py, which starts the server.)
    served = [
        *(ROOT / "server").rglob("*.py"),
        *(ROOT / "model_repository").glob("*/*/*.py"),
        *(ROOT / "deploy" / "docker").glob("*.py"),
    ]
    own = {path.stem for path in served} | {"server", "deploy", "triton_python_backend_utils"}
    by_module = importlib.metadata.packages_distributions()
    wanted = set(pick.wanted((DOCKER / "requirements-serving.in").read_text()))
    for path in served:
        for module in imported(path) - own - set(sys.stdlib_module_names):
            distributions = {pick.normal(name) for name in by_module.get(module, [])}
            if module == "google":
                distributions = {"protobuf"}
            assert distributions & wanted, f"{path.relative_to(ROOT)} imports {module}, which the image does not have"


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


# --- entry points ---------------------------------------------------------------------------------------------------
def test_the_admin_key_comes_from_the_secrets_file(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("0123456789abcdef0123\n")
    assert admin_key({"FACE3D_ADMIN_KEY_FILE": str(file), "FACE3D_ADMIN_KEY": "something-else-entirely"}) == (
        "0123456789abcdef0123"
    )


def test_without_a_key_the_interfaces_are_closed_by_one_that_nobody_knows() -> None:
    first, second = admin_key({}), admin_key({})
    assert first != second
    assert len(first) >= 32


@pytest.mark.parametrize("key", ["", "short", "with,comma,and,more,of,them", "with space and more of them"])
def test_a_key_that_would_not_protect_is_refused_without_being_shown(
    key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "key"
    file.write_text(key)
    with pytest.raises(BadSecret):
        admin_key({"FACE3D_ADMIN_KEY_FILE": str(file)})
    monkeypatch.setenv("FACE3D_ADMIN_KEY_FILE", str(file))
    assert main([]) == 1
    shown = capsys.readouterr().err
    assert "openssl rand" in shown
    assert not key or key not in shown


def test_a_key_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadSecret, match="missing"):
        admin_key({"FACE3D_ADMIN_KEY_FILE": str(tmp_path / "missing")})


def test_tracing_is_off_unless_it_has_somewhere_to_go() -> None:
    assert trace_arguments({}) == []
    words = trace_arguments({"FACE3D_TRACE_URL": "http://collector:4318/v1/traces", "FACE3D_TRACE_RATE": "7"})
    assert "--trace-config=rate=7" in words
    assert "--trace-config=opentelemetry,url=http://collector:4318/v1/traces" in words


def test_the_gpu_server_is_closed_and_reads_the_tensorrt_flavour() -> None:
    words = serve_command(Path("/plans/x"), "k" * 20)
    for kind in ("--http-restricted-api", "--grpc-restricted-protocol"):
        assert f"{kind}=model-repository,shared-memory,trace,logging:admin-key={'k' * 20}" in words
    assert "--model-config-name=tensorrt" in words
    assert "--model-repository=/plans/x" in words


def test_plans_go_into_a_folder_of_their_own_for_each_release(tmp_path: Path) -> None:
    home, plans = tmp_path / "home", tmp_path / "plans"
    onnx = home / "build" / "tensorrt" / "regressor" / "1" / "model.onnx"
    for path in (onnx, home / "model_repository" / "regressor" / "config.pbtxt"):
        path.parent.mkdir(parents=True)
        path.write_text("first")
    plans.mkdir()
    first = lay_out(home, plans)
    (first / "regressor" / "model.cc90.plan").write_text("a plan")
    assert lay_out(home, plans) == first
    assert (first / "regressor" / "model.cc90.plan").is_file()
    onnx.write_text("other weights")
    second = lay_out(home, plans)
    assert [path.name for path in plans.iterdir()] == [second.name] != [first.name]
    assert not list(second.rglob("*.plan"))


def test_what_waits_for_networks_waits_for_all_of_them() -> None:
    assert NETWORKS == MODEL_NAMES
    makefile = (ROOT / "Makefile").read_text()
    assert f"NETWORKS := {' '.join(MODEL_NAMES)}\n" in makefile
