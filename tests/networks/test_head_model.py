"""The head model's file, and what is derived from it: what is written is read, anything else is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from networks.face_model import FaceModelError
from networks.head_model import SHAPE_STEP_DM, HeadModel, load_face_model, split_quads, turn_quads
from tests.export.synthetic import face_model

WEIGHTS = Path(__file__).parents[2] / "weights" / "face_model.npz"


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


def test_quads_are_turned_so_that_their_shorter_diagonal_joins_first_and_third_corner(head: HeadModel) -> None:
    points = head.mean[head.vertex]
    turned = turn_quads(head.faces, points, head.mirror, head.vertex)
    np.testing.assert_array_equal(np.sort(turned, axis=1), np.sort(head.faces, axis=1))
    a, b, c, d = points[turned[turned[:, 3] >= 0]].transpose(1, 0, 2)
    first, second = np.linalg.norm(a - c, axis=1), np.linalg.norm(b - d, axis=1)
    assert (first <= second * (1 + 1e-3)).all()
    triangles = head.faces[:, 3] < 0
    np.testing.assert_array_equal(turned[triangles], head.faces[triangles])


def test_a_face_model_of_either_version_is_read_by_its_own_class(head: HeadModel, tmp_path: Path) -> None:
    face_model().save(tmp_path / "face.npz")
    assert load_face_model(tmp_path / "face.npz").fingerprint == face_model().fingerprint
    assert load_face_model(WEIGHTS).fingerprint == head.fingerprint
