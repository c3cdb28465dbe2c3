"""Supervision of a real server whose processes are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from server import stall, stub_processes, supervise
from server.control import Control, Unreachable
from server.embedded import EmbeddedServer, ServerOptions, on_free_ports
from server.release.commands import Releases
from server.release.store import Store
from server.supervise import Supervisor
from tests.server.calls import infer, rows
from tests.server.repositories import ECHO, arithmetic, ensemble, python_model
from tests.servers import serving

# Its process ends at every request, as long as a certain file lies beside its code.
MOODY = """\
def execute(self, requests):
    if os.path.exists(os.path.join(os.path.dirname(__file__), 'mood')):
        os._exit(1)
    return [answer(r, pb_utils.get_input_tensor_by_name(r, 'x').as_numpy()) for r in requests]
"""


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine takes longer than the supervisor waits in service."""
    for limit in ("_LOAD_WITHIN", "_ANSWER_WITHIN", "_STATE_WITHIN"):
        monkeypatch.setattr(supervise, limit, 60.0)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    repository = tmp_path_factory.mktemp("repository")
    python_model(repository, "moody", MOODY)
    arithmetic(repository, "single")
    arithmetic(repository, "double", count=2)
    python_model(repository, "echo", ECHO)
    ensemble(repository, "chain", ["single", "double"])
    options = ServerOptions(repository=repository, model_control_mode="explicit", exit_timeout=2)
    with serving(on_free_ports(options)) as running:
        yield running


def stubs(server: EmbeddedServer, model: str) -> set[int]:
    return {pid for (name, _), pids in stub_processes.stubs(server.pid).items() if name == model for pid in pids}


def supervisor(server: EmbeddedServer, *, counting: bool = True, lines: list[str] | None = None) -> Supervisor:
    say = (lambda _: None) if lines is None else lines.append
    return Supervisor(Control(server.http), ["chain", "echo"], server.pid if counting else None, say)


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 60
    # Triton does not reap it: it stays as a zombie.
    while Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_counts_the_processes_of_each_version(server: EmbeddedServer) -> None:
    counts = {key: len(pids) for key, pids in stub_processes.stubs(server.pid).items()}
    assert counts == {("single", 1): 1, ("double", 1): 2, ("echo", 1): 1, ("moody", 1): 1}
    control = Control(server.http)
    assert {name: stub_processes.expected(control.config(name)) for name in ("single", "double", "echo", "chain")} == {
        "single": 1,
        "double": 2,
        "echo": 1,
        "chain": 0,
    }


def test_a_stopped_process_is_ended_before_it_goes_on(server: EmbeddedServer) -> None:
    watching = supervisor(server)
    assert watching.step()
    (stopped,) = stubs(server, "single")
    os.kill(stopped, signal.SIGSTOP)
    deadline = time.monotonic() + 60
    while not watching.new_deaths():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(stopped, signal.SIGCONT)  # too late: it is dead, and its server does not abort
    assert watching.step()
    assert watching.revivals["single"] == 1
    assert server.poll() is None
    assert infer(server, "chain", x=rows(2))["y"].shape == (1, 4)


def test_probes_no_more_than_it_has_to(server: EmbeddedServer) -> None:
    assert supervise.what_to_probe(Control(server.http)) == ("chain", "echo", "moody")


def test_finds_a_healthy_server_healthy(server: EmbeddedServer) -> None:
    watcher = supervisor(server)
    assert watcher.step(), watcher.reason
    assert (watcher.probes["ok"], watcher.probes["failed"], sum(watcher.revivals.values())) == (1, 0, 0)
    assert watcher.probe_seconds > 0


@pytest.mark.parametrize("model", ["single", "double", "echo"])
def test_revives_a_model_in_one_step_by_counting(server: EmbeddedServer, model: str) -> None:
    lines: list[str] = []
    watcher = supervisor(server, lines=lines)
    watcher.step()
    kill(min(stubs(server, model)))
    assert watcher.step(), watcher.reason
    assert watcher.revivals == {model: 1}
    assert f"supervisor: reviving {model}: a process of it has died" in lines
    assert infer(server, "chain", x=rows(1))["y"].tolist() == rows(4).tolist()
    assert watcher.step(), watcher.reason
    assert watcher.revivals == {model: 1}, "once is enough"


@pytest.mark.parametrize("model", ["single", "echo"])
def test_revives_a_model_in_one_step_by_probing(server: EmbeddedServer, model: str) -> None:
    watcher = supervisor(server, counting=False)
    kill(max(stubs(server, model)))
    assert watcher.step(), watcher.reason
    assert watcher.revivals == {model: 1}
    assert f'face3d_revivals_total{{model="{model}"}} 1' in watcher.metrics()


def test_ends_the_processes_that_a_revival_left_behind(server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervise, "_GRACE", 0.2)
    watcher = supervisor(server)
    watcher.step()
    first, second = sorted(stubs(server, "double"))[-2:]
    kill(first)
    watcher.step()
    assert second in stubs(server, "double"), "Triton leaves it"
    time.sleep(0.3)
    watcher.step()
    time.sleep(0.3)
    assert second not in stubs(server, "double")
    assert watcher.step(), watcher.reason
    assert watcher.revivals == {"double": 1}


