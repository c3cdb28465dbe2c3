"""`postprocess`: which options there are, and what is said about wrong ones."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.model_repository.version_folder import load

options = load("postprocess", "options")


def test_nothing_said_means_the_defaults() -> None:
    assert options.options_from("") == options.options_from("{}") == options.Options()
    defaults = options.Options()
    assert (defaults.sharpen, defaults.texture_size) == (0.3, None)
    assert (defaults.mesh, defaults.rig) == ("head", "none")
    assert (defaults.expression, defaults.pose) == ("photo", "canonical")
    assert not defaults.white_balance


@pytest.mark.parametrize(
    ("name", "given", "read"),
    [
        ("white_balance", True, True),
        ("white_balance", "false", False),
        ("white_balance", 1, True),
        ("sharpen", "0.75", 0.75),
        ("sharpen", 1, 1.0),
        ("texture_format", "JPEG", "jpeg"),
        ("texture_size", "1024", 1024),
        ("texture_size", 64, 64),
        ("texture_light", "Albedo", "albedo"),
        ("detail", "1.5", 1.5),
        ("glasses", "remove", "remove"),
        ("hair", "paint", "paint"),
        ("mesh", "Face", "face"),
        ("rig", "arkit", "arkit"),
        ("expression", "neutral", "neutral"),
        ("pose", "camera", "camera"),
        ("likeness", "1.5", 1.5),
        ("likeness", 0, 0.0),
    ],
)
def test_numbers_and_booleans_may_come_as_text(name: str, given: Any, read: Any) -> None:
    assert getattr(options.options_from(json.dumps({name: given})), name) == read


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("white_balance", "maybe"),
        ("white_balance", 2),
        ("sharpen", 1.01),
        ("sharpen", "-0.1"),
        ("sharpen", "nan"),
        ("sharpen", True),
        ("texture_format", "webp"),
        ("texture_format", 3),
        ("texture_size", 63),
        ("texture_size", 4097),
        ("texture_size", "large"),
        ("texture_size", "512.5"),
        ("texture_size", True),
        ("texture_light", "none"),
        ("detail", 2.5),
        ("glasses", True),
        ("hair", "wig"),
        ("pose", "profile"),
        ("likeness", 2.5),
        ("likeness", "nan"),
        ("likeness", True),
        ("mesh", "body"),
        ("mesh", True),
        ("rig", "vrm"),
        ("rig", None),
        ("expression", "smile"),
        ("pose", "x" * 5000),
    ],
)
def test_a_wrong_value_is_refused_with_what_may_be(name: str, given: Any) -> None:
    with pytest.raises(options.Refused) as caught:
        options.options_from(json.dumps({name: given}))
    assert caught.value.tag == "BadOption"
    sentence = str(caught.value)
    assert f"`{name}`" in sentence
    assert ": give " in sentence
    assert len(sentence) < 200


def test_options_of_other_steps_are_left_alone() -> None:
    assert options.options_from(json.dumps({"face": 3, "score_threshold": "0.1"})) == options.Options()


@pytest.mark.parametrize(
    ("given", "pose", "expression"),
    [
        ({"pose": "head"}, "canonical", "photo"),
        ({"pose": "head", "expression": "neutral"}, "canonical", "neutral"),
        ({"pose": "neutral"}, "canonical", "neutral"),
        ({"pose": "neutral", "expression": "neutral"}, "canonical", "neutral"),
        ({"pose": "camera", "expression": "neutral"}, "camera", "neutral"),
    ],
)
def test_old_poses_mean_what_they_meant(given: dict[str, str], pose: str, expression: str) -> None:
    read = options.options_from(json.dumps(given))
    assert (read.pose, read.expression) == (pose, expression)


def test_a_pose_that_contradicts_the_expression_is_refused() -> None:
    with pytest.raises(options.Refused, match='`pose` "neutral" means `expression` "neutral"') as caught:
        options.options_from(json.dumps({"pose": "neutral", "expression": "photo"}))
    assert caught.value.tag == "BadOption"
