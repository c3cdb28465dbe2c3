"""Breakdown, perf_analyzer, search, traffic and report, with runs of seconds: nothing here asserts a time."""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from perf import analyzer, breakdown, photos, report, samples, store, tune
from perf.calls import OUTPUTS, Calls, run_concurrently, settled_statistics
from server.embedded import EmbeddedServer
from server.repository import DEFAULT_REPOSITORY, read_config, read_repository
from tests.client.head_file import unpacked


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(store, "FOLDER", tmp_path)
    return tmp_path


def test_the_samples_of_every_leaf_are_accepted_by_it(server: EmbeddedServer) -> None:
    calls = Calls(server.grpc)
    for model, outputs in breakdown.CHAIN.items():
        answer = calls.ask(model, samples.tensors()[model], outputs)
        assert set(answer) == set(outputs)


def test_chained_calls_give_the_mesh_that_the_ensemble_gives(server: EmbeddedServer) -> None:
    calls = Calls(server.grpc)
    ensemble = calls.ask("face3d", samples.tensors()["face3d"], OUTPUTS)
    by_hand = calls.ask("postprocess", samples.tensors()["postprocess"], ("mesh",))
    # The samples' texture is the whole graph's, which samples a small face at full size; its JPEG is another one.
    one, other = (unpacked(answer["mesh"][0])[0] for answer in (by_hand, ensemble))
    assert one["meshes"] == other["meshes"]
    assert [accessor["count"] for accessor in one["accessors"]] == [a["count"] for a in other["accessors"]]
    assert [image["mimeType"] for image in one["images"]] == [image["mimeType"] for image in other["images"]]


def test_statistics_count_every_picture(server: EmbeddedServer) -> None:
    calls = Calls(server.grpc)
    before = settled_statistics(calls.statistics)
    latencies, failed = run_concurrently(breakdown.portrait_requests(calls), 2, 0.5)
    after = settled_statistics(calls.statistics)
    assert failed == 0
    assert after["regressor"]["count"] - before["regressor"]["count"] == len(latencies)
    assert after["regressor"]["compute_infer"] > before["regressor"]["compute_infer"]


def test_a_call_that_fails_is_counted_and_is_no_latency() -> None:
    def fails(number: int) -> None:
        raise ValueError(number)

    latencies, failed = run_concurrently(fails, 2, 0.05)
    assert latencies == []
    assert failed > 0


def test_a_trace_becomes_the_median_of_each_step_and_what_lies_between() -> None:
    def span(number: int, model: str, first: int, last: int, **more: Any) -> list[dict[str, Any]]:
        stamps = [{"name": "REQUEST_START", "ns": first * 10**6}, {"name": "REQUEST_END", "ns": last * 10**6}]
        return [{"id": number, "model_name": model, **more}, *({"id": number, "timestamps": [s]} for s in stamps)]

    events = [
        *span(1, "face3d", 0, 10),
        *span(2, "detector", 1, 5, parent_id=1),
        *span(3, "texture", 5, 9, parent_id=1),
    ]
    assert breakdown.by_step(events) == {"face3d": 10.0, "detector": 4.0, "texture": 4.0, "between steps": 2.0}


def test_a_repository_without_batching_keeps_everything_else(tmp_path: Path) -> None:
    copy = breakdown.without_batching(DEFAULT_REPOSITORY, tmp_path / "repository")
    original, changed = read_repository(DEFAULT_REPOSITORY), read_repository(copy)
    assert set(original) == set(changed)
    for name, model in changed.items():
        assert not model.config.HasField("dynamic_batching")
        expected = type(original[name].config)()
        expected.CopyFrom(original[name].config)
        if original[name].config.HasField("dynamic_batching"):
            expected.ClearField("dynamic_batching")
        assert model.config == expected


def test_pictures_have_the_size_and_the_faces_that_they_are_named_for() -> None:

    with Image.open(io.BytesIO(photos.of_size(2.0))) as opened:
        assert opened.width * opened.height == pytest.approx(2e6, rel=0.01)
    corner = photos.group(1)
    assert corner != photos.group(2)


