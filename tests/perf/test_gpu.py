"""What is carried to a machine with a GPU runs without one, without the repository, and its figures become a table."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
import torch

from perf import report, store
from perf.gpu import bundle, measure


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("gpu")
    assert bundle.main([str(place / "bundle.tar.gz")]) == 0
    assert (place / "bundle.tar.gz").stat().st_size < 8 << 20
    with tarfile.open(place / "bundle.tar.gz") as archive:
        archive.extractall(place, filter="data")
    return place / "face3d-gpu"


def test_every_network_is_measured_outside_of_the_repository(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [sys.executable, "measure.py", "--device", "cpu", "--batches", "1", "--seconds", "0.01"]
    subprocess.run([*command, "--out", str(tmp_path / "gpu.json")], cwd=folder, check=True, env={"PATH": "/usr/bin"})
    values = json.loads((tmp_path / "gpu.json").read_text())
    assert list(values["networks"]) == ["detector", "regressor", "parser", "texture", "embedder", "enhance"]
    for by_batch in values["networks"].values():
        assert by_batch["1"]["fp32"] > 0
        assert by_batch["1"]["products"]["int8"] > 0
    monkeypatch.setattr(store, "FOLDER", tmp_path)
    assert "| regressor | 1 |" in report.page()


@pytest.mark.parametrize("name", ["detector", "regressor", "parser", "texture", "embedder", "enhance"])
def test_no_tensor_that_a_network_makes_is_made_on_another_device(folder: Path, name: str) -> None:
    network = torch.jit.load(str(folder / f"{name}.pt"))
    before, after = devices(network), set()
    if before:
        measure.retarget(network, torch.device("meta"))
        after = devices(network)
    assert before <= {"cpu"}
    assert after <= {"meta"}


def devices(network: Any) -> set[str]:
    found = (re.findall(r'Device = prim::Constant\[value="(\w+)"\]', str(graph)) for graph in measure._graphs(network))
    return {device for devices in found for device in devices}


def test_nothing_new_is_begun_when_time_is_over(folder: Path) -> None:
    found = measure.measure(folder, torch.device("cpu"), [1], seconds=0.01, minutes=0.0)
    assert all(not by_batch for by_batch in found["networks"].values())
    assert len(found["left_out"]) == 6


def test_products_of_a_network_are_listed_for_one_picture() -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.Flatten(), torch.nn.Linear(128, 5))
    assert bundle.products(network, [torch.zeros(1, 3, 4, 4)]) == [[16, 8, 27], [1, 5, 128]]


def test_without_a_gpu_it_says_so(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    assert measure.main(["--folder", str(folder)]) == 2
    assert "sees no GPU" in capsys.readouterr().err
