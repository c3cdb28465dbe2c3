"""Every config.pbtxt: it parses, the ensembles' wires fit, the flavours agree, queues are bounded."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
from face3d_client._protocol import codec
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from networks.detector import contract
from server.gateway import limits
from tests.model_repository.version_folder import REPOSITORY, load

FILES = sorted([*REPOSITORY.glob("*/config.pbtxt"), *REPOSITORY.glob("*/configs/*.pbtxt")])
ENSEMBLES = ("face3d", "reconstruct", "detect", "embed", "person")
PUBLIC = {
    *("face", "camera", "warnings", "coefficients", "vertices", "vertices_neutral", "landmarks", "landmarks_3d"),
    *("face_model", "certainty", "visibility", "mesh", "texture", "preview", "texture_warnings"),
}


def read(path: Path) -> Any:
    return text_format.Parse(path.read_text(encoding="utf-8"), model_config_pb2.ModelConfig())


def config(model: str) -> Any:
    return read(REPOSITORY / model / "config.pbtxt")


def names(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(REPOSITORY)) for path in paths]


def tensors(listed: Any) -> dict[str, tuple[int, list[int]]]:
    return {tensor.name: (tensor.data_type, list(tensor.dims)) for tensor in listed}


def leaves() -> list[Path]:
    return [path for path in FILES if read(path).platform != "ensemble"]


@pytest.mark.parametrize("path", FILES, ids=names(FILES))
def test_every_configuration_parses_and_is_called_like_its_folder(path: Path) -> None:
    model = path.parent.parent.name if path.parent.name == "configs" else path.parent.name
    assert read(path).name == model


@pytest.mark.parametrize("path", FILES, ids=names(FILES))
def test_nothing_is_newer_than_the_embedded_server_in_the_portable_flavour(path: Path) -> None:
    """Keys that Triton 2.51 does not know are errors there; the newer client's proto knows them."""
    if path.name == "config.pbtxt":
        assert "max_inflight_requests" not in path.read_text(encoding="utf-8").split("ensemble_scheduling")[-1]
        assert "max_inflight_requests" not in str(read(path))


def test_preprocess_bounds_what_waits_behind_it() -> None:
    parameters = read(REPOSITORY / "preprocess" / "config.pbtxt").parameters
    behind = {path.parent.name for path in leaves() if path.name == "config.pbtxt"} - {"preprocess"}
    assert set(parameters["counted_models"].string_value.split()) == behind
    assert 0 < int(parameters["max_waiting"].string_value) <= 256


def test_every_layer_takes_faces_from_the_same_score_on() -> None:
    served = float(config("align").parameters["score_threshold"].string_value)
    assert served == codec.SCORE_THRESHOLD == contract.FACE_THRESHOLD


@pytest.mark.parametrize("path", leaves(), ids=names(leaves()))
def test_no_queue_has_a_policy_that_makes_triton_s_batcher_wait(path: Path) -> None:
    """With one, Triton 2.51 stands still for half a second now and then: model_repository/preprocess/1/admission.py."""
    assert not read(path).dynamic_batching.HasField("default_queue_policy")
    assert not read(path).dynamic_batching.preferred_batch_size


@pytest.mark.parametrize("path", leaves(), ids=names(leaves()))
def test_how_many_processes_and_versions_is_said_and_not_left_to_triton(path: Path) -> None:
    model = read(path)
    assert [group.count for group in model.instance_group] >= [1]
    assert model.version_policy.latest.num_versions == 1
    # Photographs of a person, and the pair of `fuse`, belong together: the models that take them whole have no batches.
    assert model.max_batch_size > 0 or model.name in ("merge", "pair", "fusion")


@pytest.mark.parametrize("path", FILES, ids=names(FILES))
def test_every_number_has_its_reason(path: Path) -> None:
    """A setting that is a number, other than a shape or a switch, has a comment on its line or just above."""
    lines = path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines):
        key, _, value = line.split("#")[0].strip().partition(":")
        if key in ("max_batch_size", "max_queue_size", "max_queue_delay_microseconds", "batch_size"):
            above = lines[number - 1].strip()
            assert "#" in line or above.startswith("#"), f"{path.name}:{number + 1} {key}:{value} has no reason"


def flavours() -> list[Path]:
    return sorted(REPOSITORY.glob("*/configs/*.pbtxt"))


@pytest.mark.parametrize("path", flavours(), ids=names(flavours()))
def test_both_flavours_declare_the_same_tensors(path: Path) -> None:
    portable, other = config(path.parent.parent.name), read(path)
    assert tensors(other.input) == tensors(portable.input)
    assert tensors(other.output) == tensors(portable.output)
    assert other.max_batch_size >= portable.max_batch_size