def test_a_report_of_perf_analyzer_is_read_without_the_tables_behind_it(tmp_path: Path) -> None:
    path = tmp_path / "report.csv"
    path.write_text(
        "Concurrency,Inferences/Second,Client Send,Server Queue,Server Compute Infer,p50 latency,p99 latency\n"
        "4,50.5,10,2000,8000,80000,120000\n"
        "\nComposing model\nConcurrency,Inferences/Second\n4,1\n"
    )
    (row,) = analyzer.read(path)
    assert row == {"load": 4.0, "rate": 50.5, "queue": 2.0, "compute_infer": 8.0, "p50": 80.0, "p99": 120.0}


def test_every_model_is_swept_over_both_protocols_and_networks_over_shared_memory() -> None:
    names = [load.name for load in analyzer.loads(["face3d", "texture"])]
    assert names == ["face3d-grpc", "face3d-http", "texture-grpc", "texture-http", "texture-shm"]


def test_the_wheel_of_perf_analyzer_is_pinned_by_its_hash() -> None:
    line = analyzer.PINNED.read_text().splitlines()[-1]
    assert line.startswith("tritonclient==2.51.0 --hash=sha256:")


def test_a_change_of_the_search_is_written_as_a_flavour_that_the_server_reads(tmp_path: Path) -> None:
    repository = breakdown.without_batching(DEFAULT_REPOSITORY, tmp_path / "repository")
    for path in repository.glob("*/config.pbtxt"):
        path.write_text((DEFAULT_REPOSITORY / path.parent.name / "config.pbtxt").read_text())
    batched = tune.Change("detector", "batching", 1)
    tune.write(repository, [tune.Change("detector", "instances", 2), batched, tune.Change("detector", "delay_us", 500)])
    models = read_repository(repository, tune.FLAVOUR)
    assert models["detector"].config.instance_group[0].count == 2
    assert models["detector"].config.dynamic_batching.max_queue_delay_microseconds == 500
    assert list(models["detector"].config.input) == list(read_config(repository / "detector" / "config.pbtxt").input)
    tune.write(repository, [])
    assert not list(repository.glob("*/configs/tuned.pbtxt"))


BATCHING = {
    "preprocess": True,
    "detector": False,
    "align": False,
    "regressor": True,
    "texture": False,
    "postprocess": True,
}


@pytest.mark.parametrize("cores", [1, 2, 16])
def test_candidates_of_the_search_fit_the_machine(cores: int) -> None:
    tried = tune.candidates(cores, BATCHING)
    assert len(set(tried)) == len(tried)
    for change in (change for candidate in tried for change in candidate):
        if change.setting == "instances":
            assert 1 <= change.value <= max(2, cores)
        elif change.setting == "intra_op_thread_count":
            assert 1 <= change.value <= cores
    # One thread is what a network has by itself on one or two cores.
    assert ((tune.Change("detector", "intra_op_thread_count", 1),) in tried) == (cores > 2)


def test_the_search_tries_batching_in_no_network_in_every_one_and_the_other_way_in_each() -> None:
    tried = tune.candidates(2, BATCHING)
    for on in (0, 1):
        assert tuple(tune.Change(model, "batching", on) for model in ("detector", "texture", "regressor")) in tried
    assert {(tune.Change("detector", "batching", 1),), (tune.Change("regressor", "batching", 0),)} <= set(tried)


def test_the_search_leaves_models_alone_that_it_was_not_asked_about() -> None:
    tried = tune.candidates(2, {"postprocess": True})
    assert {change.model for candidate in tried for change in candidate} == {"postprocess"}


def test_batching_is_put_in_and_taken_out_and_its_settings_do_not_bring_it_back() -> None:
    config = read_config(DEFAULT_REPOSITORY / "preprocess" / "config.pbtxt")
    tune.Change("preprocess", "preferred_batch", 4).apply(config)
    assert list(config.dynamic_batching.preferred_batch_size) == [4]
    tune.Change("preprocess", "batching", 0).apply(config)
    for setting in ("delay_us", "preferred_batch"):
        tune.Change("preprocess", setting, 4).apply(config)
        assert not config.HasField("dynamic_batching")
    tune.Change("preprocess", "batching", 1).apply(config)
    assert config.HasField("dynamic_batching")


