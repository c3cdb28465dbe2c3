"""The head model's file, and what is derived from it: what is written is read, anything else is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from networks import arkit
from networks.face_model import FaceModelError
from networks.head_eyes import aim, settle
from networks.head_model import SHAPE_STEP_DM, HeadModel, split_quads
from networks.head_mouth import OVERLAP_DM, close_lips, lip_gap
from tests.export.synthetic import face_model

WEIGHTS = Path(__file__).parents[2] / "weights" / "head_model.npz"

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
def head() -> HeadModel:
    return HeadModel.load(WEIGHTS)


@pytest.fixture(scope="module")
def written(head: HeadModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("head") / "model.npz"
    head.save(path)
    return path


def changed(path: Path, target: Path, **changes: Any) -> Path:
    """The file with some arrays changed; None leaves an array out."""
    with np.load(path) as archive:
        arrays = {**dict(archive), **changes}
    np.savez(target, **{k: v for k, v in arrays.items() if v is not None})
    return target


def test_what_is_written_is_read_again_to_the_bit(head: HeadModel, written: Path) -> None:
    read = HeadModel.load(written)
    for field in ("mean", "identity", "expression", "tongue_out", "albedo", "faces", "uv", "vertex", "mirror", "lids"):
        np.testing.assert_array_equal(getattr(read, field), getattr(head, field))
        assert getattr(read, field).dtype == getattr(head, field).dtype
    for field in ("eye_centre", "iris_radius", "part_names", "expression_names", "licence", "source", "fingerprint"):
        assert getattr(read, field) == getattr(head, field)


def test_modes_are_rounded_to_two_thousandths_of_a_millimetre(head: HeadModel, tmp_path: Path) -> None:
    shifted = replace(head, identity=head.identity + np.float32(0.6 * SHAPE_STEP_DM))
    shifted.save(tmp_path / "model.npz")
    rounded = HeadModel.load(tmp_path / "model.npz").identity
    assert np.abs(rounded - shifted.identity).max() * 100 < 0.0021


def test_a_mode_that_sixteen_bits_cannot_hold_is_refused(head: HeadModel, tmp_path: Path) -> None:
    with pytest.raises(FaceModelError, match="'identity' holds a step too long"):
        replace(head, identity=head.identity * 1000).save(tmp_path / "model.npz")


def test_face_model_1_is_refused_with_a_sentence(tmp_path: Path) -> None:
    face_model().save(tmp_path / "old.npz")
    with pytest.raises(FaceModelError, match="is not a head model"):
        HeadModel.load(tmp_path / "old.npz")


def test_another_version_is_refused_and_named(written: Path, tmp_path: Path) -> None:
    with pytest.raises(FaceModelError, match="of version 3, this program reads 2"):
        HeadModel.load(changed(written, tmp_path / "model.npz", version=np.array(3)))


def test_missing_arrays_are_named(written: Path, tmp_path: Path) -> None:
    with pytest.raises(FaceModelError, match="lacks lids, identity_step"):
        HeadModel.load(changed(written, tmp_path / "model.npz", lids=None, identity_step=None))


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.999])
def test_a_truncated_file_is_refused(written: Path, tmp_path: Path, kept: float) -> None:
    data = written.read_bytes()
    (tmp_path / "model.npz").write_bytes(data[: int(kept * len(data))])
    with pytest.raises(FaceModelError, match="cannot be read"):
        HeadModel.load(tmp_path / "model.npz")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FaceModelError, match=r"there is no file .*absent\.npz"):
        HeadModel.load(tmp_path / "absent.npz")


def test_indices_outside_of_their_arrays_are_refused(head: HeadModel) -> None:
    for field, wrong in (("vertex", len(head.mean)), ("faces", len(head.uv)), ("mirror", -1), ("part", 99)):
        values = getattr(head, field).copy()
        values.flat[0] = wrong
        with pytest.raises(FaceModelError, match=f"'{field}' points outside"):
            replace(head, **{field: values})


def test_a_wrong_shape_is_named_with_the_right_one(head: HeadModel) -> None:
    with pytest.raises(FaceModelError, match=r"'identity' has shape \(79, \d+, 3\), expected \(80, \d+, 3\)"):
        replace(head, identity=head.identity[:79])


def test_an_unknown_part_is_named_beside_those_there_are(head: HeadModel) -> None:
    with pytest.raises(KeyError, match="no part hair; it has face, head_and_neck"):
        head.faces_of("hair")


def test_quads_are_split_along_the_shorter_diagonal_and_triangles_stay() -> None:
    points = np.array([[0, 0, 0], [2, 0, 0], [3, 1, 0], [1, 1, 0], [4, 0, 0]], np.float32)
    faces = np.array([[0, 1, 2, 3], [1, 4, 2, -1]], np.int32)
    every = np.arange(5, dtype=np.int32)
    assert split_quads(faces, points, every, every).tolist() == [[0, 1, 3], [1, 4, 2], [1, 2, 3]]


def test_shapes_have_apples_names(head: HeadModel) -> None:
    assert sorted(arkit.NAMES) == sorted(APPLE.split())
    assert arkit.shapes(head).shape == (52, len(head.mean), 3)
    assert not [name for name, moved in zip(arkit.NAMES, arkit.shapes(head), strict=True) if not np.abs(moved).max()]


def test_a_shape_of_one_side_moves_that_side(head: HeadModel) -> None:
    for name, moved in zip(arkit.NAMES, arkit.shapes(head), strict=True):
        if name.endswith(("Left", "Right")) and name not in ("jawLeft", "jawRight", "mouthLeft", "mouthRight"):
            length = np.linalg.norm(moved, axis=1)
            left, right = length[head.mean[:, 0] > 0.05].sum(), length[head.mean[:, 0] < -0.05].sum()
            assert (left > 2 * right) if name.endswith("Left") else (right > 2 * left), name


def test_jaw_and_mouth_go_to_the_persons_own_left(head: HeadModel) -> None:
    shapes = dict(zip(arkit.NAMES, arkit.shapes(head), strict=True))
    lip = head.landmarks[57]  # the lower lip's middle; +x is the person's left
    for name in ("jaw", "mouth"):
        assert shapes[name + "Left"][lip, 0] > 0.02
        assert shapes[name + "Right"][lip, 0] < -0.02


def test_what_apple_has_for_both_sides_is_the_sum_of_two(head: HeadModel) -> None:
    shapes = dict(zip(arkit.NAMES, arkit.shapes(head), strict=True))
    for name in ("browInnerUp", "cheekPuff"):
        sides = [head.expression[head.expression_names.index(f"{name}_{side}")] for side in "LR"]
        np.testing.assert_allclose(shapes[name], sides[0] + sides[1], atol=1e-6)


def test_weights_are_the_coefficients_by_name_within_their_range(head: HeadModel) -> None:
    expression = np.zeros(64, np.float32)
    for name, value in {"jawOpen": 0.4, "eyeBlink_L": 1.7, "browInnerUp_L": 0.2, "browInnerUp_R": 0.4}.items():
        expression[head.expression_names.index(name)] = value
    found = dict(zip(arkit.NAMES, arkit.weights(head, expression).tolist(), strict=True))
    expected = {"jawOpen": 0.4, "eyeBlinkLeft": 1.0, "browInnerUp": 0.3}
    assert {k: pytest.approx(v) for k, v in found.items() if v} == expected


def test_an_eyeball_turns_about_its_centre_to_where_it_shall_look(head: HeadModel) -> None:
    direction = np.array([0.2, -0.1, 1.0], np.float32) / np.float32(np.sqrt(1.05))
    for side in (0, 1):
        turned = aim(head, head.mean, side, direction)
        before, after = head.eye(head.mean, side), head.eye(turned, side)
        np.testing.assert_allclose(after[0], before[0], atol=1e-5)
        np.testing.assert_allclose(after[1], direction, atol=1e-4)
        moved = np.flatnonzero(np.abs(turned - head.mean).max(1) > 0)
        assert set(moved) <= set(head.vertices_of(("eye_left", "eye_right")[side]))


def test_settling_moves_only_eyeballs_and_those_as_a_whole(head: HeadModel) -> None:
    pushed = head.mean.copy()
    eye = head.vertices_of("eye_left")
    pushed[eye, 2] += 0.02  # two millimetres out of the lids
    settled = settle(head, pushed)
    moved = settled - pushed
    assert np.ptp(moved[eye], axis=0).max() < 1e-6
    assert moved[eye[0], 2] < -0.01
    assert not np.abs(np.delete(moved, eye, axis=0)).max()


def with_jaw_open(head: HeadModel, millimetres: float) -> NDArray[np.float32]:
    """Coefficients of an expression whose lips are that much further apart than the neutral ones."""
    expression = np.zeros(64, np.float32)
    jaw = head.expression_names.index("jawOpen")
    expression[jaw] = millimetres / 100 / lip_gap(head, head.expression[jaw])
    return expression


def test_lips_that_are_hardly_open_are_closed_for_everybody(head: HeadModel) -> None:
    rng = np.random.default_rng(0)
    for opened in (0.0, 2.0, 4.5):
        identity, expression = rng.standard_normal(80).astype(np.float32), with_jaw_open(head, opened)
        result = close_lips(head, identity, expression)
        assert lip_gap(head, head.shape(identity, result)) == pytest.approx(-OVERLAP_DM, abs=1e-4)
        changed = np.flatnonzero(result != expression)
        assert [head.expression_names[k] for k in changed] == ["mouthClose"]


def test_an_open_mouth_stays_as_it_is(head: HeadModel) -> None:
    expression = with_jaw_open(head, 6.0)
    assert close_lips(head, np.zeros(80, np.float32), expression) is expression


def test_lips_that_overlap_already_are_not_opened(head: HeadModel) -> None:
    expression = np.zeros(64, np.float32)
    expression[head.expression_names.index("mouthClose")] = 0.2
    result = close_lips(head, np.zeros(80, np.float32), expression)
    np.testing.assert_array_equal(result, expression)