def test_the_networks_have_a_flavour_for_gpus() -> None:
    assert {path.parent.parent.name for path in flavours()} == {
        "detector",
        "regressor",
        "parser",
        "texture",
        "embedder",
        "enhance",
    }


# --- ensembles -----------------------------------------------------------------------------------------------------


def fits(produced: tuple[int, list[int]], consumed: tuple[int, list[int]]) -> bool:
    """Same type and rank; a dimension of -1 takes any."""
    same_rank = len(produced[1]) == len(consumed[1])
    return (
        produced[0] == consumed[0]
        and same_rank
        and all(-1 in (p, c) or p == c for p, c in zip(produced[1], consumed[1], strict=True))
    )


@pytest.mark.parametrize("name", ENSEMBLES)
def test_what_a_step_gives_is_what_the_next_one_takes(name: str) -> None:
    ensemble = config(name)
    known = tensors(ensemble.input)
    for step in ensemble.ensemble_scheduling.step:
        model = config(step.model_name)
        # Where the ensemble has no batch, a step that has one takes the first dimension as its own.
        rows = [-1] if model.max_batch_size and not ensemble.max_batch_size else []
        inputs, outputs = (
            {tensor: (kind, rows + dims) for tensor, (kind, dims) in tensors(listed).items()}
            for listed in (model.input, model.output)
        )
        assert set(step.input_map) <= set(inputs), step.model_name
        assert set(step.output_map) <= set(outputs), step.model_name
        optional = {tensor.name for tensor in model.input if tensor.optional}
        assert set(inputs) - set(step.input_map) <= optional, f"{step.model_name} lacks an input"
        for inner, outer in step.input_map.items():
            assert fits(known[outer], inputs[inner]), f"{step.model_name}.{inner} does not fit {outer}"
        for inner, outer in step.output_map.items():
            assert outer not in known, f"{outer} is made twice"
            known[outer] = outputs[inner]
    for tensor, declared in tensors(ensemble.output).items():
        assert fits(known[tensor], declared), tensor


@pytest.mark.parametrize("name", ENSEMBLES)
def test_no_tensor_both_leaves_an_ensemble_and_feeds_a_step(name: str) -> None:
    """Else Triton 2.51 answers partial requests with "unexpected deadlock"."""
    ensemble = config(name)
    consumed = {outer for step in ensemble.ensemble_scheduling.step for outer in step.input_map.values()}
    assert not consumed & set(tensors(ensemble.output))


@pytest.mark.parametrize("name", ENSEMBLES)
def test_the_steps_of_an_ensemble_form_a_chain(name: str) -> None:
    """Each step takes something from the one before: two steps that fail side by side bring Triton 2.51 down."""
    steps = config(name).ensemble_scheduling.step
    for before, after in itertools.pairwise(steps):
        assert set(before.output_map.values()) & set(after.input_map.values())


@pytest.mark.parametrize("name", ENSEMBLES)
def test_an_ensemble_takes_no_larger_batches_than_its_steps(name: str) -> None:
    ensemble = config(name)
    smallest = min(config(step.model_name).max_batch_size for step in ensemble.ensemble_scheduling.step)
    assert ensemble.max_batch_size == smallest


def test_a_person_has_as_many_photographs_as_every_step_takes_at_once() -> None:
    before_the_files = {step.model_name for step in config("person").ensemble_scheduling.step} - {
        "merge",
        "postprocess",
    }
    smallest = min(config(name).max_batch_size for name in before_the_files)
    merge = load("merge", "photo_tensors")
    assert limits.MAX_PHOTOGRAPHS == codec.MAX_PHOTOGRAPHS == merge.MAX_PHOTOGRAPHS == smallest


def test_a_person_has_the_tensors_of_a_face_and_what_is_said_of_the_photographs() -> None:
    of_one_photograph = {"certainty", "texture_warnings"}
    of_several = {"similarity", "weights", "reference"}
    assert set(tensors(config("person").output)) == PUBLIC - of_one_photograph | of_several


def test_face3d_and_reconstruct_give_the_same_tensors() -> None:
    assert tensors(config("face3d").output) == tensors(config("reconstruct").output)
    assert set(tensors(config("face3d").output)) == PUBLIC


@pytest.mark.parametrize("name", ENSEMBLES)
def test_triton_finds_a_version_folder_for_every_ensemble(name: str) -> None:
    assert any(entry.is_dir() and entry.name.isdigit() for entry in (REPOSITORY / name).iterdir())


def test_the_limits_of_preprocess_leave_room_for_a_telephone_s_best_pictures() -> None:
    parameters = config("preprocess").parameters
    assert int(parameters["max_bytes"].string_value) == 32 * 2**20
    assert math.prod((9248, 6936)) <= int(parameters["max_pixels"].string_value)