def test_a_later_change_of_a_setting_replaces_the_earlier_one() -> None:
    first, other = tune.Change("detector", "instances", 2), tune.Change("texture", "instances", 2)
    later = tune.Change("detector", "instances", 1)
    assert tune.replaced([first, other], (later,)) == [other, later]


def turns(*rates: float, wait: float = 50.0) -> list[tune.Turn]:
    return [tune.Turn(rate, wait) for rate in rates]


def test_a_candidate_is_kept_when_it_gains_more_than_the_best_differs_from_itself() -> None:
    steady, noisy = turns(10, 10.1, 10, 10.1), turns(10, 12, 10, 12)
    assert tune.verdict(steady, turns(11, 11, 11))["kept"]
    found = tune.verdict(noisy, turns(12.5, 12.5, 12.5))
    assert found["spread"] == pytest.approx(0.2)
    assert found["gain"] == pytest.approx(12.5 / 11)
    assert not found["kept"]
    assert not tune.verdict(steady, turns(10.2, 10.2, 10.2))["kept"]  # under GAIN
    assert not tune.verdict(steady, turns(12, 12, 12, wait=60.0))["kept"]  # a client waits longer


def test_what_changes_on_the_machine_meanwhile_is_no_gain() -> None:
    assert tune.verdict(turns(10, 11, 12, 13), turns(10.5, 11.5, 12.5))["gain"] == pytest.approx(1)


def test_the_report_says_what_was_missed_and_what_was_not_measured(folder: Path) -> None:
    ratios = {"16": {"service/eager_loop rate": 2.0, "E/D rate": 1.01}}
    store.save("compare", ratios=ratios)
    rows = {what: measured for what, _, measured, _ in report.targets()}
    assert rows["service over eager_loop, throughput, 16 clients"] == "2.00, **missed**"
    assert rows["service over bare_onnx, throughput, 16 clients"] == "1.01, met"
    assert rows["24 MP over 1 MP, end to end"] == "not measured"


def test_the_page_can_be_written_before_anything_was_measured(folder: Path) -> None:
    page = report.page()
    assert "Not measured: `make compare`" in page
    assert "Not measured: `make perf`" in page


def test_the_slope_of_a_line_is_found() -> None:
    assert breakdown.slope([(0.0, 5.0), (1.0, 7.0), (2.0, 9.0)]) == pytest.approx(2.0)


def test_locust_sends_the_mix_over_both_protocols_and_judges_it(server: EmbeddedServer, tmp_path: Path) -> None:
    wanted = {"stage:detector", "grpc,portrait"}
    for seconds in (5, 40):  # stages are read every two seconds, for which five may be too few on a busy machine
        rows = rows_of_locust(server, tmp_path, seconds)
        if all(name in rows for name in wanted):
            return
    assert {name for name in wanted if name not in rows} == set()


def rows_of_locust(server: EmbeddedServer, folder: Path, seconds: int) -> str:
    """Run locust without its page, which must find no failure; return its table."""
    variables = {
        **os.environ,
        "FACE3D_HTTP": server.http,
        "FACE3D_GRPC": server.grpc,
        "FACE3D_P99_OVER_P50": "1000",
    }
    locustfile = Path(report.__file__).with_name("locustfile.py")
    command = [sys.executable, "-m", "locust", "-f", str(locustfile), "--headless", "-u", "4", "-r", "4"]
    command += ["-t", f"{seconds}s", "--host", f"http://{server.http}"]
    command += ["--csv", str(folder / "locust"), "--only-summary"]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert " 0 failures" in done.stdout
    return (folder / "locust_stats.csv").read_text()


