"""Face model 2: the whole head in one documented, versioned ``.npz`` file.

Coefficients, units and frame are those of face model 1 (`networks.face_model`): decimetres, x to the viewer's right
(the model's left), y up, z out of the face; a shape is ``mean + identity . a + expression . b``. Its size is that of
the statistics it came from: one photograph does not measure how large a head is.

The surface is kept as quads, for formats that have them, over *places*: a place is a vertex with one texture
coordinate, as OBJ and glTF want it. Vertices on a seam have several places and stay one vertex, so that shapes and
normals know nothing of seams.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from networks.face_model import ALBEDO, EXPRESSION, IDENTITY, LANDMARKS, FaceModel, FaceModelError, read_arrays

FORMAT, VERSION = "face3d head model", 2
TEACHER_POINTS = 478  # of MediaPipe Face Mesh with irises

# What one level of a stored mode means. Two micrometres: eighty rounded modes at N(0, 1) are off by 5 micrometres
# (standard deviation), a tenth of what a morph target may be off. A twentieth of a colour level: 0.13 levels.
SHAPE_STEP_DM = 2e-5
ALBEDO_STEP = 0.05
_QUANTISED = {
    "identity": SHAPE_STEP_DM,
    "expression": SHAPE_STEP_DM,
    "tongue_out": SHAPE_STEP_DM,
    "albedo": ALBEDO_STEP,
}

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]


@dataclass(frozen=True)
class HeadModel:
    """Arrays of a head of N vertices, M >= N places and F faces in K parts.

    Attributes:
        mean: (N, 3) float32, decimetres.
        identity: (80, N, 3) float32, decimetres per sigma.
        expression: (64, N, 3) float32, decimetres at full expression; the last seven are empty.
        tongue_out: (N, 3) float32, decimetres: the one ARKit shape that is no combination of the others.
        albedo_mean: (N, 3) float32, sRGB 0..255.
        albedo: (80, N, 3) float32, 0..255 per sigma; zero outside of the skin.
        faces: (F, 4) int32 places, counter-clockwise seen from outside; -1 in the last column of a triangle.
        part: (F,) uint8, index into ``part_names``; faces of a part stand together.
        uv: (M, 2) float32, 0..1, v up; each material has a square of its own.
        vertex: (M,) int32, the vertex of a place.
        landmarks: (68,) int32 vertices in iBUG-68 order.
        mirror: (N,) int32, the vertex on the other side; its own inverse.
        eye_poles: (2, 2) int32 vertices: front and back pole of the left (+x) and the right eyeball.
        eye_centre: share of the way from the back pole to the front pole at which an eyeball turns.
        eye_radius: (A, T) float32, the left eyeball's radius in distances of its poles, by azimuth and tilt
            (`networks.head_eyes`); the right one is its mirror image.
        iris_radius: in ``uv``, of the iris around the middle of its square.
        lids: (2, L) int32, vertices of the outer skin of the lids over the left and the right eye.
        teacher_vertices: (478, 3) int32 and teacher_weights (478, 3) float32: where MediaPipe's points lie.
        teacher_scatter: (478,) float32, millimetres by which a point wanders over renders; infinite where unseen.
        source_identity: (80, 100) float32; the source's hundred modes times its rows are the eighty here.
        expression_names: 64 names, ``""`` where a mode is empty.
        part_names, part_materials: K names each.
        name, licence, source: free text, kept with every export.
    """

    mean: F32
    identity: F32
    expression: F32
    tongue_out: F32
    albedo_mean: F32
    albedo: F32
    faces: I32
    part: npt.NDArray[np.uint8]
    uv: F32
    vertex: I32
    landmarks: I32
    mirror: I32
    eye_poles: I32
    eye_centre: float
    eye_radius: F32
    iris_radius: float
    lids: I32
    teacher_vertices: I32
    teacher_weights: F32
    teacher_scatter: F32
    source_identity: F32
    expression_names: tuple[str, ...]
    part_names: tuple[str, ...]
    part_materials: tuple[str, ...]
    name: str = "unnamed"
    licence: str = "unknown"
    source: str = "unknown"

    def __post_init__(self) -> None:
        n, m, f, k = len(self.mean), len(self.uv), len(self.faces), len(self.part_names)
        expected = {
            "mean": (n, 3),
            "identity": (IDENTITY, n, 3),
            "expression": (EXPRESSION, n, 3),
            "tongue_out": (n, 3),
            "albedo_mean": (n, 3),
            "albedo": (ALBEDO, n, 3),
            "faces": (f, 4),
            "part": (f,),
            "uv": (m, 2),
            "vertex": (m,),
            "landmarks": (LANDMARKS,),
            "mirror": (n,),
            "eye_poles": (2, 2),
            "eye_radius": self.eye_radius.shape[:2],
            "lids": (2, self.lids.shape[-1]),
            "teacher_vertices": (TEACHER_POINTS, 3),
            "teacher_weights": (TEACHER_POINTS, 3),
            "teacher_scatter": (TEACHER_POINTS,),
            "source_identity": (IDENTITY, 100),
        }
        for field, shape in expected.items():
            actual = getattr(self, field).shape
            if actual != shape:
                raise FaceModelError(f"head model: '{field}' has shape {actual}, expected {shape} for {n} vertices.")
        limits = {
            "faces": (-1, m),
            "vertex": (0, n),
            "landmarks": (0, n),
            "mirror": (0, n),
            "eye_poles": (0, n),
            "lids": (0, n),
        }
        for field, (low, high) in {**limits, "part": (0, k), "teacher_vertices": (0, n)}.items():
            values = getattr(self, field)
            if values.size and (int(values.min()) < low or int(values.max()) >= high):
                raise FaceModelError(f"head model: '{field}' points outside {low}..{high - 1}.")
        if self.faces.size and int(self.faces[:, :3].min()) < 0:
            raise FaceModelError("head model: 'faces' has a corner of -1 that is not the fourth.")
        if len(self.part_materials) != k or len(self.expression_names) != EXPRESSION:
            raise FaceModelError("head model: parts need a material each, expressions 64 names.")
        for field in ("mean", "identity", "expression", "tongue_out", "albedo_mean", "albedo", "uv", "teacher_weights"):
            if not np.isfinite(getattr(self, field)).all():
                raise FaceModelError(f"head model: '{field}' holds NaN or infinity.")

    @property
    def fingerprint(self) -> int:
        """Signed 64-bit number that identifies topology and mean shape, as of `networks.face_model.FaceModel`."""
        digest = hashlib.sha256()
        for array in (self.mean, self.faces, self.uv):
            digest.update(np.ascontiguousarray(array).tobytes())
        return int.from_bytes(digest.digest()[:8], "little", signed=True)

    def faces_of(self, *names: str) -> npt.NDArray[np.int64]:
        """Indices of the faces of the named parts.

        Raises:
            KeyError: a part that the model does not have.
        """
        unknown = set(names) - set(self.part_names)
        if unknown:
            raise KeyError(f"the head has no part {', '.join(sorted(unknown))}; it has {', '.join(self.part_names)}")
        return np.flatnonzero(np.isin(self.part, [self.part_names.index(name) for name in names]))

    def vertices_of(self, *names: str) -> npt.NDArray[np.int64]:
        """The vertices of the named parts, ascending; see `faces_of`."""
        corners = self.faces[self.faces_of(*names)]
        used: npt.NDArray[np.int64] = np.unique(self.vertex[corners[corners >= 0]]).astype(np.int64)
        return used

    @property
    def skin(self) -> tuple[str, ...]:
        """Names of the parts that are skin, sockets included: one closed sheet but for the neck's rim."""
        return tuple(n for n, m in zip(self.part_names, self.part_materials, strict=True) if m == "skin")

    def triangles(self, *names: str) -> I32:
        """(T, 3) places of the named parts' triangles (all parts without a name), quads split as `split_quads` does."""
        chosen = self.faces[self.faces_of(*names)] if names else self.faces
        return split_quads(chosen, self.mean[self.vertex], self.mirror, self.vertex)

    def shape(self, identity: F32, expression: F32) -> F32:
        """(80,) and (64,) coefficients -> (N, 3) decimetres, head frame."""
        moved: F32 = self.mean + np.tensordot(identity, self.identity, 1)
        return moved + np.tensordot(expression, self.expression, 1)

    def eye(self, vertices: F32, side: int) -> tuple[F32, F32]:
        """Centre (3,) and unit viewing axis (3,) of an eyeball of a shape (N, 3).

        Args:
            vertices: the shape.
            side: 0 the left eye (+x), 1 the right one.
        """
        front, back = vertices[self.eye_poles[side]]
        axis = front - back
        return back + self.eye_centre * axis, axis / np.linalg.norm(axis)

    def save(self, path: Path) -> None:
        """Write the ``.npz``: modes as int16 times a step (`SHAPE_STEP_DM`, `ALBEDO_STEP`), the rest as it is.

        Raises:
            FaceModelError: a mode moves a vertex further than int16 holds (65 mm).
        """
        arrays: dict[str, Any] = {
            "format": np.array(FORMAT),
            "version": np.array(VERSION),
            "units": np.array("decimetre"),
        }
        for field in (f.name for f in fields(self)):
            value = getattr(self, field)
            if field in _QUANTISED:
                arrays[f"{field}_step"] = np.array(_QUANTISED[field])
                value = np.round(value / _QUANTISED[field])
                if np.abs(value).max() > np.iinfo(np.int16).max:
                    raise FaceModelError(f"head model: '{field}' holds a step too long for 16 bits.")
                value = value.astype(np.int16)
            arrays[field] = np.asarray(value)
        np.savez_compressed(path, **arrays)

    @classmethod
    def load(cls, path: Path) -> HeadModel:
        """Read a head model; never unpickles.

        Raises:
            FaceModelError: if the file is missing, unreadable, of another format or of another version.
        """
        data = read_arrays(path)
        if str(data.get("format")) != FORMAT:
            raise FaceModelError(f"head model: {path} is not a head model (face model 1 has no whole head).")
        version = int(data.get("version", 0))
        if version != VERSION:
            raise FaceModelError(f"head model: {path} is of version {version}, this program reads {VERSION}.")
        names = [f.name for f in fields(cls)]
        missing = [n for n in names if n not in data] + [s for s in _STEPS if s not in data]
        if missing:
            raise FaceModelError(f"head model: {path} lacks {', '.join(missing)}.")
        values: dict[str, Any] = {}
        for name in names:
            value: Any = data[name]
            if name in _QUANTISED:
                value = value.astype(np.float32) * np.float32(data[f"{name}_step"])
            elif name in ("expression_names", "part_names", "part_materials"):
                value = tuple(str(x) for x in value)
            elif name in ("name", "licence", "source"):
                value = str(value)
            elif name in ("eye_centre", "iris_radius"):
                value = float(value)
            values[name] = value
        return cls(**values)


