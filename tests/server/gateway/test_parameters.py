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
READERS = {
    "preprocess": "picture_options",
    "align": "face_options",
    "merge": "merge_options",
    "steady": "steady_options",
    "postprocess": "options",
}
# Those of `fuse`: its faces are read by `align`, all else by `fusion`.
FUSE_READERS = (
    ("align", "face_options", "options_from"),
    ("fusion", "fusion_options", "options_from"),
    ("fusion", "consent", "consent_from"),
)
STATEMENT = "Both of them agreed."


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
    read = {model: set(inspect.signature(load(model, module).Options).parameters) for model, module in READERS.items()}
    table = {model: {parameter.name for parameter in parameters} for model, parameters in TABLE.items()}
    read["align"] -= {"roles"}  # source_face and target_face, of `fuse`
    read["preprocess"] -= {"fine"}  # texture_size, which postprocess refuses
    assert table["face3d"] == read["align"] | read["postprocess"]
    assert table["reconstruct"] == table["face3d"] | read["preprocess"]
    assert table["group"] == read["preprocess"] == {"min_face"}
    choice = read["align"] - {"texture_size"}
    assert table["embed"] == choice
    # Each photograph's main face: an index or a box would mean another face in each; nor has it one photograph's skin.
    of_one = {"face", "box", "upscale", "texture_light", "detail", "glasses", "hair"}
    assert table["person"] == (read["align"] | read["merge"] | read["postprocess"]) - of_one
    assert table["track"] == choice | read["steady"] | {"sequence_id", "sequence_start", "sequence_end"}
    fuse = set(inspect.signature(load("fusion", "fusion_options").Options).parameters)
    assert table["fuse"] == {"consent", "source_face", "target_face"} | fuse


def test_no_other_model_reads_parameters() -> None:
    reading = {
        path.parts[-3]
        for path in (ROOT / "model_repository").glob("*/*/*.py")
        if re.search(r"request\.parameters\(\)", path.read_text())
    }
    assert reading == {*READERS, "fusion"}


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
    ("hair", "paint"), ("upscale", True),
    ("texture_size", "512"), ("pose", "head"), ("pose", "camera"), ("pose", "Neutral"),
    ("pose", "canonical"), ("mesh", "head"), ("mesh", "Face"), ("rig", "arkit"), ("rig", "none"),
    ("expression", "photo"), ("expression", "neutral"), ("likeness", 0), ("likeness", "1.5"), ("likeness", 2.0),
]  # fmt: skip
GOOD_OF_PERSON: list[tuple[str, Value]] = [
    ("same_person", -1), ("same_person", "0.25"), ("same_person", 1.0), ("reference", 0), ("reference", "7"),
]  # fmt: skip
BAD_OF_PERSON: list[tuple[str, Value]] = [
    ("same_person", 1.1), ("same_person", "nan"), ("same_person", True), ("same_person", "twins"),
    ("reference", -1), ("reference", 0.5), ("reference", True), ("reference", "first"),
]  # fmt: skip
BAD: list[tuple[str, Value]] = [
    ("score_threshold", -0.1), ("score_threshold", 2), ("score_threshold", True), ("score_threshold", "nan"),
    ("score_threshold", "high"), ("score_threshold", ""), ("face", -1), ("face", 1.5), ("face", True), ("face", "best"),
    ("box", "1,2,3"), ("box", "3,2,1,4"), ("box", "nan,nan,nan,nan"), ("box", 5), ("box", "0,0,1e308,1e308"),
    ("white_balance", "yes"), ("white_balance", 2), ("sharpen", 1.5), ("sharpen", True), ("sharpen", "x"),
    ("texture_format", "webp"), ("texture_format", 1), ("texture_size", 63), ("texture_size", 4097),
    ("upscale", 2), ("texture_light", "flat"), ("detail", 2.1), ("detail", True), ("glasses", "off"), ("hair", 1),
    ("texture_size", 512.0), ("texture_size", True), ("pose", "sideways"), ("pose", 0),
    ("mesh", "body"), ("mesh", True), ("rig", "vrm"), ("rig", 52), ("expression", "smile"), ("expression", 1),
    ("likeness", 2.1), ("likeness", -1), ("likeness", "nan"), ("likeness", False),
]  # fmt: skip


def ensemble_with(name: str) -> str:
    return "person" if name in ("same_person", "reference") else "face3d"


@pytest.mark.parametrize(("name", "value"), GOOD + GOOD_OF_PERSON)
def test_what_the_models_take_is_taken(name: str, value: Value, readers: dict[str, Callable[[str], Any]]) -> None:
    text = repr(value) if isinstance(value, float) else value  # as it goes to Triton
    for read in readers.values():
        read(json.dumps({name: text}))
    assert refused(name, value, ensemble_with(name)) is None


