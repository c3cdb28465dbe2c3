"""Convert FLAME to a face-model file: from `generic_model.pkl` without running its code, or from an npz of its arrays.

FLAME is in metres, x right, y up, z forward; `shapedirs` holds 300 identity and 100 expression modes, already scaled.
Neck, jaw and eye joints are not used: the head is rigid.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.errors import ExportError
from export.official import pickled
from export.official.bfm import outward
from export.official.unwrap import cylindrical
from networks.face_model import ALBEDO, EXPRESSION, IDENTITY, LANDMARKS, FaceModel

VERTICES, TRIANGLES, MODES, IDENTITY_MODES = 5_023, 9_976, 400, 300
METRE = 10.0
LICENCE = "FLAME: its own licence; not for redistribution"


def load(path: Path, landmarks: Path) -> FaceModel:
    """Load FLAME from its pickle or an npz, with the 68 landmarks of `landmark_embedding.npy`.

    Args:
        path: `generic_model.pkl`, or an npz with `v_template`, `shapedirs` and `f` (`faces`).
        landmarks: the published embedding (triangles and barycentrics), or an npy of 68 vertex indices.

    Raises:
        ExportError: a file or array is missing, damaged or of another size, or the pickle holds other objects.
    """
    arrays = _arrays(path)
    for name, shape in (("v_template", (VERTICES, 3)), ("f", (TRIANGLES, 3))):
        if arrays[name].shape != shape:
            raise ExportError(f"'{name}' of {path} has shape {arrays[name].shape}, not {shape}: it is not FLAME.")
    modes = arrays["shapedirs"]
    if modes.shape[:2] != (VERTICES, 3) or modes.shape[2] < IDENTITY + EXPRESSION:
        raise ExportError(
            f"'shapedirs' of {path} has shape {modes.shape}, not ({VERTICES}, 3, {MODES}): it is not FLAME."
        )
    split = IDENTITY_MODES if modes.shape[2] >= IDENTITY_MODES + EXPRESSION else modes.shape[2] - EXPRESSION
    mean = arrays["v_template"].astype(np.float32) * METRE
    mean = mean - mean.mean(axis=0)
    triangles = arrays["f"].astype(np.int64)
    return FaceModel(
        mean=mean,
        identity=_bases(modes[:, :, :IDENTITY]),
        expression=_bases(modes[:, :, split : split + EXPRESSION]),
        albedo_mean=np.full((VERTICES, 3), 160.0, np.float32),
        albedo=np.zeros((ALBEDO, VERTICES, 3), np.float32),
        triangles=outward_closed(mean, triangles),
        uv=cylindrical(mean),
        landmarks=_landmarks(landmarks, triangles),
        name="flame",
        licence=LICENCE,
        source=f"{path.name}, converted by face3d",
    )


def outward_closed(mean: NDArray[np.float32], triangles: NDArray[np.int64]) -> NDArray[np.int32]:
    """Orient triangles counter-clockwise seen from outside: the enclosed volume is positive."""
    a, b, c = (mean[triangles[:, k]].astype(np.float64) for k in range(3))
    volume = np.einsum("ij,ij->", a, np.cross(b, c))
    if abs(volume) < 1e-9:
        return outward(mean, triangles)
    return (triangles if volume > 0 else triangles[:, ::-1]).astype(np.int32)


def _bases(modes: NDArray[Any]) -> NDArray[np.float32]:
    """Convert bases (N, 3, K) in metres to (K, N, 3) in decimetres."""
    return np.ascontiguousarray(modes.astype(np.float32).transpose(2, 0, 1)) * np.float32(METRE)


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    if path.suffix == ".npz":
        try:
            with np.load(path, allow_pickle=False) as archive:
                content: dict[str, Any] = {name: archive[name] for name in archive.files}
        except (OSError, ValueError, EOFError) as error:
            raise ExportError(f"{path} cannot be read as .npz ({error}): download it again.") from None
    else:
        loaded = pickled.load(path)
        if not isinstance(loaded, dict):
            raise ExportError(f"{path} does not hold FLAME's dictionary of arrays.")
        content = loaded
    if "f" not in content and "faces" in content:
        content["f"] = content["faces"]
    missing = [name for name in ("v_template", "shapedirs", "f") if name not in content]
    if missing:
        raise ExportError(f"{path} lacks {', '.join(missing)}: it is not FLAME.")
    return {name: pickled.array(content[name], name) for name in ("v_template", "shapedirs", "f")}


def _landmarks(path: Path, triangles: NDArray[np.int64]) -> NDArray[np.int32]:
    """Return 68 vertex indices: those of the file, or the corner with the largest weight of each embedded point."""
    content = _landmark_file(path)
    if isinstance(content, dict):
        try:
            faces = np.asarray(content["full_lmk_faces_idx"]).reshape(-1).astype(np.int64)
            weights = np.asarray(content["full_lmk_bary_coords"]).reshape(-1, 3)
        except KeyError as error:
            raise ExportError(f"{path} lacks {error}: it is not FLAME's landmark embedding.") from None
        if len(faces) != LANDMARKS or len(weights) != LANDMARKS or faces.max() >= len(triangles) or faces.min() < 0:
            raise ExportError(f"{path} does not embed {LANDMARKS} landmarks in {len(triangles)} triangles.")
        indices = triangles[faces, weights.argmax(axis=1)]
    else:
        indices = np.asarray(content).reshape(-1)
        if (
            len(indices) != LANDMARKS
            or indices.dtype.kind not in "iu"
            or not 0 <= indices.min() <= indices.max() < VERTICES
        ):
            raise ExportError(f"{path} does not hold {LANDMARKS} indices of FLAME's vertices.")
    return np.asarray(indices, np.int32)


def _landmark_file(path: Path) -> Any:
    """Read an npy file; a pickle inside is read without running its code."""
    try:
        return np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise ExportError(f"There is no file {path}: FLAME's 68 landmarks come in landmark_embedding.npy.") from None
    except (OSError, ValueError, EOFError):
        pass
    try:
        with path.open("rb") as stream:
            version = np.lib.format.read_magic(stream)
            if version == (1, 0):
                np.lib.format.read_array_header_1_0(stream)
            else:
                np.lib.format.read_array_header_2_0(stream)
            rest = stream.read()
    except (OSError, ValueError) as error:
        raise ExportError(f"{path} cannot be read as .npy ({error}).") from None
    value = pickled.load_bytes(rest, path)
    return value.item() if isinstance(value, np.ndarray) and value.dtype == object and value.shape == () else value
