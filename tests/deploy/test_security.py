"""What SECURITY.md says, on the real server where it is about the server."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from deploy import audit
from deploy.docker import pick
from server.control import Control, ControlError
from server.embedded import EmbeddedServer, ServerOptions, on_free_ports
from server.repository import DEFAULT_REPOSITORY, read_repository
from tests.server.commands import FREE_PORTS
from tests.server.repositories import arithmetic

ROOT = Path(__file__).resolve().parents[2]
CLOSED = [
    ("POST", "v2/repository/index"),
    ("POST", "v2/repository/models/arithmetic/load"),
    ("POST", "v2/repository/models/arithmetic/unload"),
    ("GET", "v2/systemsharedmemory/status"),
    ("POST", "v2/systemsharedmemory/region/x/register"),
    ("GET", "v2/cudasharedmemory/status"),
    ("GET", "v2/trace/setting"),
    ("POST", "v2/models/arithmetic/trace/setting"),
    ("GET", "v2/logging"),
    ("POST", "v2/logging"),
]
SECRET = "a-key-that-must-not-be-seen-anywhere"


class Command:
    """`python -m server` as somebody starts it who has set nothing; ``http`` and ``grpc`` are Triton's own."""

    def __init__(self, repository: Path, log: Path, **environment: str) -> None:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("FACE3D_")}
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "server", "--repository", str(repository), "--log-file", str(log)),
                *(*FREE_PORTS, "--log-verbose", "1"),
            ],
            env={**clean, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        ready = self.process.stdout.readline() + self.process.stdout.readline()
        found = re.search(r"(?m)^triton: http (\S+), grpc (\S+)$", ready)
        assert found, ready
        self.http, self.grpc = found[1], found[2]

    def stop(self) -> str:
        """End it; everything it has printed."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return "".join(self.process.communicate(timeout=60))


@pytest.fixture(scope="module")
def default(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Command]:
    folder = tmp_path_factory.mktemp("default")
    arithmetic(folder / "repository")
    command = Command(folder / "repository", folder / "triton.log")
    try:
        yield command
    finally:
        command.stop()


@pytest.mark.parametrize(("method", "path"), CLOSED)
def test_what_changes_the_server_is_closed_by_default(default: Command, method: str, path: str) -> None:
    data = b"{}" if method == "POST" else None
    for headers in ({}, {"admin-key": ""}, {"admin-key": "guess"}):
        request = urllib.request.Request(f"http://{default.http}/{path}", data, headers, method=method)
        with pytest.raises(urllib.error.HTTPError) as refusal:
            urllib.request.urlopen(request, timeout=10)
        with refusal.value:
            assert refusal.value.code == 403


def test_and_so_it_is_by_grpc(default: Command) -> None:
    with triton.InferenceServerClient(default.grpc) as client:
        for call in (
            client.get_model_repository_index,
            client.get_system_shared_memory_status,
            client.get_cuda_shared_memory_status,
            client.get_trace_settings,
            client.get_log_settings,
            lambda: client.unload_model("arithmetic"),
        ):
            with pytest.raises(InferenceServerException, match="restricted"):
                call()
        assert client.is_model_ready("arithmetic")


def test_the_refusal_says_what_to_do(default: Command) -> None:
    with pytest.raises(ControlError, match="set FACE3D_ADMIN_KEY"):
        Control(default.http).index()


def test_the_key_is_in_no_log_and_no_output(tmp_path: Path) -> None:
    arithmetic(tmp_path / "repository")
    log = tmp_path / "triton.log"
    command = Command(tmp_path / "repository", log, FACE3D_ADMIN_KEY=SECRET)
    try:
        assert Control(command.http, SECRET).serving("arithmetic") == [1]
        with pytest.raises(ControlError) as refusal:
            Control(command.http, "wrong").index()
        assert SECRET not in str(refusal.value)
    finally:
        printed = command.stop()
    assert log.read_text()
    assert SECRET not in log.read_text()
    assert SECRET not in printed


def test_a_server_that_cannot_start_does_not_show_the_key(tmp_path: Path) -> None:
    folder = arithmetic(tmp_path / "repository")
    (folder / "config.pbtxt").write_text((folder / "config.pbtxt").read_text().replace("[4]", "[5]"))
    options = on_free_ports(ServerOptions(repository=tmp_path / "repository", admin_key=SECRET))
    with pytest.raises(Exception, match="arithmetic") as failure:
        EmbeddedServer(options).start()
    assert SECRET not in str(failure.value)


# --- what is served -------------------------------------------------------------------------------------------------
SERVED = [
    *(ROOT / "server").rglob("*.py"),
    *(ROOT / "model_repository").glob("*/*/*.py"),
    *(ROOT / "deploy" / "docker").glob("*.py"),
    *(ROOT / "client" / "src").rglob("*.py"),
]


def test_no_pickle_is_read_where_pictures_are_served() -> None:
    assert len(SERVED) > 30
    for path in SERVED:
        text = path.read_text()
        for word in (
            r"\bpickle\b",
            r"\bmarshal\b",
            r"\bshelve\b",
            r"torch\.load",
            r"allow_pickle=True",
            r"\beval\(",
            r"\bjoblib\b",
        ):
            assert not re.search(word, text), f"{path.relative_to(ROOT)}: {word}"


def test_limits_on_bytes_pixels_and_queues_are_what_the_document_says() -> None:
    text = (ROOT / "SECURITY.md").read_text()
    models = read_repository(DEFAULT_REPOSITORY)
    parameters = models["preprocess"].config.parameters
    assert f"{int(parameters['max_bytes'].string_value) >> 20} MiB" in text
    assert f"{int(parameters['max_pixels'].string_value) // 10**6} megapixels" in text
    assert f"more than {int(parameters['max_waiting'].string_value)} requests wait" in text


# --- the audit ------------------------------------------------------------------------------------------------------
def package(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "version": "1.0", "vulns": [], **more}


def test_an_audit_without_data_is_skipped_and_says_so() -> None:
    status, text = audit.judged({"dependencies": [{"name": "a", "skip_reason": "cannot be reached"}]})
    assert status == 0
    assert text.startswith("audit skipped")
    assert audit.judged("no route")[0] == 0


def test_a_known_weakness_fails_unless_somebody_gave_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"id": "PYSEC-1", "aliases": ["CVE-1"], "fix_versions": ["1.1"]}
    report = {"dependencies": [package("a", vulns=[found]), package("b"), {"name": "c", "skip_reason": "?"}]}
    status, text = audit.judged(report)
    assert status == 1
    assert "a 1.0: PYSEC-1, mended by 1.1" in text
    assert "2 of 3 packages audited" in text
    monkeypatch.setitem(audit.ACCEPTED, "CVE-1", "not reachable")
    assert audit.judged(report)[0] == 0


def test_what_is_served_is_audited_or_skipped_with_a_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # (`make audit` asks for the whole lock.)
    names = pick.wanted((ROOT / "deploy" / "docker" / "requirements-serving.in").read_text())
    lock = tmp_path / "serving.txt"
    lock.write_text(pick.pick((ROOT / "requirements.lock").read_text(), names))
    status = audit.main([str(lock)])
    shown = capsys.readouterr().out
    if shown.startswith("audit skipped"):
        pytest.skip(shown.strip())
    assert status == 0, shown
