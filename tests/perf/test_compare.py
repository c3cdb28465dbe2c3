"""The comparison: the same answer from every variant, fair counting, and a table that can be read."""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path

import numpy as np
import pytest
import trimesh

from perf import photos, store
from perf.compare import __main__ as compare
from perf.compare import client
from perf.compare.bare_onnx import BatchedOnnx, ParallelOnnx
from perf.compare.eager import EagerPyTorch, ServedDetector
from perf.compare.names import with_current_names
from perf.compare.pipelines import pipeline
from perf.compare.repository_steps import Answer


@pytest.fixture(scope="module")
def bare() -> Answer:
    return ParallelOnnx().run(photos.mix()["jpeg-0.31MP"])


def test_the_bare_networks_give_a_mesh_with_a_texture_and_the_numbers(bare: Answer) -> None:
    mesh = trimesh.load_scene(io.BytesIO(bare.mesh), file_type="glb").to_mesh()
    assert len(mesh.vertices) > 1000
    assert len(bare.numbers["coefficients"]) == 257
    assert len(bare.numbers["landmarks"]) == 2 * 68


def test_a_picture_gets_the_same_face_from_eager_pytorch_as_from_the_served_networks(bare: Answer) -> None:
    # Another cascade, or another rounding of the detector's box; and INT8.
    for eager, tolerance in ((EagerPyTorch(), 0.02), (EagerPyTorch(ServedDetector), 0.01)):
        answer = eager.run(photos.mix()["jpeg-0.31MP"])
        a, b = (np.reshape(answer.numbers["landmarks"], (68, 2)) for answer in (answer, bare))
        assert np.linalg.norm(a - b, axis=1).mean() < tolerance * np.ptp(a[:, 0])


def test_a_face_gets_the_same_vector_from_eager_pytorch_as_from_the_served_networks() -> None:
    data = photos.mix()["jpeg-0.31MP"]
    kinds = ("eager_same", "onnx", "onnx_parallel")
    vectors = np.array([pipeline(kind, "embed").run(data).numbers["embedding"] for kind in kinds])
    assert (vectors @ vectors.T > 0.99).all()
    with pytest.raises(ValueError, match="no embedder"):
        pipeline("eager", "embed")


def test_a_batch_of_pictures_gets_what_each_gets_alone(bare: Answer) -> None:
    files = [photos.mix()["png-0.26MP"], photos.mix()["jpeg-0.31MP"]]
    for batching in (ParallelOnnx(), BatchedOnnx()):
        _, second = batching.run_batch(files)
        np.testing.assert_allclose(second.numbers["landmarks"], bare.numbers["landmarks"], atol=1.0)


def test_each_kind_of_pipeline_batches_as_its_name_says() -> None:
    assert type(pipeline("onnx")) is BatchedOnnx
    assert type(pipeline("onnx_parallel")) is ParallelOnnx


def test_an_answer_is_packed_as_a_length_the_numbers_and_the_mesh() -> None:
    body = Answer(b"glTF...", {"camera": [1.0, 2.0]}).pack()
    (length,) = struct.unpack_from("<I", body)
    assert json.loads(body[4 : 4 + length]) == {"camera": [1.0, 2.0]}
    assert body[4 + length :] == b"glTF..."


def test_only_answers_within_the_time_count_for_the_rate_and_all_of_them_for_latency_and_cost() -> None:
    done = [(0.5, 0.5, 0), (1.0, 0.5, 1), (2.0, 1.0, 0)]
    measurement = compare.Measurement.of(done, seconds=1.5, cpu=6.0, memory=10.0)
    assert measurement.rate == pytest.approx(2.0)
    assert measurement.latencies == [0.5, 0.5, 1.0]
    assert measurement.cpu == pytest.approx(2.0)
    assert measurement.by_picture == {"png-0.26MP": [0.5, 1.0], "jpeg-0.31MP": [0.5]}


def test_figures_are_medians_over_rounds_so_that_one_bad_round_does_not_count() -> None:
    rounds = [compare.Measurement(rate, [0.1], {}, 0.1, 100.0) for rate in (9.0, 10.0, 1.0, 11.0, 10.5)]
    assert compare.summary(rounds)["rate"] == 10.0


def test_a_ratio_is_this_service_over_the_other() -> None:
    table = {
        "eager_loop": {"16": {"rate": 2.0, "p99_ms": 800.0, "cpu_s": 0.4}},
        "service": {"16": {"rate": 10.0, "p99_ms": 200.0, "cpu_s": 0.1}},
    }
    found = compare.ratios(table, "16")
    assert found == {"service/eager_loop rate": 5.0, "service/eager_loop p99": 0.25, "service/eager_loop cpu": 0.25}


def test_measurements_that_carry_letters_are_read_by_names() -> None:
    former = {
        "seconds": 6,
        "table": {"C-lanes": {}, "E": {}},
        "ratios": {"16": {"E/C-lanes rate": 1.1, "E/A p99": 0.2}},
    }
    current = with_current_names(former)
    assert list(current["table"]) == ["litserve_onnx_parallel", "service"]
    assert current["ratios"]["16"] == {"service/litserve_onnx_parallel rate": 1.1, "service/eager_loop p99": 0.2}
    assert with_current_names(current) == current


def test_a_server_that_does_not_answer_ends_the_comparison() -> None:
    with pytest.raises(RuntimeError, match="refused"):
        client.drive("http://127.0.0.1:9/predict", "raw", 1, 0.1)


def test_every_encoding_carries_the_whole_picture() -> None:
    data = bytes(range(256))
    raw, _ = client.encode("raw", data)
    triton, headers = client.encode("face3d", data)
    assert raw == data
    header = int(headers["Inference-Header-Content-Length"])
    assert json.loads(triton[:header])["inputs"][0]["parameters"]["binary_data_size"] == len(triton) - header
    assert triton[header:] == struct.pack("<I", 256) + data


@pytest.mark.slow
def test_a_quick_comparison_of_the_bare_networks_and_the_service_writes_table_json_and_plots(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(store, "FOLDER", tmp_path)
    compare.main(["--quick", "--variants", "bare_onnx", "E", "--clients", "2"])
    values = json.loads((tmp_path / "compare.json").read_text())
    assert values["table"]["service"]["2"]["requests"] > 0
    assert values["table"]["bare_onnx"]["2"]["memory_mb"] > 50
    assert values["ratios"]["2"]["service/bare_onnx rate"] > 0
    assert values["machine"]["cores"] >= 1
    assert (tmp_path / "compare-rate.png").stat().st_size > 1000
    assert "| service: this service | 2 |" in capsys.readouterr().out