def test_locust_s_page_starts_the_traffic_and_shows_the_stages(server: EmbeddedServer) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    variables = {**os.environ, "FACE3D_HTTP": server.http, "FACE3D_GRPC": server.grpc}
    locustfile = Path(report.__file__).with_name("locustfile.py")
    command = [sys.executable, "-m", "locust", "-f", str(locustfile), "--host", f"http://{server.http}"]
    command += ["--web-host", "127.0.0.1", "--web-port", str(port)]
    process = subprocess.Popen(command, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30) as page:
            patiently(lambda: page.get("/").status_code == 200)
            assert "<title>Locust" in page.get("/").text
            form = {"user_count": "2", "spawn_rate": "2", "host": f"http://{server.http}"}
            assert page.post("/swarm", data=form).json()["success"]

            def seen() -> set[str]:
                entries = page.get("/stats/requests").json()["stats"]
                return {entry["name"] for entry in entries if entry["num_requests"] > entry["num_failures"]}

            patiently(lambda: seen() >= {"portrait", "stage:detector", "stage:texture", "stage:postprocess"})
            assert page.post("/stop").json()["success"]
            assert page.get("/stats/requests/csv").text.startswith("Type,Name,Request Count")
    finally:
        process.terminate()
        process.wait(30)


def patiently(holds: Callable[[], bool]) -> None:
    """Wait until something holds; two minutes are too long on any machine."""
    end = time.monotonic() + 120
    while True:
        try:
            if holds():
                return
        except httpx.TransportError:
            pass  # it does not listen yet
        assert time.monotonic() < end, "it never came"
        time.sleep(0.3)


@pytest.mark.slow
def test_perf_analyzer_measures_a_network_on_the_real_server(server: EmbeddedServer, folder: Path) -> None:
    if not (analyzer.TOOL / "bin" / "perf_analyzer").is_file():
        pytest.skip("perf_analyzer is not installed: `make perf` fetches it")
    with analyzer.environment() as variables:
        tool = analyzer.Analyzer(server, analyzer.install(), variables, 0.5)
        for load in (analyzer.Load("face3d", "http"), analyzer.Load("regressor", "grpc", True)):
            rows = tool.sweep(load, [1, 4])
            assert [row["load"] for row in rows] == [1, 4]
            for row in rows:
                assert row["rate"] > 0
                assert row["p99"] >= row["p50"] > 0
        at_random = ["--request-rate-range", "20:20:1", "--request-distribution", "poisson"]
        assert tool.run(analyzer.Load("regressor", "grpc"), at_random, 20, "rate")["p99"] > 0


def test_a_figure_is_made_of_enough_requests_for_the_concurrency_and_the_rate_before_it(
    server: EmbeddedServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[int] = []

    def run(load: analyzer.Load, how: list[str], requests: int, name: str) -> dict[str, float]:
        sent.append(requests)
        return {"rate": 40.0}

    tool = analyzer.Analyzer(server, Path("perf_analyzer"), {}, 2.0)
    monkeypatch.setattr(tool, "run", run)
    tool.sweep(analyzer.Load("detect", "grpc"), [1, 32])
    assert sent == [10, 10, 96]  # the first of them warms the model up
    sent.clear()
    tool.sweep(analyzer.Load("detect", "http"), [1, 4])
    assert sent == [10, 80]


def test_the_highest_rate_is_the_one_up_to_which_the_server_keeps_its_promise(
    server: EmbeddedServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(load: analyzer.Load, how: list[str], requests: int, name: str) -> dict[str, float]:
        asked = float(how[1].partition(":")[0])
        return {"rate": min(asked, 12.0), "p99": 100.0 if asked < 9 else 900.0}

    tool = analyzer.Analyzer(server, Path("perf_analyzer"), {}, 2.0)
    monkeypatch.setattr(tool, "run", run)
    load = analyzer.Load("detect", "grpc")
    assert tool.highest_rate(load, 32.0, 500.0, steps=8)["rate"] == pytest.approx(9, abs=0.3)
    assert tool.highest_rate(load, 32.0, 5000.0, steps=8)["rate"] == 12  # answered, of some 17 that were asked for


def test_measurements_are_kept_with_the_machine_they_were_made_on(folder: Path) -> None:
    path = store.save("thing", value=np.float64(1.5).item())
    assert json.loads(path.read_text())["machine"]["cores"] >= 1
    assert (store.read("thing") or {})["value"] == 1.5
    assert store.read("other") is None
