"""Reading a model repository without a server."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.errors import ExportMissing, RepositoryInvalid
from server.repository import (
    SWITCHED,
    check_products,
    covering,
    is_version,
    link_models,
    models_to_await,
    read_repository,
    with_steps,
    without,
)
from tests.server.repositories import ECHO, arithmetic, ensemble, python_model, write_arithmetic_version


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    arithmetic(tmp_path)
    python_model(tmp_path, "echo", ECHO)
    ensemble(tmp_path, "chain", ["arithmetic"])
    return tmp_path


def test_takes_for_a_version_what_triton_takes_for_one() -> None:
    assert [name for name in ("1", "12", "0", "01", "-1", "1.5", "one", "") if is_version(name)] == ["1", "12"]


def test_ignores_folders_that_are_no_models(repository: Path) -> None:
    (repository / "notes").mkdir()
    assert sorted(read_repository(repository)) == ["arithmetic", "chain", "echo"]


def test_awaits_the_ensembles_or_else_every_model(repository: Path) -> None:
    models = read_repository(repository)
    assert models_to_await(models) == ("chain",)
    assert models_to_await({name: models[name] for name in ("arithmetic", "echo")}) == ("arithmetic", "echo")


def test_covers_all_steps_with_few_ensembles() -> None:
    steps = {"detect": ["a", "b"], "face3d": ["a", "b", "c", "d"], "reconstruct": ["a", "c", "d"], "other": ["d", "e"]}
    assert covering(steps) == ("face3d", "other")
    assert covering({}) == ()


def test_follows_an_ensemble_to_its_steps(repository: Path) -> None:
    models = read_repository(repository)
    assert sorted(with_steps(models, ["chain"])) == ["arithmetic", "chain"]
    with pytest.raises(RepositoryInvalid, match="there is no model 'chian' in the repository, only arithmetic, chain"):
        with_steps(models, ["chian"])


def test_an_ensemble_that_is_left_out_takes_its_own_models_along(repository: Path, tmp_path: Path) -> None:
    ensemble(repository, "fuse", steps=("arithmetic", "echo"), output="y")
    models = read_repository(repository)
    kept = without(models, SWITCHED)
    assert sorted(kept) == ["arithmetic", "chain"], "echo is only fuse's, and arithmetic is chain's too"
    assert without(kept, SWITCHED) == kept
    linked = link_models(kept, tmp_path / "linked")
    assert sorted(read_repository(linked)) == ["arithmetic", "chain"]
    assert read_repository(linked)["arithmetic"].versions == models["arithmetic"].versions


def test_takes_the_flavour_of_a_model_that_has_one(repository: Path) -> None:
    (repository / "arithmetic" / "configs").mkdir()
    (repository / "arithmetic" / "configs" / "gpu.pbtxt").write_text('platform: "tensorrt_plan"\n')
    models = read_repository(repository, "gpu")
    assert models["arithmetic"].needed_files() == ("model.plan",)
    assert models["echo"].needed_files() == ("model.py",)
    assert read_repository(repository)["arithmetic"].needed_files() == ("model.onnx",)


def test_refuses_a_configuration_that_names_another_model(repository: Path) -> None:
    (repository / "echo" / "config.pbtxt").write_text('name: "ohce"\n')
    with pytest.raises(RepositoryInvalid, match="names the model 'ohce' but its folder is 'echo'"):
        read_repository(repository)


def test_misses_the_products_of_the_highest_version(repository: Path) -> None:
    check_products(read_repository(repository))
    write_arithmetic_version(repository / "arithmetic" / "2").unlink()
    with pytest.raises(ExportMissing, match=r"arithmetic/2/model.onnx is missing: run `make export`"):
        check_products(read_repository(repository))


def test_misses_the_version_folder_of_a_model(repository: Path) -> None:
    (repository / "chain" / "1").rmdir()
    with pytest.raises(ExportMissing, match="chain has no version folder: run `make export`"):
        check_products(read_repository(repository))


def test_misses_what_a_python_model_reads_beside_its_code(tmp_path: Path) -> None:
    python_model(tmp_path, "postprocess", ECHO)
    with pytest.raises(ExportMissing, match=r"postprocess/1/topology.npz is missing: run `make export`"):
        check_products(read_repository(tmp_path))


def test_misses_the_samples_that_a_warm_up_names(tmp_path: Path) -> None:
    sample = 'inputs { key: "x" value { data_type: TYPE_FP32 dims: [4] input_data_file: "face" } }'
    arithmetic(tmp_path, config=f'model_warmup [ {{ name: "one" batch_size: 1 {sample} }} ]\n')
    with pytest.raises(ExportMissing, match=r"arithmetic/warmup/face is missing: run `make export`"):
        check_products(read_repository(tmp_path))


def test_of_the_plans_for_each_kind_of_gpu_one_is_enough_and_none_is_too_few(tmp_path: Path) -> None:
    folder = tmp_path / "regressor"
    (folder / "1").mkdir(parents=True)
    (folder / "config.pbtxt").write_text(
        'name: "regressor"\nplatform: "tensorrt_plan"\n'
        'cc_model_filenames [ { key: "8.9" value: "model.cc89.plan" }, { key: "9.0" value: "model.cc90.plan" } ]\n'
    )
    (folder / "1" / "model.plan").touch()
    with pytest.raises(ExportMissing, match=r"no plan for any GPU .*model\.cc89\.plan.*run `make plans`"):
        check_products(read_repository(tmp_path))
    (folder / "1" / "model.cc90.plan").touch()
    check_products(read_repository(tmp_path))
