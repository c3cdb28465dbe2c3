"""BFM and FLAME files of the published layouts become face models; anything else is refused by name."""

from __future__ import annotations

import pickle
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.io import savemat

from export.errors import ExportError
from export.official import bfm, flame
from export.official.face_models import main
from networks.face_model import FaceModel
from tests.export.official import layouts


def test_bfm_front_becomes_a_recentred_face_model_in_decimetres(tmp_path: Path) -> None:
    path = layouts.save_bfm(tmp_path / "BFM_model_front.mat")
    arrays = layouts.bfm_arrays()
    model = bfm.load(path)
    mean = np.asarray(arrays["meanshape"], np.float64).reshape(-1, 3)
    np.testing.assert_allclose(model.mean, mean - mean.mean(0), atol=1e-5)
    vertex, mode = 1234, 7
    np.testing.assert_allclose(
        model.identity[mode, vertex], np.asarray(arrays["idBase"])[3 * vertex : 3 * vertex + 3, mode], rtol=1e-6
    )
    np.testing.assert_array_equal(model.landmarks, np.asarray(arrays["keypoints"]).ravel() - 1)
    assert model.mean.shape == (35_709, 3)
    assert model.triangles.shape == (70_789, 3)
    assert model.triangles.min() == 0
    assert 0 <= model.uv.min() <= model.uv.max() <= 1
    assert "not for redistribution" in model.licence


def test_triangles_are_turned_outward_whichever_way_the_file_winds_them(tmp_path: Path) -> None:
    tri = np.asarray(layouts.bfm_arrays()["tri"])
    models = [
        bfm.load(layouts.save_bfm(tmp_path / f"{name}.mat", tri=triangles))
        for name, triangles in (("one", tri), ("other", tri[:, ::-1]))
    ]
    for model in models:
        a, b, c = (model.mean[model.triangles[:, k]] for k in range(3))
        assert np.cross(b - a, c - a)[:, 2].sum() > 0


def test_the_original_files_give_the_same_face_model_as_the_front_file(tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    trimmed = np.sort(chance.choice(bfm.SHAPE_VERTICES, bfm.EXPRESSION_VERTICES, replace=False))
    front = np.sort(chance.choice(bfm.EXPRESSION_VERTICES, bfm.VERTICES, replace=False))
    arrays = layouts.bfm_arrays()
    shape, rows = bfm.SHAPE_VERTICES, trimmed[front]

    def spread(values: NDArray[Any], count: int, at: NDArray[np.int64], columns: int) -> NDArray[np.float32]:
        whole = np.zeros((count, 3, columns), np.float32)
        whole[at] = values.reshape(-1, 3, columns)
        return whole.reshape(3 * count, columns)

    deviation = chance.uniform(0.5, 2, 199)
    identity = np.zeros((3 * shape, 199), np.float32)
    identity[:, :80] = spread(np.asarray(arrays["idBase"]), shape, rows, 80) / deviation[:80] * 1e5
    albedo = np.zeros((3 * shape, 199), np.float32)
    albedo[:, :80] = spread(np.asarray(arrays["texBase"]), shape, rows, 80) / deviation[:80]
    savemat(
        tmp_path / "01_MorphableModel.mat",
        {
            "shapePC": identity,
            "shapeEV": deviation[:, None],
            "shapeMU": spread(np.asarray(arrays["meanshape"]).reshape(-1, 1), shape, rows, 1) * 1e5,
            "texPC": albedo,
            "texEV": deviation[:, None],
            "texMU": spread(np.asarray(arrays["meantex"]).reshape(-1, 1), shape, rows, 1),
        },
    )
    moves = chance.uniform(0.5, 2, 79)
    basis = np.zeros((79, 3 * bfm.EXPRESSION_VERTICES), "<f4")
    basis[:64] = (spread(np.asarray(arrays["exBase"]), bfm.EXPRESSION_VERTICES, front, 64) / moves[:64] * 1e5).T
    mean = np.zeros(3 * bfm.EXPRESSION_VERTICES, "<f4")
    (tmp_path / "Exp_Pca.bin").write_bytes(np.int32(79).tobytes() + mean.tobytes() + basis.tobytes())
    np.savetxt(tmp_path / "std_exp.txt", moves[None])
    savemat(tmp_path / "BFM_front_idx.mat", {"idx": front[:, None] + 1})
    savemat(tmp_path / "BFM_exp_idx.mat", {"trimIndex": trimmed[:, None] + 1})
    savemat(tmp_path / "facemodel_info.mat", {"tri": arrays["tri"], "keypoints": arrays["keypoints"]})

    made = bfm.load(tmp_path)
    expected = bfm.load(layouts.save_bfm(tmp_path / "front.mat"))
    for name in ("mean", "identity", "expression", "albedo_mean", "albedo"):
        np.testing.assert_allclose(getattr(made, name), getattr(expected, name), rtol=1e-4, atol=2e-5)
    np.testing.assert_array_equal(made.triangles, expected.triangles)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("idBase", np.zeros((3 * layouts.BFM_VERTICES, 79), np.float32)),
        ("tri", np.ones((100, 3), np.int32)),
        ("meanshape", np.zeros((1, 3 * 35_708))),
    ],
)
def test_a_face_model_of_another_size_is_refused_by_the_arrays_name(
    tmp_path: Path, name: str, value: NDArray[Any]
) -> None:
    with pytest.raises(ExportError, match=rf"'{name}' of .* has shape"):
        bfm.load(layouts.save_bfm(tmp_path / "BFM_model_front.mat", **{name: value}))


