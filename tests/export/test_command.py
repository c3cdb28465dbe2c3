"""`python -m export` as a user types it: what it writes, what it leaves alone, and what it refuses."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import onnx
import pytest
import torch
from safetensors.torch import save_file

from export.__main__ import main
from export.models import MODEL_NAMES
from export.models.base import FACE_MODEL
from export.session import Session
from export.stages import gate
from networks.detector.weights import default_weights
from server.backends.onnxruntime.integer_products import INTEGER_PRODUCTS, products_are_exact

pytestmark = pytest.mark.usefixtures("shared_context")
Captured = pytest.CaptureFixture[str]


def _files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def exported(shared_context: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a repository with version 3 of the detector."""
    repository = tmp_path_factory.mktemp("repository")
    (repository / "detector").mkdir()
    assert main(["detector", "--repository", str(repository), "--version", "3"]) == 0
    return repository


def test_a_version_is_complete_with_its_sidecar_and_the_warmup_sample(exported: Path) -> None:
    assert _files(exported) == [
        "detector/3/export.json",
        "detector/3/model.onnx",
        "detector/warmup/canvas",
        "detector/warmup/geometry",
    ]
    sidecar = json.loads((exported / "detector" / "3" / "export.json").read_text())
    assert sidecar["network"] == "detector"
    assert sidecar["precision"] == "fp32"
    assert sidecar["integer_products"] == "any-x86", "it has none"
    model = onnx.load(exported / "detector" / "3" / "model.onnx")
    assert {entry.key: entry.value for entry in model.metadata_props} == {INTEGER_PRODUCTS: "any-x86"}
    assert sidecar["opset"] == 18
    assert sidecar["gate"]["passed"] is True
    assert len(sidecar["weights"]["sha256"]) == 64
    assert set(sidecar["tools"]) == {"torch", "onnx", "onnxruntime", "onnx-graphsurgeon", "polygraphy"}
    assert (exported / "detector" / "warmup" / "canvas").stat().st_size == 3 * 512 * 512
    assert Session(exported / "detector" / "3" / "model.onnx").outputs == ["faces"]


def test_what_is_already_there_is_left_alone(exported: Path, capsys: Captured) -> None:
    before = (exported / "detector" / "3" / "model.onnx").stat()
    assert main(["detector", "--repository", str(exported), "--version", "3"]) == 0
    assert "version 3 is already there" in capsys.readouterr().out
    assert (exported / "detector" / "3" / "model.onnx").stat().st_mtime_ns == before.st_mtime_ns


def test_a_version_made_of_something_else_is_never_overwritten(
    exported: Path, tmp_path: Path, capsys: Captured
) -> None:
    weights = tmp_path / "weights"
    shutil.copytree(default_weights(), weights)
    state = torch.load(weights / "onet.pt", weights_only=True)
    torch.save({key: value * 1.001 for key, value in state.items()}, weights / "onet.pt")
    before = _files(exported)
    arguments = ["detector", "--repository", str(exported), "--version", "3", "--weights", str(weights)]
    assert main(arguments) == 2
    assert "a version is never overwritten: choose another number" in capsys.readouterr().err
    assert _files(exported) == before


