"""`postprocess`: what of a head moves besides its skin - ARKit's shapes, eyeballs, lips, teeth."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.model_repository.heads import MODEL, surface_of_head
from tests.model_repository.version_folder import load

arkit, eyes, mouth, placing = (load("postprocess", name) for name in ("arkit", "eyes", "mouth", "placing"))

# Apple's documentation of ARFaceAnchor.BlendShapeLocation, in its order.
APPLE = """
eyeBlinkLeft eyeLookDownLeft eyeLookInLeft eyeLookOutLeft eyeLookUpLeft eyeSquintLeft eyeWideLeft eyeBlinkRight
eyeLookDownRight eyeLookInRight eyeLookOutRight eyeLookUpRight eyeSquintRight eyeWideRight jawForward jawLeft jawRight
jawOpen mouthClose mouthFunnel mouthPucker mouthLeft mouthRight mouthSmileLeft mouthSmileRight mouthFrownLeft
mouthFrownRight mouthDimpleLeft mouthDimpleRight mouthStretchLeft mouthStretchRight mouthRollLower mouthRollUpper
mouthShrugLower mouthShrugUpper mouthPressLeft mouthPressRight mouthLowerDownLeft mouthLowerDownRight mouthUpperUpLeft
mouthUpperUpRight browDownLeft browDownRight browInnerUp browOuterUpLeft browOuterUpRight cheekPuff cheekSquintLeft
cheekSquintRight noseSneerLeft noseSneerRight tongueOut
"""


@pytest.fixture(scope="module")
def head() -> Any:
    return surface_of_head().head


def test_shapes_have_apples_names(head: Any) -> None:
    assert sorted(arkit.NAMES) == sorted(APPLE.split())
    assert arkit.shapes(head).shape == (52, len(MODEL.mean), 3)
    assert not [name for name, moved in zip(arkit.NAMES, arkit.shapes(head), strict=True) if not np.abs(moved).max()]


def test_a_shape_of_one_side_moves_that_side(head: Any) -> None:
    for name, moved in zip(arkit.NAMES, arkit.shapes(head), strict=True):
        if name.endswith(("Left", "Right")) and name not in ("jawLeft", "jawRight", "mouthLeft", "mouthRight"):
            length = np.linalg.norm(moved, axis=1)
            left, right = length[MODEL.mean[:, 0] > 0.05].sum(), length[MODEL.mean[:, 0] < -0.05].sum()
            assert (left > 2 * right) if name.endswith("Left") else (right > 2 * left), name


def test_jaw_and_mouth_go_to_the_persons_own_left(head: Any) -> None:
    shapes = dict(zip(arkit.NAMES, arkit.shapes(head), strict=True))
    lip = head.landmarks[57]  # the lower lip's middle; +x is the person's left
    for name in ("jaw", "mouth"):
        assert shapes[name + "Left"][lip, 0] > 0.02
        assert shapes[name + "Right"][lip, 0] < -0.02


def test_what_apple_has_for_both_sides_is_the_sum_of_two(head: Any) -> None:
    shapes = dict(zip(arkit.NAMES, arkit.shapes(head), strict=True))
    for name in ("browInnerUp", "cheekPuff"):
        sides = [head.expression[head.expression_names.index(f"{name}_{side}")] for side in "LR"]
        np.testing.assert_allclose(shapes[name], sides[0] + sides[1], atol=1e-6)


def test_weights_are_the_coefficients_by_name_within_their_range(head: Any) -> None:
    expression = np.zeros(64, np.float32)
    for name, value in {"jawOpen": 0.4, "eyeBlink_L": 1.7, "browInnerUp_L": 0.2, "browInnerUp_R": 0.4}.items():
        expression[head.expression_names.index(name)] = value
    found = dict(zip(arkit.NAMES, arkit.weights(head, expression).tolist(), strict=True))
    expected = {"jawOpen": 0.4, "eyeBlinkLeft": 1.0, "browInnerUp": 0.3}
    assert {k: pytest.approx(v) for k, v in found.items() if v} == expected


def test_an_eyeball_turns_about_its_centre_to_where_it_shall_look(head: Any) -> None:
    direction = np.array([0.2, -0.1, 1.0], np.float32) / np.float32(np.sqrt(1.05))
    for side in (0, 1):
        turned = eyes.aim(head, MODEL.mean, side, direction)
        before, after = head.eye(MODEL.mean, side), head.eye(turned, side)
        np.testing.assert_allclose(after[0], before[0], atol=1e-5)
        np.testing.assert_allclose(after[1], direction, atol=1e-4)
        moved = np.flatnonzero(np.abs(turned - MODEL.mean).max(1) > 0)
        assert set(moved) <= set(MODEL.vertices_of(("eye_left", "eye_right")[side]))


def test_settling_moves_only_eyeballs_and_those_as_a_whole(head: Any) -> None:
    pushed = MODEL.mean.copy()
    eye = MODEL.vertices_of("eye_left")
    pushed[eye, 2] += 0.02  # two millimetres out of the lids
    settled = eyes.settle(head, pushed)
    moved = settled - pushed
    assert np.ptp(moved[eye], axis=0).max() < 1e-6
    assert moved[eye[0], 2] < -0.01
    assert not np.abs(np.delete(moved, eye, axis=0)).max()


def with_jaw_open(head: Any, millimetres: float) -> NDArray[np.float32]:
    """Coefficients of an expression whose lips are that much further apart than the neutral ones."""
    expression = np.zeros(64, np.float32)
    jaw = head.expression_names.index("jawOpen")
    expression[jaw] = millimetres / 100 / mouth.lip_gap(head, head.expression[jaw])
    return expression


def closed(head: Any, identity: NDArray[np.float32], expression: NDArray[np.float32]) -> NDArray[np.float32]:
    """The expression as it is written."""
    neutral, expressive = MODEL.shape(identity, np.zeros(64, np.float32)), MODEL.shape(identity, expression)
    shapes = np.stack([expressive, expressive, neutral])
    vertices, result = placing.expressive(head, shapes, expression)
    np.testing.assert_allclose(vertices, MODEL.shape(identity, result), atol=1e-5)
    return np.asarray(result)


def test_lips_that_are_hardly_open_are_closed_for_everybody(head: Any) -> None:
    rng = np.random.default_rng(0)
    for opened in (0.0, 2.0, 4.5):
        identity, expression = rng.standard_normal(80).astype(np.float32), with_jaw_open(head, opened)
        result = closed(head, identity, expression)
        assert mouth.lip_gap(head, MODEL.shape(identity, result)) == pytest.approx(-mouth.OVERLAP_DM, abs=1e-4)
        changed = np.flatnonzero(result != expression)
        assert [head.expression_names[k] for k in changed] == ["mouthClose"]


def test_an_open_mouth_stays_as_it_is(head: Any) -> None:
    expression = with_jaw_open(head, 6.0)
    np.testing.assert_array_equal(closed(head, np.zeros(80, np.float32), expression), expression)


def test_lips_that_overlap_already_are_not_opened(head: Any) -> None:
    expression = np.zeros(64, np.float32)
    expression[head.expression_names.index("mouthClose")] = 0.2
    np.testing.assert_array_equal(closed(head, np.zeros(80, np.float32), expression), expression)


def test_a_smile_does_not_lay_the_upper_gums_bare(head: Any) -> None:
    smile = np.zeros(64, np.float32)
    for name in ("mouthSmile_L", "mouthSmile_R", "mouthUpperUp_L", "mouthUpperUp_R"):
        smile[head.expression_names.index(name)] = 0.8
    vertices = MODEL.shape(np.zeros(80, np.float32), smile)
    raised = mouth.raise_teeth(head, vertices)
    lip = raised[head.landmarks[[61, 62, 63]], 1].max()
    assert lip > vertices[head.gum_line, 1].mean() + 0.01
    assert raised[head.gum_line, 1].mean() > lip - 0.01
    moved = (raised - vertices)[:, 1]
    upper = MODEL.vertices_of("teeth_upper")
    assert np.ptp(moved[upper]) < 1e-6
    assert not moved[MODEL.vertices_of("teeth_lower", "tongue", *MODEL.skin)].any()
    assert mouth.raise_teeth(head, MODEL.mean) is MODEL.mean
