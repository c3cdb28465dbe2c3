"""Breakdown, perf_analyzer, search, traffic and report, with runs of seconds: nothing here asserts a time."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from perf import analyzer, breakdown, photos, report, samples, store, tune
from perf.calls import OUTPUTS, Calls, settled, together
from server.embedded import EmbeddedServer
from server.repository import DEFAULT_REPOSITORY, read_config, read_repository


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
    assert len(by_hand["mesh"][0]) == pytest.approx(len(ensemble["mesh"][0]), rel=0.02)


def test_statistics_count_every_picture(server: EmbeddedServer) -> None:
    calls = Calls(server.grpc)
    before = settled(calls.statistics)
    latencies, failed = together(breakdown.asks(calls), 2, 0.5)
    after = settled(calls.statistics)
    assert failed == 0
    assert after["regressor"]["count"] - before["regressor"]["count"] == len(latencies)
    assert after["regressor"]["compute_infer"] > before["regressor"]["compute_infer"]


def test_a_call_that_fails_is_counted_and_is_no_latency() -> None:
    def fails(number: int) -> None:
        raise ValueError(number)

    latencies, failed = together(fails, 2, 0.05)
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
    plain, changed = read_repository(DEFAULT_REPOSITORY), read_repository(copy)
    assert set(plain) == set(changed)
    for name, model in changed.items():
        assert not model.config.HasField("dynamic_batching")
        expected = type(plain[name].config)()
        expected.CopyFrom(plain[name].config)
        if plain[name].config.HasField("dynamic_batching"):
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
    tune.write(repository, [tune.Change("detector", "instances", 2), tune.Change("detector", "delay_us", 500)])
    models = read_repository(repository, tune.FLAVOUR)
    assert models["detector"].config.instance_group[0].count == 2
    assert models["detector"].config.dynamic_batching.max_queue_delay_microseconds == 500
    assert list(models["detector"].config.input) == list(read_config(repository / "detector" / "config.pbtxt").input)
    tune.write(repository, [])
    assert not list(repository.glob("*/configs/tuned.pbtxt"))


def test_candidates_of_the_search_fit_the_machine() -> None:
    for cores in (1, 2, 16):
        for change in tune.candidates(cores):
            assert 0 < change.value <= max(2, cores) or change.setting == "delay_us"


def test_the_report_says_what_was_missed_and_what_was_not_measured(folder: Path) -> None:
    ratios = {"16": {"E/A rate": 2.0, "E/D rate": 0.9}}
    store.save("compare", ratios=ratios)
    rows = {what: measured for what, _, measured, _ in report.targets()}
    assert rows["E over A, throughput, 16 clients"] == "2.00, **missed**"
    assert rows["E over D, throughput, 16 clients"] == "0.90, met"
    assert rows["24 MP over 1 MP, end to end"] == "not measured"


def test_the_page_can_be_written_before_anything_was_measured(folder: Path) -> None:
    page = report.page()
    assert "Not measured: `make compare`" in page
    assert "Not measured: `make perf`" in page


def test_the_slope_of_a_line_is_found() -> None:
    assert breakdown.slope([(0.0, 5.0), (1.0, 7.0), (2.0, 9.0)]) == pytest.approx(2.0)


def test_locust_sends_the_mix_over_both_protocols_and_judges_it(server: EmbeddedServer, tmp_path: Path) -> None:

    variables = {
        **os.environ,
        "FACE3D_HTTP": server.http,
        "FACE3D_GRPC": server.grpc,
        "FACE3D_P99_OVER_P50": "1000",
    }
    locustfile = Path(report.__file__).with_name("locustfile.py")
    command = [sys.executable, "-m", "locust", "-f", str(locustfile), "--headless", "-u", "4", "-r", "4", "-t", "5s"]
    command += ["--host", f"http://{server.http}", "--csv", str(tmp_path / "locust"), "--only-summary"]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert " 0 failures" in done.stdout
    rows = (tmp_path / "locust_stats.csv").read_text()
    assert "stage:detector" in rows
    assert "grpc,portrait" in rows


@pytest.mark.slow
def test_perf_analyzer_measures_a_network_on_the_real_server(server: EmbeddedServer, folder: Path) -> None:
    if not (analyzer.TOOL / "bin" / "perf_analyzer").is_file():
        pytest.skip("perf_analyzer is not installed: `make perf` fetches it")
    with analyzer.environment() as variables:
        tool = analyzer.Analyzer(server, analyzer.install(), variables, 1000)
        for load in (analyzer.Load("regressor", "grpc"), analyzer.Load("regressor", "grpc", True)):
            (row,) = tool.sweep(load, [1])
            assert row["rate"] > 0
            assert row["p99"] >= row["p50"] > 0


def test_measurements_are_kept_with_the_machine_they_were_made_on(folder: Path) -> None:
    path = store.save("thing", value=np.float64(1.5).item())
    assert json.loads(path.read_text())["machine"]["cores"] >= 1
    assert (store.read("thing") or {})["value"] == 1.5
    assert store.read("other") is None
