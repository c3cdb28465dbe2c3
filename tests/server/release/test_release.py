"""Releases on a real server, and on a repository without one.

The repository holds two models that belong together: `first` multiplies by a factor, `second` divides by it, so that
the ensemble `chain` gives back what it got, as long as both are of the same release.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
from onnx import helper

from server.control import Control, ControlError
from server.embedded import EmbeddedServer, ServerOptions, on_free_ports
from server.release.__main__ import main
from server.release.commands import Releases
from server.release.store import ReleaseError, Store
from server.release.structure import CandidateRefused
from tests.server.calls import infer, rows
from tests.server.commands import FREE_PORTS, Command
from tests.server.repositories import (
    ECHO,
    FLOAT,
    arithmetic,
    ensemble,
    python_model,
    save_graph,
    write_arithmetic_version,
)
from tests.servers import serving


def make_repository(folder: Path) -> Path:
    arithmetic(folder, "first", config="dynamic_batching {}\n", factor=2)
    arithmetic(folder, "second", config="dynamic_batching {}\n", factor=1 / 2)
    ensemble(folder, "chain", ["first", "second"])
    return folder


def candidate(folder: Path, factor: float) -> Path:
    """A version folder for `first` or `second`."""
    write_arithmetic_version(folder, factor)
    return folder


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return make_repository(tmp_path / "repository")


@pytest.fixture
def server(repository: Path) -> Iterator[EmbeddedServer]:
    options = ServerOptions(repository=repository, model_control_mode="explicit", exit_timeout=10)
    with serving(on_free_ports(options)) as running:
        yield running


@pytest.fixture
def offline(repository: Path) -> Releases:
    return Releases(Store(repository))


@pytest.fixture
def online(server: EmbeddedServer) -> Releases:
    return Releases(Store(server.options.repository), Control(server.http))


def factor(server: EmbeddedServer, model: str = "first") -> float:
    return float(infer(server, model, ["twice"], x=rows(1))["twice"][0, 0])


# A release command that is killed before the given one of its steps: a copy, a rename, a load, a word in the record.
DEADLY = """
import os, signal, sys
from server.control import Control, ControlError
from server.release.__main__ import main
from server.release.store import Store

left = int(sys.argv[1])

def deadly(owner, name):
    step = getattr(owner, name)
    def stepped(*args, **kwargs):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return step(*args, **kwargs)
    setattr(owner, name, stepped)

for name in ("stage", "write", "promote", "put_aside", "bring_back"):
    deadly(Store, name)
