"""Write what the Python models know of the face model: its topology, its chart, its expressions."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from export.context import ExportContext
from export.errors import ExportError
from export.stages.fusion_region import region_arrays
from export.stages.write import staged
from networks.certainty import digest
from networks.chart import Chart
from networks.face_model import FaceModel
from networks.head_model import SHAPE_STEP_DM, AnyFaceModel, HeadModel, turn_quads
from networks.person_correction import FILE as PERSON_CORRECTION
from networks.person_correction import PersonCorrection
from networks.texture import TABLE as CHART_TEXELS

# The weights beside which the person's correction lies.
REGRESSOR = Path(__file__).resolve().parents[2] / "weights" / "regressor.safetensors"
# The materials of a head in the order of a mesh's primitives.
MATERIALS = ("skin", "eye_left", "eye_right", "teeth", "mouth", "lashes")
EYE_FIELDS = ("eye_poles", "eye_centre", "eye_radius", "iris_radius", "lids")
# Inner lips in iBUG-68: three above and the three below them.
INNER_LIPS = ((61, 62, 63), (67, 66, 65))
# ICT-FaceKit's "narrow face", which an edge loop of its artists bounds: the first vertices of the head.
NARROW_FACE = 6706
# Heights and depths between which gums begin to belong to the upper jaw, and where its gums end above the front teeth.
UPPER_GUMS_DM, FRONT_GUMS_DM, GUM_LINE_DM = (-0.45, -0.41), (-0.50, -0.25), (-0.33, -0.30)
# What `postprocess` reads, by number: another one is written where a version folder has it.
LAYOUT = 7
# Side of the tables from texels to vertices: that of the texture network's.
TABLE = 256
# Decimetres around the features of a face that have no relief of skin: lids, lips, brows, nostrils; and pixels of a
# decimetre in the drawing of them.
LIDS_DM, LIPS_DM, BROWS_DM, NOSTRILS_DM, DRAWN = 0.06, 0.03, 0.09, 0.06, 200
# Side of the maps of linings; distances from the rim within which lips and lids pass into them.
LINING, LINING_DM = 1024, (0.01, 0.06)


def write_face_model_files(context: ExportContext) -> list[Path]:
    """Write what the Python models read of the face model, each file into its model's version folder.

    Returns:
        the files; none for a model without a version.

    Raises:
        ExportError: a version holds a file of another face model.
    """
    written = (_write(context, *row) for row in FACE_MODEL_FILES)
    return [path for path in written if path is not None]


def _write(
    context: ExportContext, name: str, what: str, arrays: Callable[[AnyFaceModel], dict[str, Any]]
) -> Path | None:
    """Write a file of arrays of the face model into a Python model's version folder.

    The version folder of a Python model is its code. Where the newest one has no such file, or the checkout's own face
    model changed, the file is written there; for another face model a new version is made with a copy of the code.
    """
    model, options = context.face_model, context.options
    folder = options.repository / name
    versions = sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit()) if folder.is_dir() else []
    if not versions:
        return None
    newest = folder / str(versions[-1])
    target = folder / str(options.version) if options.version is not None else newest
    path = target / f"{what}.npz"
    if path.is_file():
        with np.load(path, allow_pickle=False) as existing:
            same = int(existing["fingerprint"][0]) == model.fingerprint
            layout = int(existing["layout"]) if "layout" in existing.files else 0
            beside = str(existing["beside"]) if "beside" in existing.files else ""
        current = layout == LAYOUT and beside == _beside(what)
        if same and (current or options.version is not None):
            return path
        if not same and (options.version is not None or options.face_model is not None):
            raise ExportError(
                f"Version {target.name} of the model '{name}' holds the {what} of another face model; a version "
                "is never overwritten: choose another number with --version."
            )
    if options.dry_run:
        context.say(f"{what}: would write {path}")
        return path
    if target.is_dir():
        _save(path, arrays(model))
    else:
        with staged(target) as staging:
            for source in newest.glob("*.py"):
                shutil.copy2(source, staging / source.name)
            _save(staging / path.name, arrays(model))
    context.say(f"{what}: wrote {path} ({len(model.mean)} vertices)")
    return path


def _beside(what: str) -> str:
    """Digest of the file that arrays are made of beside the face model; empty where there is none."""
    file = REGRESSOR.with_name(PERSON_CORRECTION)
    return digest(file) if what == "chart" and file.is_file() else ""


def _save(path: Path, arrays: dict[str, Any]) -> None:
    temporary = path.with_name(f".{path.name}")
    np.savez_compressed(temporary, **arrays, layout=np.array(LAYOUT), beside=np.array(_beside(path.stem)))
    temporary.rename(path)


def expressions_of(model: AnyFaceModel) -> dict[str, Any]:
    """What `steady` reads (model.py of its version folder): name -> array."""
    names = model.expression_names if isinstance(model, HeadModel) else ("",) * len(model.expression)
    return {
        "expression_names": np.array(names),
        "lip_gaps": lip_gaps(model) if isinstance(model, HeadModel) else np.zeros(0, np.float32),
        "fingerprint": np.array([model.fingerprint], np.int64),
    }


def lip_gaps(model: HeadModel) -> npt.NDArray[np.float32]:
    """Height in decimetres between the inner lips of the mean face and of each mode of identity and expression."""
    height = np.concatenate([model.mean[None], model.identity, model.expression])[..., 1]
    upper, lower = (model.landmarks[list(rows)] for rows in INNER_LIPS)
    return np.asarray((height[:, upper] - height[:, lower]).mean(1), np.float32)


def chart_of(model: AnyFaceModel) -> dict[str, Any]:
    """What `merge` reads (chart.py of its version folder): name -> array."""
    chart = Chart.of(model, CHART_TEXELS)
    return {
        "skin": chart.skin.astype(np.int32),
        "triangles": chart.triangles.astype(np.int32),
        "corners": chart.corners.astype(np.int32),
        "bary": chart.weights,
        "core": chart.core,
        "landmarks": model.landmarks.astype(np.int32),
        "vertices": np.array([len(model.mean)]),
        "fingerprint": np.array([model.fingerprint], np.int64),
        **_person_correction(model),
    }


def _person_correction(model: AnyFaceModel) -> dict[str, Any]:
    """What several photographs say together, with the modes (80, N, 3) that it moves; nothing for other face models."""
    found = PersonCorrection.beside(REGRESSOR)
    if found is None or found.face_model != model.fingerprint:
        return {}
    return {
        "person_matrix": found.matrix,
        "person_offset": found.offset,
        "person_embedder": np.array([found.embedder], np.int64),
        "modes": np.rint(model.identity / SHAPE_STEP_DM).astype(np.int16),
        "modes_step": np.array([SHAPE_STEP_DM], np.float32),
    }


def arrays_of(model: AnyFaceModel) -> dict[str, Any]:
    """What `postprocess` reads (surface.py and head.py of its version folder): name -> array."""
    own = _of_head(model) if isinstance(model, HeadModel) else _of_face(model)
    return {
        **own,
        **texels_of(model),
        "uv": model.uv,
        "landmarks": model.landmarks,
        "mean": model.mean.astype(np.float32),
        "fingerprint": np.array([model.fingerprint], np.int64),
        "name": np.array(model.name),
        "credit": np.array("" if model.source == "unknown" else f"Shape: {model.source}"),
    }


def _of_face(model: FaceModel) -> dict[str, Any]:
    """One material, all of whose triangles belong to the face."""
    count = len(model.triangles)
    return {
        "faces": np.column_stack([model.triangles, np.full(count, -1)]).astype(np.int32),
        "vertex": np.arange(len(model.mean), dtype=np.int32),
        "material": np.zeros(count, np.uint8),
        "materials": np.array(["skin"]),
        "in_face": np.ones(count, bool),
    }


def _of_head(model: HeadModel) -> dict[str, Any]:
    """Materials, what belongs to the face alone, and what postprocess moves: expressions, tongue, eyeballs."""
    materials = tuple(dict.fromkeys(name for name in MATERIALS if name in model.part_materials))
    material_of_part = np.array([materials.index(name) for name in model.part_materials], np.uint8)
    steps = {name: np.array(SHAPE_STEP_DM) for name in ("expression_step", "tongue_out_step")}
    return {
        "faces": turn_quads(model.faces, model.mean[model.vertex], model.mirror, model.vertex),
        "vertex": model.vertex,
        "material": material_of_part[model.part],
        "materials": np.array(materials),
        "in_face": face_alone(model),
        "expression": np.rint(model.expression / SHAPE_STEP_DM).astype(np.int16),
        "expression_names": np.array(model.expression_names),
        "tongue_out": np.rint(model.tongue_out / SHAPE_STEP_DM).astype(np.int16),
        **steps,
        "eye_left": model.vertices_of("eye_left").astype(np.int32),
        "eye_right": model.vertices_of("eye_right").astype(np.int32),
        "upper_jaw": upper_jaw(model),
        "gum_line": gum_line(model),
        "lining": lining(model),
        **{name: np.asarray(getattr(model, name)) for name in EYE_FIELDS},
    }


def texels_of(model: AnyFaceModel) -> dict[str, Any]:
    """Tables of the skin's texels, `TABLE` a side, row 0 at v = 1 (texels.py of postprocess): name -> array.

    ``texel_vertex`` int32 [t * t, 3] and ``texel_weight`` float32 [t * t, 3], the vertices around each texel and their
    barycentric weights; ``texel_albedo`` uint8 [t, t, 3], sRGB, the mean person's; ``texel_plain`` uint8 [t, t]:
    skin that is no lid, lip, brow, nostril, and no inside of mouth or socket.
    """
    chart = Chart.of(model, CHART_TEXELS)
    around = chart.skin[chart.corners]
    albedo = (chart.albedo[chart.corners] * chart.weights[..., None]).sum(1)
    place = (model.mean[around] * chart.weights[..., None]).sum(1)
    plain = plain_skin(place, model.mean[model.landmarks]).reshape(TABLE, TABLE) * ~chart.inside
    return {
        "texel_vertex": around.astype(np.int32),
        "texel_weight": chart.weights,
        "texel_albedo": np.rint(albedo.clip(0, 255)).astype(np.uint8).reshape(TABLE, TABLE, 3),
        "texel_plain": np.rint(plain * 255).astype(np.uint8),
    }


def plain_skin(place: npt.NDArray[Any], landmarks: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Say of points (n, 3) of a mean face whether they are plain skin, 0..1, by its landmarks (68, 3); decimetres.

    Lids, lips, brows and nostrils are drawn as seen from the front.
    """
    low = landmarks[:, :2].min(0) - 0.5
    width, height = ((np.ptp(landmarks[:, :2], axis=0) + 1.0) * DRAWN).astype(int)
    drawn: Any = np.zeros((height, width), np.uint8)
    pixels = np.rint((landmarks[:, :2] - low) * DRAWN).astype(np.int32)
    features = (
        (pixels[36:42], LIDS_DM, True),
        (pixels[42:48], LIDS_DM, True),
        (pixels[48:60], LIPS_DM, True),
        (pixels[17:22], BROWS_DM, False),
        (pixels[22:27], BROWS_DM, False),
        (pixels[31:36], NOSTRILS_DM, False),
    )
    for points, around, closed in features:
        cv2.polylines(drawn, [points], closed, (255.0,), int(2 * around * DRAWN))
        if closed:
            cv2.fillPoly(drawn, [points], (255.0,))
    drawn = cv2.GaussianBlur(drawn, (0, 0), 0.02 * DRAWN)
    across, up = ((place[:, :2] - low) * DRAWN).astype(np.float32).T.reshape(2, -1, TABLE)  # in rows: OpenCV's limit
    feature = cv2.remap(drawn, across, up, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT).ravel()
    front = place[:, 2] > landmarks[:, 2].min() - 0.2
    return np.asarray(1 - feature / 255.0 * front, np.float32)


