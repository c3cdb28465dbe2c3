"""The face model's file: what is written is read, and anything else is refused with a sentence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from networks.face_model import COEFFICIENT_COUNT, COEFFICIENTS, FaceModel, FaceModelError
from tests.export.synthetic import face_model

MODEL = face_model()


def written(path: Path, **changes: Any) -> Path:
    """Write the model's file with some arrays changed; None leaves an array out."""
    MODEL.save(path)
    with np.load(path) as archive:
        arrays = {**dict(archive), **changes}
    np.savez(path, **{k: v for k, v in arrays.items() if v is not None})
    return path


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "model.npz"
    MODEL.save(path)
    read = FaceModel.load(path)
    for field in ("mean", "albedo_mean", "triangles", "uv", "landmarks"):
        np.testing.assert_array_equal(getattr(read, field), getattr(MODEL, field))
        assert getattr(read, field).dtype == getattr(MODEL, field).dtype
    for field in ("identity", "expression", "albedo"):
        np.testing.assert_allclose(getattr(read, field), getattr(MODEL, field), rtol=1e-3, atol=1e-6)
    for field in ("expression_names", "name", "licence", "source", "fingerprint"):
        assert getattr(read, field) == getattr(MODEL, field)


def test_bases_are_rounded_by_less_than_two_thousandths_of_a_millimetre(tmp_path: Path) -> None:
    path = tmp_path / "model.npz"
    MODEL.save(path)
    assert np.abs(FaceModel.load(path).identity - MODEL.identity).max() * 100 < 0.002


def test_the_fingerprint_follows_mean_triangles_and_uv() -> None:
    moved = MODEL.mean.copy()
    moved[5, 1] += 0.001
    others = [
        replace(MODEL, mean=moved),
        replace(MODEL, triangles=MODEL.triangles[::-1].copy()),
        replace(MODEL, uv=MODEL.uv + np.float32(0.001)),
    ]
    assert len({MODEL.fingerprint, *(other.fingerprint for other in others)}) == 4


def test_the_fingerprint_does_not_follow_bases_albedo_or_names() -> None:
    other = replace(
        MODEL, identity=MODEL.identity * 2, albedo=MODEL.albedo * 0, name="another", landmarks=MODEL.landmarks
    )
    assert other.fingerprint == MODEL.fingerprint


def test_the_fingerprint_fits_an_int64() -> None:
    assert int(np.int64(MODEL.fingerprint)) == MODEL.fingerprint


def test_the_257_coefficients_are_named_without_gap_or_overlap() -> None:
    named = np.concatenate([np.arange(COEFFICIENT_COUNT)[part] for part in COEFFICIENTS.values()])
    assert named.tolist() == list(range(257))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FaceModelError, match=r"there is no file .*absent\.npz"):
        FaceModel.load(tmp_path / "absent.npz")


@pytest.mark.parametrize("kept", [0.0, 0.001, 0.5, 0.999])
def test_a_truncated_file_is_refused(tmp_path: Path, kept: float) -> None:
    path = tmp_path / "model.npz"
    MODEL.save(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data))])
    with pytest.raises(FaceModelError, match="cannot be read"):
        FaceModel.load(path)


def test_a_file_with_a_flipped_bit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.npz"
    MODEL.save(path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 16
    path.write_bytes(data)
    with pytest.raises(FaceModelError, match="cannot be read"):
        FaceModel.load(path)


def test_a_file_that_is_no_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.npz"
    path.write_bytes(b"not a face model")
    with pytest.raises(FaceModelError, match="cannot be read"):
        FaceModel.load(path)


def test_a_single_array_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.npz"
    with path.open("wb") as file:
        np.save(file, MODEL.mean)
    with pytest.raises(FaceModelError, match="cannot be read"):
        FaceModel.load(path)


def test_pickled_objects_are_never_loaded(tmp_path: Path) -> None:
    with pytest.raises(FaceModelError, match="cannot be read"):
        FaceModel.load(written(tmp_path / "model.npz", name=np.array([{"a": 1}], dtype=object)))


def test_missing_arrays_are_named(tmp_path: Path) -> None:
    with pytest.raises(FaceModelError, match=r"lacks expression, uv\."):
        FaceModel.load(written(tmp_path / "model.npz", uv=None, expression=None))


def test_other_units_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FaceModelError, match="is in millimetre; convert"):
        FaceModel.load(written(tmp_path / "model.npz", units=np.array("millimetre")))


def test_a_wrong_shape_is_named_with_the_right_one() -> None:
    with pytest.raises(FaceModelError, match=r"'identity' has shape \(79, 1681, 3\), expected \(80, 1681, 3\)"):
        replace(MODEL, identity=MODEL.identity[:79])


@pytest.mark.parametrize("vertex", [-1, 1681])
def test_indices_outside_of_the_vertices_are_refused(vertex: int) -> None:
    marks = MODEL.landmarks.copy()
    marks[7] = vertex
    with pytest.raises(FaceModelError, match="'landmarks' points outside the 1681 vertices"):
        replace(MODEL, landmarks=marks)


def test_numbers_that_are_not_finite_are_refused() -> None:
    mean = MODEL.mean.copy()
    mean[3] = np.nan
    with pytest.raises(FaceModelError, match="'mean' holds NaN"):
        replace(MODEL, mean=mean)