deadly(Control, "load")
sys.exit(main(sys.argv[2:]))
"""


def killed_before(step: int, repository: Path, *words: str) -> bool:
    """Run a release command that is killed before its n-th step; False when it had fewer and was done."""
    command = [sys.executable, "-c", DEADLY, str(step), "--repository", str(repository), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode != 0


def names_in(repository: Path, model: str) -> set[str]:
    return {entry.name for entry in (repository / model).iterdir() if entry.is_dir()}


class Load:
    """Clients that ask `chain` all the time and count what they get: 'ok', 'mixed', or the error."""

    def __init__(self, server: EmbeddedServer, clients: int) -> None:
        self.counts: Counter[str] = Counter()
        self.latencies: list[float] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(server.grpc, i + 1.0)) for i in range(clients)]

    def _ask(self, endpoint: str, value: float) -> None:
        tensor = triton_grpc.InferInput("x", [1, 4], "FP32")
        tensor.set_data_from_numpy(rows(value))
        with triton_grpc.InferenceServerClient(endpoint) as client:
            while not self._stop.is_set():
                began = time.monotonic()
                try:
                    got = client.infer("chain", [tensor], client_timeout=60).as_numpy("y")
                    self.counts["ok" if np.allclose(got, value) else "mixed"] += 1
                except Exception as error:
                    self.counts[str(error)] += 1
                self.latencies.append(time.monotonic() - began)

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        time.sleep(0.5)
        return self

    def __exit__(self, *_: object) -> None:
        time.sleep(0.5)
        self._stop.set()
        for thread in self._threads:
            thread.join()


class TestPublish:
    def test_serves_the_new_version_and_records_it(
        self, online: Releases, server: EmbeddedServer, tmp_path: Path
    ) -> None:
        release = online.publish({"first": candidate(tmp_path / "new", 3)}, "three", trial=False)
        assert factor(server) == 3
        assert (release.number, release.versions, release.previous) == (1, {"first": 2}, {"first": 1})
        assert [r.note for r in Store(online.store.repository).record().releases] == ["three"]
        assert online.status()["server"]["first"] == [2]

    def test_takes_the_single_file_of_a_version(self, offline: Releases, tmp_path: Path) -> None:
        offline.publish({"first": candidate(tmp_path / "new", 3) / "model.onnx"}, trial=False)
        assert names_in(offline.store.repository, "first") == {"1", "2"}

    def test_refuses_a_candidate_that_does_not_load_and_changes_nothing(
        self, online: Releases, server: EmbeddedServer, tmp_path: Path
    ) -> None:
        (tmp_path / "new").mkdir()
        (tmp_path / "new" / "model.onnx").write_bytes(b"half a model")
        with pytest.raises(CandidateRefused, match="is not a model that ONNX Runtime can load"):
            online.publish({"first": tmp_path / "new"})
        assert names_in(online.store.repository, "first") == {"1"}
        assert online.status()["healthy"]
        assert online.status()["last_release"] is None

    def test_refuses_a_candidate_that_its_neighbours_do_not_understand(self, offline: Releases, tmp_path: Path) -> None:
        # It loads, but what the ensemble makes of it is not a number.
        with pytest.raises(CandidateRefused, match="'chain' gave numbers that are not finite"):
            offline.publish({"first": candidate(tmp_path / "new", float("inf"))})
        assert names_in(offline.store.repository, "first") == {"1"}

    def test_puts_everything_back_when_the_server_refuses(
        self, online: Releases, server: EmbeddedServer, tmp_path: Path
    ) -> None:
        # The graph is whole; the part that the server would run in its place is not.
        bad = candidate(tmp_path / "bad", 1 / 3)
        (bad / "fill.onnx").write_bytes(b"half a model")
        np.savez(bad / "tables.npz", whole="nothing")
        good = candidate(tmp_path / "good", 3)
        with Load(server, 4) as load, pytest.raises(ReleaseError, match="It serves what it served before"):
            online.publish({"first": good, "second": tmp_path / "bad"}, trial=False)
        assert set(load.counts) == {"ok"}
        assert names_in(online.store.repository, "first") == {"1", ".rejected-2"}
        assert names_in(online.store.repository, "second") == {"1", ".rejected-2"}
        # Triton's server-wide ready check stays false after this, whatever follows; the ensemble's does not.
        assert online.status()["healthy"]
        with pytest.raises(ControlError, match="400"):
            Control(server.http).request("v2/health/ready")
        release = online.publish({"first": good, "second": candidate(tmp_path / "third", 1 / 3)}, trial=False)
        assert release.versions == {"first": 3, "second": 3}
        assert factor(server) == 3

    def test_never_mixes_models_of_two_releases_under_load(
        self, online: Releases, server: EmbeddedServer, tmp_path: Path
    ) -> None:
        with Load(server, 8) as load:
            for value in (3, 5):
                pair = {
                    "first": candidate(tmp_path / f"first-{value}", value),
                    "second": candidate(tmp_path / f"second-{value}", 1 / value),
                }
                online.publish(pair, trial=False)
            online.rollback()
        assert factor(server) == 3
        assert set(load.counts) == {"ok"}

    @pytest.mark.parametrize(
        ("pairs", "says"),
        [
            ({"third": "new"}, "there is no model 'third'"),
            ({"chain": "new"}, "'chain' is an ensemble: it has no versions of its own"),
            ({"first": "nowhere"}, "there is nothing at .*nowhere"),
            ({"first": "empty"}, "lacks model.onnx, which a version of 'first' needs"),
            ({"first": "linked"}, "is neither a file nor a folder"),
            ({"first": "with-pipe"}, "pipe is neither a file nor a folder"),
            ({"first": "pipe"}, "pipe is neither a file nor a folder"),
            ({"first": "/dev/zero"}, "/dev/zero is neither a file nor a folder"),
            ({"first": "/"}, "/ lacks model.onnx"),
            ({"first": "n" * 300}, "cannot be copied into the repository .File name too long"),
            ({"first": "huge"}, "cannot be copied into the repository: it has [0-9]+ MB"),
            ({"first": "many"}, "holds more than 1000 files"),
            ({"../first": "new"}, "there is no model '../first'"),
            ({"": "new"}, "there is no model ''"),
            ({"first": "repository/first"}, "lacks model.onnx"),
            ({"first": "same"}, "first: the candidate is the very version that serves now"),
        ],
    )
    def test_says_what_is_wrong_with_the_files(
        self, offline: Releases, tmp_path: Path, pairs: dict[str, str], says: str
    ) -> None:
        candidate(tmp_path / "new", 3)
        candidate(tmp_path / "same", 2)
        (tmp_path / "empty").mkdir()
        (tmp_path / "linked").mkdir()
        (tmp_path / "linked" / "model.onnx").symlink_to(tmp_path / "new" / "model.onnx")
        for name in ("with-pipe", "huge", "many"):
            candidate(tmp_path / name, 3)
        os.mkfifo(tmp_path / "with-pipe" / "pipe")
        os.mkfifo(tmp_path / "pipe")
        with (tmp_path / "huge" / "weights.bin").open("wb") as file:
            file.truncate(8 << 40)  # takes no room: a hole
        for number in range(1001):
            (tmp_path / "many" / str(number)).touch()
        with pytest.raises(ReleaseError, match=says):
            offline.publish({name: tmp_path / path for name, path in pairs.items()}, trial=False)
        assert names_in(offline.store.repository, "first") == {"1"}

    def test_refuses_a_file_that_is_no_model_of_its_configuration_without_a_trial(
        self, offline: Releases, tmp_path: Path
    ) -> None:
        python_model(offline.store.repository, "echo", ECHO)
        releases = Releases(Store(offline.store.repository))
        whole = (candidate(tmp_path / "whole", 3) / "model.onnx").read_bytes()
        other = save_graph(
            tmp_path / "other.onnx",
            [helper.make_node("Neg", ["x"], ["y"])],
            [("x", FLOAT, ["batch", 4])],
            [("y", FLOAT, ["batch", 4])],
        )
        wide = save_graph(
            tmp_path / "wide.onnx",
            [helper.make_node("Neg", ["x"], ["twice"]), helper.make_node("Neg", ["x"], ["square"])],
            [("x", FLOAT, ["batch", 5])],
            [("twice", FLOAT, ["batch", 5]), ("square", FLOAT, ["batch", 5])],
        )
        for model, data, says in (
            ("first", b"half a model", "is not a model that ONNX Runtime can load"),
            ("first", whole[:60], "is not a model that ONNX Runtime can load"),
            ("first", b"", "model.onnx is empty"),
            ("first", other.read_bytes(), "output 'twice' is in the configuration but the model has only"),
            ("first", wide.read_bytes(), r"input 'x' has shape \[-1, 4\] in the configuration"),
            ("echo", b"def execute(:\n", "model.py is not Python code"),
            ("echo", b"import os\n", "model.py has no class TritonPythonModel"),
            ("echo", b"\0" * 100, "model.py is not Python code"),
        ):
            (tmp_path / "file").write_bytes(data)
            with pytest.raises(CandidateRefused, match=says):
                releases.publish({model: tmp_path / "file"}, trial=False)
        (tmp_path / "whole" / "tables.npz").write_bytes(b"no arrays")
        with pytest.raises(CandidateRefused, match=r"tables.npz is not a file of arrays"):
            releases.publish({"first": tmp_path / "whole"}, trial=False)
        assert names_in(releases.store.repository, "first") == names_in(releases.store.repository, "echo") == {"1"}

    def test_says_before_the_trial_that_the_server_lets_no_model_be_changed(
        self, repository: Path, tmp_path: Path
    ) -> None:
        said: list[str] = []
        with serving(on_free_ports(ServerOptions(repository=repository))) as server:
            releases = Releases(Store(repository), Control(server.http), say=said.append)
            with pytest.raises(ReleaseError, match=r"--supervise S or --model-control-mode explicit"):
                releases.publish({"first": candidate(tmp_path / "new", 3)})
            assert releases.prune(keep=1) == {}  # nothing is loaded for that
            assert releases.status()["healthy"]
        assert said == []
        assert names_in(repository, "first") == {"1"}

    def test_asking_whether_models_may_be_changed_leaves_the_server_ready(
        self, online: Releases, server: EmbeddedServer
    ) -> None:
        control = Control(server.http)
        assert control.takes_loads()
        control.request("v2/health/ready")  # raises when it is not

    def test_fails_before_it_touches_anything_when_there_is_no_server(self, repository: Path, tmp_path: Path) -> None:
        releases = Releases(Store(repository), Control("127.0.0.1:1"))
        with pytest.raises(Exception, match="cannot be reached"):
            releases.publish({"first": candidate(tmp_path / "new", 3)}, trial=False)
        assert names_in(repository, "first") == {"1"}

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
    def test_leaves_the_repository_alone_when_the_server_goes_away(
        self, repository: Path, tmp_path: Path, number: signal.Signals
    ) -> None:
        slow = python_model(repository, "slow", "def initialize(self, args):\n    time.sleep(0)\n" + ECHO)
        (tmp_path / "new").mkdir()
        code = (slow / "1" / "model.py").read_text().replace("time.sleep(0)", "time.sleep(4)")
        (tmp_path / "new" / "model.py").write_text(code)
        options = ServerOptions(repository=repository, model_control_mode="explicit", exit_timeout=10)
        with serving(on_free_ports(options)) as server:
            releases = Releases(Store(repository), Control(server.http))
            # The whole group: a stub that lives on would keep the connection open.
            thread = threading.Timer(1.5, lambda: os.killpg(server.pid, number))
            thread.start()
            with pytest.raises(ReleaseError, match=r"as it was|what it served before"):
                releases.publish({"slow": tmp_path / "new"}, trial=False)
            thread.join()
        assert names_in(repository, "slow") == {"1", ".rejected-2"}
        with serving(on_free_ports(options)) as server:
            assert Releases(Store(repository), Control(server.http)).status()["healthy"]

    def test_never_serves_a_folder_that_is_half_copied(self, server: EmbeddedServer, online: Releases) -> None:
        (online.store.repository / "first" / ".staging-12345678").mkdir()
        (online.store.repository / "first" / ".staging-12345678" / "model.onnx").write_bytes(b"half")
        Control(server.http).load("first")
        assert factor(server) == 2
        online.prune(keep=5)
        assert names_in(online.store.repository, "first") == {"1"}


class TestGoingBack:
    def test_rollback_serves_what_served_before(self, online: Releases, server: EmbeddedServer, tmp_path: Path) -> None:
        for value in (3, 5):
            online.publish({"first": candidate(tmp_path / str(value), value)}, trial=False)
        assert online.rollback().versions == {"first": 2}
        assert factor(server) == 3
        assert online.rollback().versions == {"first": 1}
        assert factor(server) == 2
        with pytest.raises(ReleaseError, match="nothing to go back to"):
            online.rollback()
        # A number is never used twice, not even one that was taken back.
        assert online.publish({"first": candidate(tmp_path / "7", 7)}, trial=False).versions == {"first": 4}
        assert factor(server) == 7

    def test_pin_holds_a_version_until_it_is_lifted(
        self, online: Releases, server: EmbeddedServer, tmp_path: Path
    ) -> None:
        for value in (3, 5):
            online.publish({"first": candidate(tmp_path / str(value), value)}, trial=False)
        online.pin("first", 1)
        assert factor(server) == 2
        with pytest.raises(ReleaseError, match=r"'first' is pinned to version 1: unpin it first"):
            online.publish({"first": candidate(tmp_path / "7", 7)}, trial=False)
        assert [row["state"] for row in online.versions() if row["model"] == "first"] == [
            "serves, pinned",
            "retired",
            "retired",
        ]
        online.unpin("first")
        assert factor(server) == 5

    def test_pin_refuses_versions_that_are_not_there(self, offline: Releases) -> None:
        with pytest.raises(ReleaseError, match="version 9 of 'first' is not in the repository"):
            offline.pin("first", 9)
        with pytest.raises(ReleaseError, match="'first' is not pinned"):
            offline.unpin("first")

    def test_prune_keeps_the_serving_version_and_the_newest(self, offline: Releases, tmp_path: Path) -> None:
        for value in (3, 5, 7, 9):
            offline.publish({"first": candidate(tmp_path / str(value), value)}, trial=False)
        assert offline.prune(keep=1) == {"first": [1, 2, 3]}
        assert names_in(offline.store.repository, "first") == {"4", "5"}
        offline.rollback()
        with pytest.raises(ReleaseError, match="version 3 of 'first' is not in the repository any more"):
            offline.rollback()

    @pytest.mark.parametrize("keep", [0, -1])
    def test_prune_deletes_nothing_when_nothing_would_be_kept(
        self, offline: Releases, tmp_path: Path, keep: int
    ) -> None:
        offline.publish({"first": candidate(tmp_path / "new", 3)}, trial=False)
        with pytest.raises(ReleaseError, match="keep 1 or more"):
            offline.prune(keep=keep)
        assert names_in(offline.store.repository, "first") == {"1", "2"}

    def test_prune_removes_a_version_that_is_a_link_and_leaves_what_it_leads_to(
        self, offline: Releases, tmp_path: Path
    ) -> None:
        for value in (3, 5, 7):
            offline.publish({"first": candidate(tmp_path / str(value), value)}, trial=False)
        oldest = offline.store.folder("first", 1)
        shutil.rmtree(oldest)
        oldest.symlink_to(tmp_path / "3", target_is_directory=True)
        assert offline.prune(keep=1) == {"first": [1, 2]}
        assert names_in(offline.store.repository, "first") == {"3", "4"}
        assert (tmp_path / "3" / "model.onnx").is_file()
        assert not list((offline.store.repository / "first").glob(".staging-*"))

    @pytest.mark.parametrize("name", ["0", "-1", "01", "1" + 20 * "0", "\uff12", "2.0", "\u00b2"])
    def test_a_folder_whose_name_is_no_version_is_left_alone(
        self, offline: Releases, tmp_path: Path, name: str
    ) -> None:
        (offline.store.repository / "first" / name).mkdir()
        assert offline.publish({"first": candidate(tmp_path / "new", 3)}, trial=False).versions == {"first": 2}
        assert offline.prune(keep=1) == {}
        assert (offline.store.repository / "first" / name).is_dir()


@contextlib.contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """Let every write beyond ``size`` bytes of a file fail, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class TestSafety:
    def test_refuses_two_commands_at_once(self, offline: Releases, tmp_path: Path) -> None:
        with offline.store.lock(), pytest.raises(ReleaseError, match=f"process {os.getpid()}\\) is at work"):
            Releases(Store(offline.store.repository)).publish({"first": candidate(tmp_path / "new", 3)}, trial=False)

    def test_takes_back_what_a_killed_command_left_half_done(
        self, online: Releases, server: EmbeddedServer, tmp_path: Path
    ) -> None:
        # As if it had been killed after the first of two renames.
        store = online.store
        record = store.record()
        record.pending = {"first": [1], "second": [1]}
        store.write(record)
        write_arithmetic_version(store.folder("first", 2), 3)
        assert online.status()["interrupted"]
        assert online.prune(keep=1) == {}
        assert names_in(store.repository, "first") == {"1", ".retired-2"}
        assert not online.status()["interrupted"]
        assert factor(server) == 2
        assert online.status()["healthy"]

    @pytest.mark.parametrize("words", [("pin", "first", "1"), ("unpin", "first"), ("rollback",), ("publish", "first")])
    def test_a_command_that_is_killed_anywhere_is_taken_back_whole(
        self, offline: Releases, tmp_path: Path, words: tuple[str, ...]
    ) -> None:
        repository = offline.store.repository
        for value in (3, 5, 7):
            offline.publish({"first": candidate(tmp_path / str(value), value)}, trial=False)
        if words[0] == "unpin":
            offline.pin("first", 1)
        if words[0] == "publish":
            words = (*words, str(candidate(tmp_path / "new", 9)), "--no-trial")
        before, record, rows = names_in(repository, "first"), offline.store.record(), offline.versions()
        step = 1
        while killed_before(step, repository, "--offline", *words):
            offline.prune(keep=9)
            # What publish had put into place keeps its number, out of the way.
            assert names_in(repository, "first") - {".retired-5"} == before, step
            assert [row for row in offline.versions() if row["version"] != 5] == rows, step
            assert offline.store.record() == record, step
            offline.store.clean()
            if (repository / "first" / ".retired-5").exists():
                offline.store.remove("first", 5)
            step += 1
        assert step > 3
        assert len(offline.store.record().releases) == len(record.releases) + 1

    def test_a_server_takes_back_what_a_killed_command_left_before_it_serves(
        self, offline: Releases, tmp_path: Path
    ) -> None:
        repository, pair = offline.store.repository, ["first", str(candidate(tmp_path / "a", 3))]
        pair += ["second", str(candidate(tmp_path / "b", 1 / 3))]
        # Two copies, the word in the record, one of two renames.
        assert killed_before(5, repository, "--offline", "publish", *pair, "--no-trial")
        assert (names_in(repository, "first") & {"2"}, names_in(repository, "second") & {"2"}) == ({"2"}, set())
        command = Command("--repository", str(repository), *FREE_PORTS)
        try:
            command.ready()
            control = Control(command.triton_http)
            assert "an interrupted release of first, second is being taken back" in command.errors
            assert (control.is_ready("chain"), offline.status()["interrupted"]) == (True, False)
            assert names_in(repository, "first") == {"1", ".retired-2"}
            assert names_in(repository, "second") == {"1"}
        finally:
            command.process.terminate()
            assert command.end() == 0

    @pytest.mark.parametrize(
        "words",
        [*(pytest.param(word, marks=pytest.mark.soak) for word in ("publish", "rollback")), "pin"],
    )
    def test_no_request_is_lost_when_a_command_is_killed_and_taken_back(
        self, online: Releases, server: EmbeddedServer, tmp_path: Path, words: str
    ) -> None:
        new = {"first": candidate(tmp_path / "first", 3), "second": candidate(tmp_path / "second", 1 / 3)}
        command = ["--server", server.http, words]
        if words == "publish":
            command += [*(str(word) for pair in new.items() for word in pair), "--no-trial"]
        else:
            online.publish(new, trial=False)
        if words == "pin":
            # One of two that belong together: what the ensemble gives is not what it got, and that is what was asked.
            online.publish({"first": candidate(tmp_path / "same", 3.000001)}, trial=False)
            command += ["first", "2"]
        before, record = factor(server), online.store.record()
        with Load(server, 4) as load:
            for step in itertools.count(1):
                if not killed_before(step, server.options.repository, *command):
                    break
                online.prune(keep=9)
                assert factor(server) == before, step
                assert online.store.record() == record, step
        assert set(load.counts) == {"ok"}
        assert step > 3
        assert online.status()["healthy"]

    def test_a_version_that_was_copied_in_half_by_hand_disturbs_nothing(
        self, online: Releases, server: EmbeddedServer, tmp_path: Path
    ) -> None:
        whole = candidate(tmp_path / "new", 3)
        half = online.store.folder("first", 2)
        half.mkdir()
        (half / "model.onnx").write_bytes((whole / "model.onnx").read_bytes()[:60])
        with Load(server, 4) as load:
            with pytest.raises(ControlError, match="is not a model that ONNX Runtime can load"):
                Control(server.http).load("first")
            online.publish({"second": candidate(tmp_path / "second", 1 / 2.0000001)}, trial=False)
            assert factor(server) == 2
            assert online.status()["healthy"]
        assert set(load.counts) == {"ok"}
        assert online.publish({"first": whole}, trial=False).versions == {"first": 3}
        assert factor(server) == 3

    def test_finds_out_that_a_version_was_changed_after_its_release(self, offline: Releases, tmp_path: Path) -> None:
        offline.publish({"first": candidate(tmp_path / "new", 3)}, trial=False)
        assert all(row["intact"] for row in offline.versions())
        write_arithmetic_version(offline.store.folder("first", 2), 4)
        assert [row["intact"] for row in offline.versions() if row["model"] == "first"] == [True, False]

    @pytest.mark.parametrize("as_folder", [True, False])
    def test_says_that_the_disk_is_full_and_leaves_nothing(
        self, offline: Releases, tmp_path: Path, as_folder: bool
    ) -> None:
        new = candidate(tmp_path / "new", 3)
        with files_no_larger_than(64), pytest.raises(ReleaseError, match="cannot be copied into the repository"):
            offline.publish({"first": new if as_folder else new / "model.onnx"}, trial=False)
        assert names_in(offline.store.repository, "first") == {"1"}
        assert offline.publish({"first": new}, trial=False).versions == {"first": 2}

    def test_changes_nothing_when_the_record_cannot_be_written(self, offline: Releases, tmp_path: Path) -> None:
        for value in (3, 5):
            offline.publish({"first": candidate(tmp_path / str(value), value)}, trial=False)
        record = (offline.store.repository / "releases.json").read_bytes()
        with files_no_larger_than(64), pytest.raises(ReleaseError, match="the record of releases cannot be written"):
            offline.rollback()
        assert names_in(offline.store.repository, "first") == {"1", "2", "3"}
        assert (offline.store.repository / "releases.json").read_bytes() == record
        assert not list(offline.store.repository.glob(".releases*"))
        assert offline.rollback().versions == {"first": 2}

    def test_refuses_a_record_it_cannot_read(self, offline: Releases) -> None:
        (offline.store.repository / "releases.json").write_text("{}")
        with pytest.raises(ReleaseError, match="is not a record of releases"):
            offline.rollback()