def test_a_refused_variant_says_its_numbers_and_writes_nothing(
    tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The gate asks for speed as well as for quality; no variant takes no time, whatever else the machine is doing.
    monkeypatch.setattr(gate, "MAX_TIME_RATIO", 0.0)
    (tmp_path / "detector").mkdir()
    assert main(["detector", "--repository", str(tmp_path), "--precision", "fp16"]) == 2
    message = capsys.readouterr().err
    assert "The fp16 variant of the detector was refused" in message
    assert "time against fp32" in message
    assert _files(tmp_path) == []


def test_a_variant_that_is_too_slow_is_refused_before_anything_is_calibrated(
    tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "MAX_TIME_RATIO", 0.0)
    (tmp_path / "detector").mkdir()
    assert main(["detector", "--repository", str(tmp_path), "--precision", "int8"]) == 2
    captured = capsys.readouterr()
    assert "The int8 variant of the detector was refused: time against fp32" in captured.err
    assert "calibrating" not in captured.out
    assert _files(tmp_path) == []


def test_a_dry_run_for_tensorrt_says_what_would_be_built_and_writes_nothing(tmp_path: Path, capsys: Captured) -> None:
    arguments = ["detector", "--target", "tensorrt", "--precision", "int8", "--dry-run", "--onnx-dir", str(tmp_path)]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    for words in (
        f"would write {tmp_path / 'detector' / '1' / 'model.onnx'}",
        "int8 (s8s8)",
        "strongly typed",
        "profile canvas: min (1, 3, 512, 512), opt (16, 3, 512, 512), max (32, 3, 512, 512)",
    ):
        assert words in out
    assert _files(tmp_path) == []


def test_for_tensorrt_a_half_precision_file_is_written_that_onnx_runtime_agrees_with(
    tmp_path: Path, capsys: Captured
) -> None:
    assert main(["detector", "--target", "tensorrt", "--onnx-dir", str(tmp_path)]) == 0
    sidecar = json.loads((tmp_path / "detector" / "1" / "export.json").read_text())
    assert sidecar["precision"] == "fp16"
    assert sidecar["inputs"]["canvas"] == ["batch", 3, 512, 512]
    names = [criterion["name"] for criterion in sidecar["gate"]["criteria"]]
    assert "mean IoU" in names
    assert "time against fp32" not in names, "how fast it is, only a GPU can say"


def test_weights_in_all_eight_bits_are_for_processors_with_vnni_and_asked_for(tmp_path: Path, capsys: Captured) -> None:
    arguments = ["regressor", "--repository", str(tmp_path), "--dry-run"]
    assert main(arguments) == 0
    assert "int8 (u8s8) or, if its gate refuses that" in capsys.readouterr().out
    outcome = main([*arguments, "--integer-products", "vnni"])
    captured = capsys.readouterr()
    if products_are_exact():
        assert outcome == 0
        assert "int8 (u8s8 for vnni)" in captured.out
    else:
        assert outcome == 2
        assert "This processor has no VNNI" in captured.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["all", "--weights", "x.pth"], "--weights belongs to one network"),
        (["detector", "--weights", "nowhere.pth"], "The weights nowhere.pth are not there"),
        (["regressor", "--face-model", "nowhere.npz"], "there is no file nowhere.npz"),
    ],
)
def test_what_cannot_be_done_is_one_sentence_and_exit_code_2(
    arguments: list[str], words: str, tmp_path: Path, capsys: Captured
) -> None:
    assert main([*arguments, "--repository", str(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert words in message
    assert message.count("\n") == 1
    assert _files(tmp_path) == []


@pytest.mark.parametrize("network", MODEL_NAMES)
def test_damaged_weights_are_one_sentence_and_nothing_is_written(
    network: str, tmp_path: Path, capsys: Captured
) -> None:
    if not FACE_MODEL.is_file():
        pytest.skip("no default face model here")
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(b"\x10\0\0\0\0\0\0\0{broken header!}")
    repository = tmp_path / "repository"
    arguments = [network, "--weights", str(weights), "--repository", str(repository), "--version", "2"]
    assert main([*arguments, "--recipe", "imagenet"]) == 2
    message = capsys.readouterr().err
    assert str(weights) in message
    assert message.count("\n") == 1
    assert _files(repository) == []


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("picture.pth", b"\xff\xd8\xff\xe0" + bytes(4096), "is not a PyTorch checkpoint"),
        ("empty.pth", b"", "is not a PyTorch checkpoint"),
        ("picture.safetensors", b"\xff\xd8\xff\xe0" + bytes(4096), "cannot be read as safetensors"),
    ],
)
def test_a_file_of_another_kind_is_one_sentence_and_nothing_is_written(
    name: str, content: bytes, words: str, tmp_path: Path, capsys: Captured
) -> None:
    _refused(tmp_path, tmp_path / name, content, words, capsys)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_truncated_weights_are_one_sentence_and_nothing_is_written(
    suffix: str, tmp_path: Path, capsys: Captured
) -> None:
    whole = tmp_path / f"whole{suffix}"
    tensors = {"backbone.conv1.weight": torch.zeros(64, 3, 7, 7)}
    if suffix == ".pth":
        torch.save({"net_recon": tensors}, whole)
    else:
        save_file(tensors, whole)
    half = whole.read_bytes()[: whole.stat().st_size // 2]
    _refused(tmp_path, tmp_path / f"half{suffix}", half, "cannot be read as", capsys)


def test_weights_of_another_network_are_one_sentence_that_names_keys(tmp_path: Path, capsys: Captured) -> None:
    other = tmp_path / "other.safetensors"
    save_file({"down1.0.0.bias": torch.zeros(4)}, other)
    words = "is not a checkpoint of this network: 279 missing (backbone.conv1.weight"
    _refused(tmp_path, other, other.read_bytes(), words, capsys)


def _refused(folder: Path, weights: Path, content: bytes, words: str, capsys: Captured) -> None:
    if not FACE_MODEL.is_file():
        pytest.skip("no default face model here")
    weights.write_bytes(content)
    repository = folder / "repository"
    assert main(["regressor", "--weights", str(weights), "--repository", str(repository), "--version", "2"]) == 2
    message = capsys.readouterr().err
    assert str(weights) in message
    assert words in message
    assert message.count("\n") == 1
    assert _files(repository) == []


@pytest.mark.filterwarnings("error")
def test_a_bare_pickle_with_code_in_it_is_one_sentence_and_never_runs(tmp_path: Path, capsys: Captured) -> None:
    class Malicious:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return (Path.touch, (tmp_path / "executed",))

    weights, repository = tmp_path / "net_recon.pth", tmp_path / "repository"
    weights.write_bytes(pickle.dumps({"net_recon": Malicious()}))
    assert main(["regressor", "--weights", str(weights), "--repository", str(repository), "--version", "2"]) == 2
    message = capsys.readouterr().err
    assert "refused, because loading them would run code" in message
    assert message.count("\n") == 1
    assert not (tmp_path / "executed").exists()
    assert _files(repository) == []


@pytest.mark.parametrize("version", ["0", "-1", "1.5", "two"])
def test_a_version_is_a_whole_number_of_at_least_1(version: str, capsys: Captured) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["detector", "--version", version])
    assert caught.value.code == 2
    assert "a version is a whole number" in capsys.readouterr().err


def test_help_shows_what_a_stranger_needs(capsys: Captured) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    out = capsys.readouterr().out
    for option in ("--target", "--precision", "--version", "--weights", "--face-model", "--repository", "--dry-run"):
        assert option in out
    assert "examples:" in out
