"""The table of parameters agrees with the models that read them, and a mistake is named with what was meant."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from server.gateway.description import Value
from server.gateway.parameters import TABLE, check_parameters
from server.gateway.refusal import Refused
from server.repository import DEFAULT_REPOSITORY, read_repository
from tests.model_repository.version_folder import load

ROOT = Path(__file__).resolve().parents[3]
READERS = {"align": "face_options", "postprocess": "options"}


@pytest.fixture(scope="module")
def readers() -> dict[str, Callable[[str], Any]]:
    return {model: load(model, module).options_from for model, module in READERS.items()}


def refused(name: str, value: Value, model: str = "face3d") -> str | None:
    try:
        check_parameters(model, {name: value})
    except Refused as error:
        return str(error)
    return None


def test_the_table_has_the_names_that_the_models_read() -> None:
    read = set()
    for model, module in READERS.items():
        options = load(model, module).Options
        read |= set(inspect.signature(options).parameters)
    for model in ("face3d", "reconstruct"):
        assert {parameter.name for parameter in TABLE[model]} == read


def test_no_other_model_reads_parameters() -> None:
    reading = {
        path.parts[-3]
        for path in (ROOT / "model_repository").glob("*/*/*.py")
        if re.search(r"request\.parameters\(\)", path.read_text())
    }
    assert reading == {*READERS, "preprocess"}, "preprocess looks at texture_size, and leaves it to others to refuse it"


def test_the_table_has_every_ensemble() -> None:
    ensembles = {name for name, model in read_repository(DEFAULT_REPOSITORY).items() if model.is_ensemble}
    assert set(TABLE) >= ensembles


GOOD: list[tuple[str, Value]] = [
    ("score_threshold", 0), ("score_threshold", 1), ("score_threshold", 0.5), ("score_threshold", "0.5"),
    ("score_threshold", "1e-3"), ("face", 0), ("face", 15), ("face", "3"), ("box", "1,2,30,40"),
    ("box", "1.5, 2, 3e2, 4e2"),
    ("white_balance", True), ("white_balance", False), ("white_balance", "true"), ("white_balance", "False"),
    ("white_balance", 1), ("white_balance", "0"), ("sharpen", 0), ("sharpen", "0.25"), ("sharpen", 1.0),
    ("texture_format", "png"), ("texture_format", "JPEG"), ("texture_size", 64), ("texture_size", 4096),
    ("texture_light", "albedo"), ("detail", 0), ("detail", 2.0), ("detail", "0.5"), ("glasses", "remove"),
    ("hair", "paint"),
    ("texture_size", "512"), ("pose", "head"), ("pose", "camera"), ("pose", "Neutral"),
    ("pose", "canonical"), ("mesh", "head"), ("mesh", "Face"), ("rig", "arkit"), ("rig", "none"),
    ("expression", "photo"), ("expression", "neutral"),
]  # fmt: skip
BAD: list[tuple[str, Value]] = [
    ("score_threshold", -0.1), ("score_threshold", 2), ("score_threshold", True), ("score_threshold", "nan"),
    ("score_threshold", "high"), ("score_threshold", ""), ("face", -1), ("face", 1.5), ("face", True), ("face", "best"),
    ("box", "1,2,3"), ("box", "3,2,1,4"), ("box", "nan,nan,nan,nan"), ("box", 5), ("box", "0,0,1e308,1e308"),
    ("white_balance", "yes"), ("white_balance", 2), ("sharpen", 1.5), ("sharpen", True), ("sharpen", "x"),
    ("texture_format", "webp"), ("texture_format", 1), ("texture_size", 63), ("texture_size", 4097),
    ("texture_light", "flat"), ("detail", 2.1), ("detail", True), ("glasses", "off"), ("hair", 1),
    ("texture_size", 512.0), ("texture_size", True), ("pose", "sideways"), ("pose", 0),
    ("mesh", "body"), ("mesh", True), ("rig", "vrm"), ("rig", 52), ("expression", "smile"), ("expression", 1),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), GOOD)
def test_what_the_models_take_is_taken(name: str, value: Value, readers: dict[str, Callable[[str], Any]]) -> None:
    text = repr(value) if isinstance(value, float) else value  # as it goes to Triton
    for read in readers.values():
        read(json.dumps({name: text}))
    assert refused(name, value) is None


@pytest.mark.parametrize(("name", "value"), BAD)
def test_what_the_models_refuse_is_refused(name: str, value: Value, readers: dict[str, Callable[[str], Any]]) -> None:
    outcomes = []
    for read in readers.values():
        try:
            read(json.dumps({name: value}))
            outcomes.append("taken")
        except Exception as error:
            outcomes.append(getattr(error, "tag", "untyped"))
    assert "BadOption" in outcomes
    sentence = refused(name, value)
    assert sentence is not None
    assert sentence.startswith(f"[BadOption] `{name}` is ")
    assert ": give " in sentence


def test_a_pose_that_contradicts_the_expression_is_refused() -> None:
    check_parameters("face3d", {"pose": "neutral", "expression": "neutral"})
    check_parameters("face3d", {"pose": "camera", "expression": "photo"})
    with pytest.raises(Refused, match='`pose` "neutral" means `expression` "neutral"'):
        check_parameters("face3d", {"pose": "Neutral", "expression": "photo"})


@pytest.mark.parametrize("text", ["1_000", "\uff11\uff10", " 5 ", "0x10", "5" * 5000, "\u0663"])
def test_a_number_written_oddly_is_refused(text: str) -> None:
    assert refused("face", text)
    assert refused("texture_size", text)
    assert refused("score_threshold", text)


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [("score_treshold", "score_threshold"), ("texturesize", "texture_size"), ("Pose", "pose"), ("boxes", "box")],
)
def test_a_misspelt_parameter_is_answered_with_the_nearest(wrong: str, meant: str) -> None:
    sentence = refused(wrong, 1)
    assert sentence == f"[BadOption] `face3d` has no parameter `{wrong}`: did you mean `{meant}`?"


def test_a_model_without_parameters_says_so() -> None:
    assert refused("score_threshold", 0.5, "detect") == (
        "[BadOption] `detect` has no parameter `score_threshold`: it takes none."
    )


@pytest.mark.parametrize("name", ["priority", "sequence_id", "sequence_start", "classification", "binary_data_size"])
def test_tritons_own_parameters_are_refused_with_a_reason(name: str) -> None:
    assert re.fullmatch(
        rf"\[BadOption\] the parameter `{name}` is not taken \(.+\): leave it out\.", refused(name, 1) or ""
    )


def test_a_timeout_is_taken_and_must_be_whole_microseconds() -> None:
    assert refused("timeout", 1_000_000) is None
    for value in (-1, 0.5, "1", True):
        assert refused("timeout", value)


def test_a_name_is_shown_without_control_characters_and_not_at_length() -> None:
    sentence = refused("\x1b[31m\u202e\n" + "x" * 1000, 1)
    assert sentence is not None
    assert sentence.isprintable()
    assert "\u202e" not in sentence
    assert len(sentence) < 300