class TestCommand:
    def run(self, repository: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "server.release", "--repository", str(repository), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)

    def test_publishes_with_a_trial_and_goes_back(self, repository: Path, tmp_path: Path) -> None:
        pairs = ["first", str(candidate(tmp_path / "a", 3)), "second", str(candidate(tmp_path / "b", 1 / 3))]
        done = self.run(repository, "--offline", "publish", *pairs, "--note", "threes")
        assert (done.returncode, done.stdout) == (0, "release 1 (publish): first 2, second 2\n")
        assert "chain answers" in done.stderr
        assert self.run(repository, "--offline", "rollback").stdout == "release 2 (rollback): first 1, second 1\n"
        listed = json.loads(self.run(repository, "--json", "list").stdout)
        assert [(row["model"], row["version"], row["state"]) for row in listed] == [
            ("first", 1, "serves"),
            ("first", 2, "retired"),
            ("second", 1, "serves"),
            ("second", 2, "retired"),
        ]
        assert self.run(repository, "--offline", "prune", "--keep", "1").stdout == "nothing to remove\n"

    def test_ends_with_a_sentence_and_status_1_when_refused(self, repository: Path) -> None:
        done = self.run(repository, "--server", "127.0.0.1:1", "rollback")
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == "error: the server at 127.0.0.1:1 cannot be reached (Connection refused).\n"

    @pytest.mark.parametrize(
        "arguments",
        [
            ["publish", "first"],
            ["publish", "first", "a", "first", "b"],
            [],
            *(["--offline", "prune", "--keep", keep] for keep in ("-1", "0", "1.5", "nan", "", "9" * 5000)),
            *(["--offline", "pin", "first", version] for version in ("0", "-1", "x", "1" + 20 * "0")),
        ],
    )
    def test_ends_with_status_2_for_a_wrong_command_line(
        self, repository: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit) as ended:
            main(["--repository", str(repository), *arguments])
        assert ended.value.code == 2
        assert "error: " in capsys.readouterr().err
        assert names_in(repository, "first") == {"1"}

    @pytest.mark.parametrize("server", ["127.0.0.1:99999", "127.0.0.1:x", "", ":", "[::1", "127.0.0.1 :1", "x" * 300])
    def test_says_that_an_endpoint_cannot_be_reached_whatever_it_is(
        self, repository: Path, server: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["--repository", str(repository), f"--server={server}", "rollback"]) == 1
        said = capsys.readouterr().err
        assert said.startswith("error: ")
        assert said.count("\n") == 1

    def test_reports_the_health_of_a_server(self, repository: Path, server: EmbeddedServer) -> None:
        done = self.run(repository, "--server", server.http, "status")
        assert done.returncode == 0
        report = json.loads(done.stdout)
        assert report["healthy"]
        assert report["answers"] == {"chain": "yes"}


@pytest.mark.soak
def test_twenty_swaps_under_load_lose_no_request(online: Releases, server: EmbeddedServer, tmp_path: Path) -> None:
    with Load(server, 16) as load:
        for index in range(20):
            value = 3 + index % 2
            pair = {
                "first": candidate(tmp_path / f"first-{index}", value),
                "second": candidate(tmp_path / f"second-{index}", 1 / value),
            }
            online.publish(pair, trial=False)
            online.prune(keep=2)
    assert set(load.counts) == {"ok"}
    assert load.counts["ok"] > 1000
    assert online.status()["healthy"]
