"""Convert the Basel Face Model 2009, as cropped by Deep3DFaceRecon and ModelScope, to a face-model file.

Two sources: `BFM_model_front.mat`, or the original `01_MorphableModel.mat` with `Exp_Pca.bin` and the index files of
Deep3DFaceRecon. The formulas are those of Deep3DFaceRecon's `util/load_mats.py` (MIT): bases times their standard
deviations, micrometres / 1e5 = decimetres, and the mean moved to the centre of its vertices.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.io import loadmat

from export.errors import ExportError
from export.official.unwrap import cylindrical
from networks.face_model import FaceModel

VERTICES, TRIANGLES = 35_709, 70_789
SHAPE_VERTICES, EXPRESSION_VERTICES = 53_490, 53_215
IDENTITY, EXPRESSION, ALBEDO = 80, 64, 80
TO_DECIMETRES = 1e-5
LICENCE = "Basel Face Model 2009: research use under its own licence; not for redistribution"
FRONT = "BFM_model_front.mat"

Arrays = dict[str, NDArray[Any]]


def read_mat(path: Path, names: tuple[str, ...]) -> Arrays:
    """Read named arrays of a MATLAB file.

    Raises:
        ExportError: the file is missing or damaged, or lacks an array.
    """
    if not path.is_file():
        raise ExportError(f"There is no file {path}: give the path of the file you downloaded.")
    try:
        content = loadmat(path, variable_names=list(names))
    except Exception as error:  # scipy's readers have no common exception
        raise ExportError(f"{path} cannot be read as a MATLAB file ({error}): download it again.") from None
    missing = [name for name in names if name not in content]
    if missing:
        raise ExportError(f"{path} lacks {', '.join(missing)}: it is not the file that it is named after.")
    return {name: np.asarray(content[name]) for name in names}


def load(path: Path, uv: Path | None = None) -> FaceModel:
    """Load BFM from `BFM_model_front.mat`, or from a folder with it or with the original files.

    Args:
        path: the file or the folder.
        uv: `bfm_uvs2.npy` of ModelScope, [35709,2], v up; None: a cylindrical layout.

    Raises:
        ExportError: a file or array is missing, damaged or of another size.
    """
    if path.is_dir() and not (path / FRONT).is_file():
        return _face_model(_from_original(path), uv)
    file = path / FRONT if path.is_dir() else path
    names = ("meanshape", "idBase", "exBase", "meantex", "texBase", "tri", "keypoints")
    arrays = read_mat(file, names)
    return _face_model(arrays, uv, str(file.name))


def _face_model(arrays: Arrays, uv: Path | None, where: str = "the folder") -> FaceModel:
    expected = {
        "meanshape": (3 * VERTICES,),
        "meantex": (3 * VERTICES,),
        "idBase": (3 * VERTICES, IDENTITY),
        "exBase": (3 * VERTICES, EXPRESSION),
        "texBase": (3 * VERTICES, ALBEDO),
        "tri": (TRIANGLES, 3),
        "keypoints": (68,),
    }
    for name, shape in expected.items():
        array = np.squeeze(arrays[name])
        if array.shape != shape:
            raise ExportError(
                f"'{name}' of {where} has shape {array.shape}, not {shape}: it is not the face model of "
                f"{VERTICES} vertices and {TRIANGLES} triangles that the published checkpoints use."
            )
        arrays[name] = array
    mean = arrays["meanshape"].astype(np.float32).reshape(-1, 3)
    mean = mean - mean.mean(axis=0, dtype=np.float64).astype(np.float32)
    triangles = arrays["tri"].astype(np.int64) - 1
    model = {
        "mean": mean,
        "identity": _bases(arrays["idBase"]),
        "expression": _bases(arrays["exBase"]),
        "albedo_mean": arrays["meantex"].astype(np.float32).reshape(-1, 3),
        "albedo": _bases(arrays["texBase"]),
    }
    return FaceModel(
        **model,
        triangles=outward(mean, triangles),
        uv=_uv(uv) if uv is not None else cylindrical(mean),
        landmarks=(arrays["keypoints"].astype(np.int64) - 1).astype(np.int32),
        name="bfm09-front",
        licence=LICENCE,
        source=f"{where}, converted by face3d",
    )


def _bases(matrix: NDArray[Any]) -> NDArray[np.float32]:
    """Reshape bases (3N, K), x y z interleaved, to (K, N, 3)."""
    return np.ascontiguousarray(matrix.astype(np.float32).T).reshape(matrix.shape[1], -1, 3)


def outward(mean: NDArray[np.float32], triangles: NDArray[np.int64]) -> NDArray[np.int32]:
    """Orient triangles counter-clockwise seen from outside: most of an open face's area faces forward (+z)."""
    a, b, c = (mean[triangles[:, k]].astype(np.float64) for k in range(3))
    forward = np.cross(b - a, c - a)[:, 2].sum()
    return (triangles if forward >= 0 else triangles[:, ::-1]).astype(np.int32)