def upper_jaw(model: HeadModel) -> npt.NDArray[np.float32]:
    """How firmly vertices (N,) hang on the upper jaw, 0..1: upper teeth, and upper gums."""
    held = np.zeros(len(model.mean), np.float32)
    gums = model.vertices_of("gums")
    y, z = model.mean[gums, 1], model.mean[gums, 2]
    held[gums] = smoothstep(y, *UPPER_GUMS_DM) * smoothstep(z, *FRONT_GUMS_DM)
    held[model.vertices_of("teeth_upper")] = 1
    return held


def gum_line(model: HeadModel) -> npt.NDArray[np.int32]:
    """Vertices of the gums above the upper front teeth's visible crowns."""
    gums = model.vertices_of("gums")
    x, y, z = model.mean[gums].T
    there = (np.abs(x) < 0.09) & (y > GUM_LINE_DM[0]) & (y < GUM_LINE_DM[1]) & (z > 0.31)
    return np.asarray(gums[there], np.int32)


def lining(model: HeadModel) -> npt.NDArray[np.uint8]:
    """Where a skin's texture shows the inside of the mouth or of the sockets of the eyes.

    Returns:
        (2, `LINING`, `LINING`) uint8, row 0 at v = 1: how far inside of mouth and of sockets a texel lies.
    """
    outside = np.unique(model.vertices_of("face", "head_and_neck"))
    drawn = []
    for parts in (("mouth_socket",), ("eye_socket_left", "eye_socket_right")):
        inside = model.vertices_of(*parts)
        rim = model.mean[np.intersect1d(inside, outside)]
        depth = np.zeros(len(model.mean))
        depth[inside] = cKDTree(rim).query(model.mean[inside])[0]
        faces = model.faces[model.faces_of(*parts)]
        canvas = np.zeros((LINING, LINING), np.uint8)
        for face in faces:
            corners = face[face >= 0]
            level = smoothstep(depth[model.vertex[corners]].mean(), *LINING_DM)
            place = model.uv[corners] * [1, -1] + [0, 1]
            cv2.fillPoly(canvas, [np.rint(place * LINING * 16 - 8).astype(np.int32)], (float(255 * level),), shift=4)
        drawn.append(cv2.GaussianBlur(canvas, (0, 0), 1.0))
    return np.stack(drawn)


def smoothstep(x: npt.NDArray[Any], low: float, high: float) -> npt.NDArray[Any]:
    """0 below ``low``, 1 above ``high``, smooth between them."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t))


def face_alone(model: HeadModel) -> npt.NDArray[np.bool_]:
    """Which faces (F,) the mesh of the face alone has: the skin before ears and neck, and all that lies behind it."""
    corners = model.vertex[np.where(model.faces < 0, model.faces[:, :1], model.faces)]
    outer = np.isin(model.part, [model.part_names.index(name) for name in ("face", "head_and_neck")])
    return np.asarray(~outer | (corners < NARROW_FACE).all(axis=1))


FACE_MODEL_FILES: Final = (
    ("postprocess", "topology", arrays_of),
    ("fusion", "topology", region_arrays),
    ("merge", "chart", chart_of),
    ("steady", "expressions", expressions_of),
)
"""Model, name of its file, what the file holds."""
