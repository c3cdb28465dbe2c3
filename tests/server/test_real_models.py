"""Supervision and releases on the real models: what the tests with tiny models cannot show."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import statistics
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import tritonclient.grpc as triton_grpc

from server import census, probe, shared_memory
from server.control import Control
from server.embedded import EmbeddedServer, ServerOptions, on_free_ports
from server.release.commands import Releases
from server.release.store import Store
from server.release.trial import CandidateRefused
from server.repository import DEFAULT_REPOSITORY
from server.supervise import Supervisor, what_to_probe


def hard_link(source: str, target: str) -> str:
    """Link where the file system allows it: models are large. Configurations are copied, for they are touched."""
    if not source.endswith((".pbtxt", ".py")):
        with contextlib.suppress(OSError):
            os.link(source, target)
            return target
    return shutil.copy2(source, target)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real models in a repository of their own."""
    folder = tmp_path_factory.mktemp("real") / "model_repository"
    aside = shutil.ignore_patterns("__pycache__", "releases.json", ".*")
    shutil.copytree(DEFAULT_REPOSITORY, folder, copy_function=hard_link, ignore=aside)
    return folder


@pytest.fixture(scope="module")
def server(repository: Path) -> Iterator[EmbeddedServer]:
    options = ServerOptions(repository=repository, model_control_mode="explicit", exit_timeout=5)
    with EmbeddedServer(on_free_ports(options)) as running:
        yield running


@pytest.fixture
def releases(server: EmbeddedServer, repository: Path) -> Releases:
    return Releases(Store(repository), Control(server.http))


def newest(repository: Path, model: str) -> Path:
    return max((p for p in (repository / model).iterdir() if p.name.isdigit()), key=lambda p: int(p.name))


def another(repository: Path, folder: Path, words: str) -> Path:
    """The regressor again, in a file that differs."""
    model = onnx.load(newest(repository, "regressor") / "model.onnx")
    model.doc_string = words
    folder.mkdir()
    onnx.save(model, folder / "model.onnx")
    return folder


def test_one_probe_makes_every_model_work(server: EmbeddedServer) -> None:
    assert what_to_probe(Control(server.http)) == ("face3d",)


def test_every_ensemble_answers_the_probe(server: EmbeddedServer) -> None:
    control = Control(server.http)
    for name in ("detect", "face3d", "reconstruct"):
        assert probe.check(control, name)


def test_a_new_regressor_is_tried_published_and_taken_back(
    releases: Releases, repository: Path, tmp_path: Path
) -> None:
    before = releases.store.current("regressor")
    assert before is not None
    release = releases.publish({"regressor": another(repository, tmp_path / "new", "second")})
    assert release.versions == {"regressor": before + 1}
    assert releases.status()["healthy"]
    assert releases.rollback().versions == {"regressor": before}
    assert releases.status()["healthy"]


def test_a_topology_of_another_face_model_is_refused(releases: Releases, repository: Path, tmp_path: Path) -> None:
    candidate = tmp_path / "postprocess"
    shutil.copytree(newest(repository, "postprocess"), candidate, ignore=shutil.ignore_patterns("__pycache__"))
    with np.load(candidate / "topology.npz") as data:
        arrays = {name: data[name] for name in data.files}
    np.savez(candidate / "topology.npz", **{**arrays, "fingerprint": arrays["fingerprint"] + 1})
    with pytest.raises(CandidateRefused, match="FaceModelMismatch"):
        releases.publish({"postprocess": candidate})
    assert releases.status()["healthy"]


def test_every_model_comes_back_when_its_process_is_killed(server: EmbeddedServer) -> None:
    control = Control(server.http)
    watcher = Supervisor(control, what_to_probe(control), server.pid)
    assert watcher.step(), watcher.reason
    killed = {}
    for (model, version), pids in census.stubs(server.pid).items():
        if control.serving(model) == [version]:
            killed[model] = 1
            os.kill(min(pids), signal.SIGKILL)
            time.sleep(0.2)
            if not watcher.step():
                # A process that is killed while it holds a lock takes Triton 2.51 with it (triton server issue 8882).
                # Then there is nothing to revive: `python -m server --supervise` starts the server again.
                time.sleep(3)
                assert server.poll() is not None, watcher.reason
                pytest.skip("Triton 2.51 itself aborted when a stub was killed (triton server issue 8882)")
    assert watcher.revivals == killed
    assert len(killed) == 6


@pytest.mark.soak
def test_twenty_swaps_of_the_regressor_under_load_lose_no_request(
    releases: Releases, server: EmbeddedServer, repository: Path, tmp_path: Path
) -> None:
    counts: Counter[str] = Counter()
    seconds: dict[str, list[float]] = {"steady": [], "swap": []}
    phase, stop = ["steady"], threading.Event()

    def ask() -> None:
        tensor = triton_grpc.InferInput("image", [1, 1], "BYTES")
        tensor.set_data_from_numpy(np.array([[probe.PORTRAIT.read_bytes()]], dtype=object))
        wanted = [triton_grpc.InferRequestedOutput("coefficients")]
        with triton_grpc.InferenceServerClient(server.grpc) as client:
            while not stop.is_set():
                began, during = time.monotonic(), phase[0]
                try:
                    client.infer("face3d", [tensor], outputs=wanted, client_timeout=120)
                    counts["ok"] += 1
                except Exception as error:
                    counts[str(error)] += 1
                seconds[during].append(time.monotonic() - began)

    candidates = [another(repository, tmp_path / str(i), f"swap {i}") for i in range(20)]
    threads = [threading.Thread(target=ask) for _ in range(16)]
    for thread in threads:
        thread.start()
    try:
        time.sleep(20)
        phase[0] = "swap"
        for candidate in candidates:
            releases.publish({"regressor": candidate}, trial=False)
            releases.prune(keep=1)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    p99 = {name: statistics.quantiles(values, n=100)[98] for name, values in seconds.items()}
    print(f"\n{sum(counts.values())} requests, p99 steady {p99['steady']:.2f} s, in swaps {p99['swap']:.2f} s")
    assert set(counts) == {"ok"}
    assert p99["swap"] <= 5 * p99["steady"]
    assert len(shared_memory.regions(server.shm_prefix)) < 40