@pytest.mark.parametrize(("name", "value"), BAD + BAD_OF_PERSON)
def test_what_the_models_refuse_is_refused(name: str, value: Value, readers: dict[str, Callable[[str], Any]]) -> None:
    outcomes = []
    for read in readers.values():
        try:
            read(json.dumps({name: value}))
            outcomes.append("taken")
        except Exception as error:
            outcomes.append(getattr(error, "tag", "untyped"))
    assert "BadOption" in outcomes
    sentence = refused(name, value, ensemble_with(name))
    assert sentence is not None
    assert sentence.startswith(f"[BadOption] `{name}` is ")
    assert ": give " in sentence


FUSE_GOOD: list[tuple[str, Value]] = [
    ("consent", "Ana Núñez agreed."), ("consent", "x" * 500), ("consent", " one\ntwo "), ("source_face", 0),
    ("target_face", "3"), ("shape", 0.5), ("shape", "1"), ("eyes", "Source"), ("mouth", "target"),
    ("picture_format", "JPEG"), ("quality_mode", "long"), ("mark", True), ("mark", "false"),
]  # fmt: skip
FUSE_BAD: list[tuple[str, Value]] = [
    ("consent", "x" * 501), ("consent", "a\0b"), ("consent", "a\u202eb"), ("consent", 7), ("source_face", -1),
    ("target_face", "best"), ("shape", 1.5), ("shape", True), ("eyes", "both"), ("mouth", 1),
    ("picture_format", "webp"), ("quality_mode", "best"), ("mark", "yes"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), [*FUSE_GOOD, *FUSE_BAD])
def test_gateway_and_models_agree_on_what_fuse_takes(name: str, value: Value) -> None:
    given = {"consent": STATEMENT, name: value}
    text = {key: repr(item) if isinstance(item, float) else item for key, item in given.items()}  # as Triton gets it
    tags = set()
    for model, module, function in FUSE_READERS:
        try:
            getattr(load(model, module), function)(json.dumps(text))
        except Exception as error:
            tags.add(getattr(error, "tag", "untyped"))
    good = (name, value) in FUSE_GOOD
    assert tags == (set() if good else {"BadOption"})
    if good:
        check_parameters("fuse", given)
    else:
        with pytest.raises(Refused, match=rf"\[BadOption\] `{name}` is .*: give "):
            check_parameters("fuse", given)


@pytest.mark.parametrize("given", [{}, {"consent": ""}, {"consent": " \n"}])
def test_fuse_asks_who_agreed_before_anything_else(given: dict[str, Value]) -> None:
    with pytest.raises(Refused, match=r"\[ConsentRequired\] a fused picture needs a consent statement"):
        check_parameters("fuse", {**given, "shape": 7})


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


def test_a_frame_of_a_clip_needs_the_clip_s_number() -> None:
    check_parameters("track", {"sequence_id": 2**63 - 1, "sequence_start": True, "frame_rate": "29.97"})
    assert "give `sequence_id`" in (refused("smoothing", 1, "track") or "")
    for number in (0, -1, 2**63, "7", 1.5, True):
        assert "`sequence_id` is" in (refused("sequence_id", number, "track") or "")
    for flag in ("true", 1):
        assert "`sequence_start` is" in (refused("sequence_start", flag, "track") or "")


@pytest.mark.parametrize("value", [12, 4096.0, "24", "24.5"])
def test_a_size_of_faces_is_taken(value: Value, readers: dict[str, Callable[[str], Any]]) -> None:
    assert refused("min_face", value, "group") is None
    assert readers["preprocess"](json.dumps({"min_face": value})).min_face == float(value)


@pytest.mark.parametrize("value", [11.9, 4097, True, "nan", "tiny", ""])
def test_a_size_of_faces_that_cannot_be_meant_is_refused(
    value: Value, readers: dict[str, Callable[[str], Any]]
) -> None:
    assert "`min_face` is" in (refused("min_face", value, "group") or "")
    with pytest.raises(load("preprocess", "refusals").BadPicture, match="`min_face` is") as caught:
        readers["preprocess"](json.dumps({"min_face": value}))
    assert caught.value.tag == "BadOption"


def test_a_parameter_of_few_other_models_is_answered_with_these() -> None:
    assert refused("min_face", 24, "detect") == (
        "[BadOption] `detect` has no parameter `min_face`: it is one of `reconstruct`, `group`."
    )


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
