"""A plan that does not belong to this machine is refused in one sentence before the server meets it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.errors import ExportError
from export.models import MODEL_NAMES
from export.tensorrt import __main__ as command
from export.tensorrt import builder
from export.tensorrt.builder import Plan, sidecar
from export.tensorrt.gpu import Gpu, plan_name, serving
from export.tensorrt.preflight import check_plan, check_repository
from export.tensorrt.profile import Shapes, max_batch_size
from export.tensorrt.verify import differences, warmup_feed

L4 = Gpu("NVIDIA L4", "8.9")
TENSORRT = "11.1.0.106"


def _plan(version: Path, gpu: Gpu = L4, tensorrt: str = TENSORRT, **changes: Any) -> None:
    version.mkdir(parents=True, exist_ok=True)
    (version / gpu.plan).write_bytes(b"plan")
    content = {
        "tensorrt": tensorrt,
        "gpu": gpu.name,
        "compute_capability": gpu.capability,
        "plan_sha256": hashlib.sha256(b"plan").hexdigest(),
        **changes,
    }
    (version / f"{gpu.plan}.json").write_text(json.dumps(content))


def test_a_plan_that_fits_passes(tmp_path: Path) -> None:
    _plan(tmp_path / "detector" / "1")
    assert check_plan(tmp_path / "detector" / "1", L4, TENSORRT)["gpu"] == "NVIDIA L4"


@pytest.mark.parametrize(
    ("gpu", "tensorrt", "words"),
    [
        (L4, "11.2.0.1", r"built for TensorRT 11\.1\.0\.106, here it is 11\.2\.0\.1"),
        (Gpu("NVIDIA RTX 4090", "8.9"), TENSORRT, "built for the GPU NVIDIA L4, here it is NVIDIA RTX 4090"),
        (Gpu("NVIDIA H100", "9.0"), TENSORRT, r"There is no plan detector/1/model\.cc90\.plan for NVIDIA H100"),
    ],
)
def test_another_tensorrt_or_gpu_is_refused(tmp_path: Path, gpu: Gpu, tensorrt: str, words: str) -> None:
    _plan(tmp_path / "detector" / "1")
    with pytest.raises(ExportError, match=rf"{words}.*make plans"):
        check_plan(tmp_path / "detector" / "1", gpu, tensorrt)


def test_a_plan_without_its_sidecar_or_not_the_one_described_is_refused(tmp_path: Path) -> None:
    version = tmp_path / "detector" / "1"
    _plan(version)
    (version / L4.plan).write_bytes(b"another")
    with pytest.raises(ExportError, match="not the one its sidecar describes"):
        check_plan(version, L4, TENSORRT)
    (version / f"{L4.plan}.json").unlink()
    with pytest.raises(ExportError, match="no readable sidecar"):
        check_plan(version, L4, TENSORRT)


def test_networks_of_different_face_models_are_refused_together(tmp_path: Path) -> None:
    made_for = {"regressor": {"fingerprint": 1}, "texture": {"fingerprint": 2}}
    for name in MODEL_NAMES:
        _plan(tmp_path / name / "1", face_model=made_for.get(name))
    with pytest.raises(ExportError, match="regressor and texture were made for different face models"):
        check_repository(tmp_path, L4, TENSORRT)


def test_the_newest_version_counts(tmp_path: Path) -> None:
    for name in MODEL_NAMES:
        _plan(tmp_path / name / "1")
        _plan(tmp_path / name / "2", tensorrt="10.12.0.36")
    with pytest.raises(ExportError, match=r"detector/2/.*TensorRT 10\.12\.0\.36"):
        check_repository(tmp_path, L4, TENSORRT)


def test_the_names_of_plans_are_those_of_the_configuration() -> None:
    assert plan_name("12.0") == "model.cc120.plan"


def test_one_file_says_which_image_and_tensorrt_serve() -> None:
    assert set(serving()) == {"TRITON_TAG", "TENSORRT_VERSION"}


@pytest.mark.parametrize("text", ["", "max_batch_size: 0", "name: 'x'"])
def test_a_configuration_without_a_batch_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "tensorrt.pbtxt").write_text(text)
    with pytest.raises(ExportError, match="max_batch_size"):
        max_batch_size(tmp_path)


def test_a_plan_that_answers_otherwise_than_onnx_runtime_is_refused() -> None:
    value = np.linspace(-5, 5, 11, dtype=np.float32)
    near = differences({"x": value}, {"x": value * 1.001}, Path("m.onnx"))
    assert near["x"] == pytest.approx(0.001, rel=1e-3)
    with pytest.raises(ExportError, match="gives another 'x' than ONNX Runtime"):
        differences({"x": value}, {"x": value * 1.1}, Path("m.onnx"))
    with pytest.raises(ExportError):
        differences({"x": value}, {"x": np.full_like(value, np.nan)}, Path("m.onnx"))


def test_the_warmup_sample_is_what_plans_are_compared_on(tmp_path: Path) -> None:
    (tmp_path / "crop").write_bytes(bytes(12))
    (tmp_path / "context").write_bytes(np.zeros(23, np.float32).tobytes())
    feed = warmup_feed(tmp_path, {"crop": ["batch", 3, 2, 2], "context": ["batch", 23]})
    assert feed["crop"].shape == (1, 3, 2, 2)
    assert feed["crop"].dtype == np.uint8
    with pytest.raises(ExportError, match="make export"):
        warmup_feed(tmp_path, {"shapes": ["batch", 3, "vertices", 3]})


@pytest.fixture
def exported(tmp_path: Path) -> tuple[Path, Path]:
    """Export an ONNX file for TensorRT, with a repository that has its model."""
    onnx_dir, repository = tmp_path / "onnx", tmp_path / "repository"
    (onnx_dir / "detector" / "1").mkdir(parents=True)
    (onnx_dir / "detector" / "1" / "model.onnx").write_bytes(b"onnx")
    source = {"inputs": {"canvas": ["batch", 3, 512, 512]}, "weights": {"sha256": "a"}, "precision": "fp16"}
    (onnx_dir / "detector" / "1" / "export.json").write_text(json.dumps(source))
    (repository / "detector" / "configs").mkdir(parents=True)
    (repository / "detector" / "configs" / "tensorrt.pbtxt").write_text("max_batch_size: 16\n")
    return onnx_dir, repository


def test_a_built_plan_stands_beside_its_sidecar_and_is_never_overwritten(
    exported: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx_dir, repository = exported
    built: list[dict[str, Shapes]] = []

    def build_plan(_file: Path, shapes: dict[str, Shapes], gpu: Gpu, _cache: Path) -> Plan:
        built.append(shapes)
        return Plan(b"plan", TENSORRT, gpu)

    monkeypatch.setattr(builder, "build_plan", build_plan)
    monkeypatch.setattr(command, "compare", lambda *_: {"faces": 0.001})
    folder = onnx_dir / "detector" / "1"
    assert "wrote" in command.make_plan(folder, repository, L4)
    assert built[0]["canvas"].largest == (16, 3, 512, 512)
    content = check_plan(repository / "detector" / "1", L4, TENSORRT)
    assert content["precision"] == "fp16"
    assert content["profile"]["canvas"]["usual"] == [8, 3, 512, 512]
    assert content["against_onnxruntime"] == {"faces": 0.001}
    assert "already has" in command.make_plan(folder, repository, L4)
    assert len(built) == 1


def test_a_plan_of_other_weights_than_the_versions_onnx_is_refused(exported: tuple[Path, Path]) -> None:
    onnx_dir, repository = exported
    (repository / "detector" / "1").mkdir()
    (repository / "detector" / "1" / "export.json").write_text(json.dumps({"weights": {"sha256": "b"}}))
    with pytest.raises(ExportError, match="other weights"):
        command.make_plan(onnx_dir / "detector" / "1", repository, L4)


def test_without_a_gpu_the_command_says_so_and_ends_with_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "gpus", list)
    assert command.main([]) == 2
    assert "No NVIDIA GPU" in capsys.readouterr().err


def test_the_sidecar_says_what_the_plan_was_made_of_and_for(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"onnx")
    shapes = {"x": Shapes((1, 2), (4, 2), (8, 2))}
    content = sidecar(Plan(b"plan", TENSORRT, L4), tmp_path / "model.onnx", shapes, {"precision": "int8"})
    assert content["onnx_sha256"] == hashlib.sha256(b"onnx").hexdigest()
    assert json.loads(json.dumps(content))["profile"] == {"x": {"smallest": [1, 2], "usual": [4, 2], "largest": [8, 2]}}