def test_damaged_missing_and_foreign_files_end_with_exit_code_2_and_write_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "damaged.mat").write_bytes(b"MATLAB 5.0 MAT-file" + bytes(200))
    savemat(tmp_path / "foreign.mat", {"x": np.zeros(3)})
    for name in ("damaged.mat", "foreign.mat", "missing.mat", "."):
        assert main(["bfm", str(tmp_path / name), "-o", str(tmp_path / "out.npz")]) == 2
        message = capsys.readouterr().err
        assert message.count("\n") == 1, message
        assert not (tmp_path / "out.npz").exists()


# FLAME: a Python 2 pickle of chumpy and scipy objects, imitated with modules of these names.


def _flame_arrays(seed: int = 0) -> dict[str, NDArray[Any]]:
    chance = np.random.default_rng(seed)
    points = chance.normal(size=(flame.VERTICES, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    return {
        "v_template": points * 0.1,
        "shapedirs": chance.normal(0, 1e-3, (flame.VERTICES, 3, 400)),
        "f": chance.integers(0, flame.VERTICES, (flame.TRIANGLES, 3)).astype(np.uint32),
    }


@pytest.fixture
def flame_pickle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make generic_model.pkl as published: arrays in chumpy objects, and a sparse matrix."""
    for name in ("chumpy", "chumpy.ch"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))

    class Ch:
        def __init__(self, x: NDArray[Any]) -> None:
            self.x = x

    Ch.__module__, Ch.__qualname__ = "chumpy.ch", "Ch"
    sys.modules["chumpy.ch"].Ch = Ch  # type: ignore[attr-defined]
    arrays = _flame_arrays()
    content = {"v_template": Ch(arrays["v_template"]), "shapedirs": Ch(arrays["shapedirs"]), "f": arrays["f"]}
    path = tmp_path / "generic_model.pkl"
    path.write_bytes(pickle.dumps(content, protocol=2))
    for name in ("chumpy", "chumpy.ch"):
        monkeypatch.delitem(sys.modules, name)
    return path


@pytest.fixture
def embedding(tmp_path: Path) -> Path:
    """Make landmark_embedding.npy: a pickled dictionary in an array."""
    chance = np.random.default_rng(1)
    content = {
        "full_lmk_faces_idx": chance.integers(0, flame.TRIANGLES, (1, 68)),
        "full_lmk_bary_coords": np.tile([0.2, 0.7, 0.1], (1, 68, 1)),
    }
    path = tmp_path / "landmark_embedding.npy"
    np.save(path, np.array(content, dtype=object), allow_pickle=True)
    return path


def test_flame_is_read_out_of_its_pickle_without_chumpy(flame_pickle: Path, embedding: Path) -> None:
    model = flame.load(flame_pickle, embedding)
    arrays = _flame_arrays()
    np.testing.assert_allclose(model.mean, 10 * (arrays["v_template"] - arrays["v_template"].mean(0)), atol=1e-5)
    np.testing.assert_allclose(model.identity[3], 10 * arrays["shapedirs"][:, :, 3], rtol=1e-5)
    np.testing.assert_allclose(model.expression[5], 10 * arrays["shapedirs"][:, :, 305], rtol=1e-5)
    a, b, c = (model.mean[model.triangles[:, k]].astype(float) for k in range(3))
    assert np.einsum("ij,ij->", a, np.cross(b, c)) > 0
    assert len(model.landmarks) == 68


def test_flame_from_an_npz_and_plain_indices_is_the_same(tmp_path: Path, flame_pickle: Path, embedding: Path) -> None:
    arrays = _flame_arrays()
    np.savez(tmp_path / "flame.npz", **arrays)
    np.save(tmp_path / "indices.npy", np.arange(68))
    one, other = flame.load(flame_pickle, embedding), flame.load(tmp_path / "flame.npz", tmp_path / "indices.npy")
    assert one.fingerprint == other.fingerprint
    np.testing.assert_array_equal(other.landmarks, np.arange(68))


def test_code_in_flames_pickle_is_never_run(tmp_path: Path, embedding: Path) -> None:
    class Malicious:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return (Path.touch, (tmp_path / "executed",))

    path = tmp_path / "generic_model.pkl"
    path.write_bytes(pickle.dumps({"v_template": Malicious(), "shapedirs": 1, "f": 1}, protocol=2))
    with pytest.raises(ExportError, match="is refused"):
        flame.load(path, embedding)
    np.save(tmp_path / "bad.npy", np.array({"full_lmk_faces_idx": Malicious()}, dtype=object), allow_pickle=True)
    np.savez(tmp_path / "flame.npz", **_flame_arrays())
    with pytest.raises(ExportError, match="is refused"):
        flame.load(tmp_path / "flame.npz", tmp_path / "bad.npy")
    assert not (tmp_path / "executed").exists()


def test_the_command_writes_a_face_model_that_loads_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layouts.save_bfm(tmp_path / "BFM_model_front.mat")
    out = tmp_path / "bfm.npz"
    assert main(["bfm", str(tmp_path), "-o", str(out)]) == 0
    assert "35709 vertices, 70789 triangles" in capsys.readouterr().out
    assert FaceModel.load(out).name == "bfm09-front"
    assert main(["bfm", str(tmp_path), "-o", str(out)]) == 2
    assert "never overwritten" in capsys.readouterr().err