AnyFaceModel = FaceModel | HeadModel


def load_face_model(path: Path) -> AnyFaceModel:
    """Read a face model of either version.

    Raises:
        FaceModelError: the file is missing, unreadable, or neither.
    """
    return HeadModel.load(path) if "format" in read_arrays(path) else FaceModel.load(path)


_STEPS = tuple(f"{field}_step" for field in _QUANTISED)


def turn_quads(faces: I32, points: F32, mirror: I32, vertex: I32) -> I32:
    """Turn quads so that their shorter diagonal joins their first and third corner, alike on both sides of the head.

    Args:
        faces: (F, 4) places, -1 in the last column of a triangle.
        points: (M, 3), where the places lie in the mean head.
        mirror: (N,) the vertex on the other side.
        vertex: (M,) the vertex of each place.

    Returns:
        (F, 4): the same faces; triangles as they are.
    """
    turned: I32 = np.where(_swapped(faces, points, mirror, vertex)[:, None], np.roll(faces, -1, axis=1), faces)
    return turned


def split_quads(faces: I32, points: F32, mirror: I32, vertex: I32) -> I32:
    """Split quads along the shorter diagonal; arguments as of `turn_quads`.

    Returns:
        (T, 3): the faces' first triangles in their order, then the quads' second ones.
    """
    quads = faces[:, 3] >= 0
    swap = _swapped(faces, points, mirror, vertex)
    head = np.where(swap[:, None], faces[:, [0, 1, 3]], faces[:, [0, 1, 2]])
    tail = np.where(swap[:, None], faces[:, [1, 2, 3]], faces[:, [0, 2, 3]])
    triangles: I32 = np.concatenate([head, tail[quads]]).astype(np.int32)
    return triangles


def _swapped(faces: I32, points: F32, mirror: I32, vertex: I32) -> npt.NDArray[np.bool_]:
    """Which faces are quads whose diagonal from the second to the fourth corner is the one to split along."""
    a, b, c, d = faces.T
    first = np.linalg.norm(points[a] - points[c], axis=1)
    second = np.linalg.norm(points[b] - points[d], axis=1)
    # Both sides of the head must choose alike, and equal diagonals by a rule that a mirrored quad shares: the diagonal
    # at the vertex that comes first, counted as the smaller number of a mirrored pair.
    rank = np.minimum(np.arange(len(mirror)), mirror)[vertex]
    tie = np.abs(first - second) < 1e-4 * (first + second)
    wanted = np.where(tie, np.minimum(rank[b], rank[d]) < np.minimum(rank[a], rank[c]), second < first)
    swapped: npt.NDArray[np.bool_] = wanted & (faces[:, 3] >= 0)
    return swapped