def test_does_not_mistake_a_swap_for_a_death(server: EmbeddedServer, tmp_path: Path) -> None:
    watcher = supervisor(server)
    releases = Releases(Store(server.options.repository), Control(server.http))
    watcher.step()
    before = dict(watcher.revivals)
    with watcher.running(0.05):
        for factor in (3, 5):
            releases.publish({"echo": _echo(tmp_path / f"echo{factor}", factor)}, trial=False)
    assert dict(watcher.revivals) == before
    assert watcher.healthy


def _echo(folder: Path, number: int) -> Path:
    python_model(folder, "echo", ECHO + f"# {number}")
    return folder / "echo" / "1"


def test_gives_a_server_up_whose_model_dies_again_at_once(server: EmbeddedServer) -> None:
    ended: list[str] = []
    lines: list[str] = []
    watcher = Supervisor(Control(server.http), ["moody"], server.pid, lines.append, lambda: ended.append("now"))
    assert watcher.step(), watcher.reason
    mood = server.options.repository / "moody" / "1" / "mood"
    mood.touch()
    try:
        assert not watcher.step()
    finally:
        mood.unlink()
    assert (ended, watcher.revivals) == (["now"], {"moody": 1})
    assert lines[-1] == "supervisor: that did not help; ending the server"
    assert watcher.step(), watcher.reason  # here nobody has ended it, and the mood has passed


def test_gives_a_server_up_that_answers_nothing_three_times(
    server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervise, "_STATE_WITHIN", 1.5)
    ended: list[str] = []
    lines: list[str] = []
    watcher = Supervisor(Control(server.http), ["chain"], server.pid, lines.append, lambda: ended.append("now"))

    def hangs(steps: int) -> None:
        os.kill(server.pid, signal.SIGSTOP)
        try:
            for _ in range(steps):
                assert not watcher.step()
        finally:
            os.kill(server.pid, signal.SIGCONT)

    hangs(2)
    assert watcher.step(), "it came back by itself"
    hangs(2)
    assert ended == []
    hangs(1)
    assert ended == ["now"]
    assert lines[-1] == "supervisor: no answer to 3 questions in a row; ending the server"
    assert sum(watcher.revivals.values()) == 0


def test_tells_a_server_that_works_from_one_that_does_nothing(server: EmbeddedServer) -> None:
    """A revival that takes long under load is waited for, one on a server that sleeps is not."""
    deadline = time.monotonic() + 60
    while stall.is_working(server.pid):  # what earlier tests asked of it may take its time
        assert time.monotonic() < deadline, "an idle server counts as one that works"
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            infer(server, "chain", x=rows(1))

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        assert stall.is_working(server.pid, 10)
    finally:
        stop.set()
        thread.join()
    assert not stall.is_working(2**22 + 1), "there is no such process"


def test_leaves_a_server_that_hangs_to_others_when_it_is_not_its_own(server: EmbeddedServer) -> None:
    watcher = Supervisor(Control("127.0.0.1:1"), ["chain"])
    for _ in range(5):
        assert not watcher.step()
    assert "cannot be reached" in watcher.reason


def test_answers_for_health_and_metrics(server: EmbeddedServer) -> None:
    watcher = supervisor(server)
    with watcher.running(0.1, port=0) as endpoint:
        deadline = time.monotonic() + 20
        while not watcher.healthy:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        with urllib.request.urlopen(f"http://{endpoint}/healthz", timeout=5) as answer:
            assert answer.status == 200
        with urllib.request.urlopen(f"http://{endpoint}/metrics", timeout=5) as answer:
            text = answer.read().decode()
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"http://{endpoint}/else", timeout=5).close()
    assert 'face3d_probes_total{result="ok"}' in text
    assert "face3d_healthy 1" in text


def test_says_that_a_server_is_gone() -> None:
    lines: list[str] = []
    watcher = Supervisor(Control("127.0.0.1:1"), ["chain"], None, lines.append)
    assert not watcher.step()
    assert not watcher.step()
    assert len(lines) == 1, "the same trouble is said once"
    assert "cannot be reached" in lines[0]
    assert "face3d_healthy 0" in watcher.metrics()
    with pytest.raises(Unreachable):
        Control("127.0.0.1:1").index()


def test_the_command_probes_once_for_health_checks(server: EmbeddedServer) -> None:
    command = [sys.executable, "-m", "server.supervise", "--once", "--server"]
    good = subprocess.run([*command, server.http], capture_output=True, text=True, check=False, timeout=60)
    assert (good.returncode, good.stderr) == (0, "")
    bad = subprocess.run([*command, "127.0.0.1:1"], capture_output=True, text=True, check=False, timeout=60)
    assert bad.returncode == 1
    assert "cannot be reached" in bad.stderr


def test_the_command_finds_the_server_s_process_by_its_port(server: EmbeddedServer) -> None:
    assert supervise._server_pid(int(server.http.split(":")[1])) == server.pid
    assert supervise._server_pid(1) is None