def _uv(path: Path) -> NDArray[np.float32]:
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ExportError(f"{path} cannot be read as an array ({error}).") from None
    if values.shape != (VERTICES, 2):
        raise ExportError(f"{path} has shape {values.shape}, not ({VERTICES}, 2): it is not the UV of this face model.")
    return np.asarray(values, np.float32)


def _from_original(folder: Path) -> Arrays:
    """Compute the arrays of `BFM_model_front.mat` from the original files."""
    shape = read_mat(folder / "01_MorphableModel.mat", ("shapePC", "shapeEV", "shapeMU", "texPC", "texEV", "texMU"))
    expression, deviation = _expression(folder)
    info = read_mat(folder / "facemodel_info.mat", ("tri", "keypoints"))
    in_expression = read_mat(folder / "BFM_front_idx.mat", ("idx",))["idx"].astype(np.int64).ravel() - 1
    trimmed = read_mat(folder / "BFM_exp_idx.mat", ("trimIndex",))["trimIndex"].astype(np.int64).ravel() - 1
    in_shape = trimmed[in_expression]

    def select(matrix: NDArray[Any], rows: NDArray[np.int64]) -> NDArray[np.float32]:
        by_vertex = matrix.reshape(-1, 3, matrix.shape[1] if matrix.ndim > 1 else 1)
        if rows.max() >= len(by_vertex):
            raise ExportError(f"An index file of {folder} points beyond the {len(by_vertex)} vertices of its model.")
        return np.asarray(by_vertex[rows].reshape(3 * len(rows), -1), np.float32)

    identity = shape["shapePC"][:, :IDENTITY] * shape["shapeEV"].reshape(1, -1)[:, :IDENTITY] * TO_DECIMETRES
    expression_basis = expression[:, :EXPRESSION] * deviation[None, :EXPRESSION] * TO_DECIMETRES
    albedo = shape["texPC"][:, :ALBEDO] * shape["texEV"].reshape(1, -1)[:, :ALBEDO]
    return {
        "meanshape": select(shape["shapeMU"].reshape(-1, 1) * TO_DECIMETRES, in_shape).ravel(),
        "meantex": select(shape["texMU"].reshape(-1, 1), in_shape).ravel(),
        "idBase": select(identity, in_shape),
        "exBase": select(expression_basis, in_expression),
        "texBase": select(albedo, in_shape),
        "tri": info["tri"],
        "keypoints": info["keypoints"],
    }


def _expression(folder: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Read the basis (3 * 53215, K) of `Exp_Pca.bin` and the standard deviations (K,) of `std_exp.txt`."""
    file, deviations = folder / "Exp_Pca.bin", folder / "std_exp.txt"
    for path in (file, deviations):
        if not path.is_file():
            raise ExportError(f"There is no file {path}: the expression basis belongs to the original files.")
    count = 3 * EXPRESSION_VERTICES
    raw = file.read_bytes()
    size = int(np.frombuffer(raw, "<i4", 1)[0]) if len(raw) >= 4 else 0
    if size < EXPRESSION or len(raw) != 4 + 4 * count * (size + 1):
        raise ExportError(
            f"{file} has {len(raw)} bytes, which is no expression basis of {EXPRESSION_VERTICES} vertices."
        )
    basis = np.frombuffer(raw, "<f4", size * count, 4 + 4 * count).reshape(size, count).T.astype(np.float64)
    try:
        deviation = np.loadtxt(deviations).ravel()
    except ValueError as error:
        raise ExportError(f"{deviations} holds no numbers ({error}).") from None
    if len(deviation) < EXPRESSION:
        raise ExportError(f"{deviations} holds {len(deviation)} standard deviations, fewer than {EXPRESSION}.")
    return basis, deviation[:size]
