"""Step 2, head model: ICT-FaceKit light's whole head, moved by the coefficients of face model 1.

The eighty identity modes of face model 1 are principal components of the source's hundred on the topology of the face
alone: hundred modes = U S V, eighty rows of S V. On the whole head the same eighty directions are the rows of U
transposed times the source's hundred modes, so that what was trained for face model 1 drives the head as it is.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from networks.face_model import EXPRESSION, IDENTITY, FaceModel
from networks.head_model import HeadModel, split_quads
from training import topology
from training.face_model import ORIGIN_CM, SOURCE
from training.head_albedo import carry
from training.head_eyes import SIDES, Eye, enlarge_iris, find, follow_lids, iris_radius, outer_lids, radius_table, rest
from training.head_motion import mend_expressions, tongue_out
from training.head_source import PART_MATERIALS, PART_NAMES, Source, read
from training.head_uv import skin_chart

Float = npt.NDArray[np.float64]
Int = npt.NDArray[np.int64]
CM_PER_DM = 10.0


def identity_rotation(faces: Path, shipped: FaceModel) -> Float:
    """The directions (80, 100) of face model 1's identity in the source's, with its signs.

    Args:
        faces: ``ict_facekit.npz``, which face model 1 was built from.
        shipped: face model 1.

    Raises:
        ValueError: the modes rebuilt here are not those of the file.
    """
    with np.load(faces, allow_pickle=False) as data:
        neutral, triangles = data["neutral"].astype(np.float64), data["faces_tri"].astype(np.int64)
        mesh = topology.build(
            neutral, triangles[(triangles < int(data["n_face"])).all(1)], data["landmarks68"].astype(np.int64)
        )
        modes = np.stack([(mesh.weights @ mode).ravel() for mode in data["identity"].astype(np.float64)]) / CM_PER_DM
    directions, sigma, components = np.linalg.svd(modes, full_matrices=False)
    rebuilt = sigma[:IDENTITY, None] * components[:IDENTITY]
    wanted = shipped.identity.reshape(IDENTITY, -1).astype(np.float64)
    signs = np.sign((rebuilt * wanted).sum(1))
    off = float(np.abs(signs[:, None] * rebuilt - wanted).max())
    if off > 1e-3:
        raise ValueError(f"the identity modes rebuilt from {faces} are {off * 100:.2f} mm off those of face model 1")
    return np.asarray((directions[:, :IDENTITY] * signs).T)


def places_of(source: Source) -> tuple[npt.NDArray[np.float32], Int, Int]:
    """Texture places: uv (M, 2), the vertex of each (M,), faces over places (F, 4).

    The skin gets a chart of its own, the rest keeps the source's layout.
    """
    skin = np.isin(source.part, [k for k, material in enumerate(PART_MATERIALS) if material == "skin"])
    chart = skin_chart(source, skin)
    corners = source.faces >= 0
    # Skin: the chart's places, found by face and vertex; the rest: each pair of a vertex and a source coordinate.
    pairs = np.stack([source.faces[~skin], source.faces_uv[~skin]], 2)[corners[~skin]]
    unique, inverse = np.unique(pairs, axis=0, return_inverse=True)
    places = source.uv[unique[:, 1]]
    on_eye = np.isin(unique[:, 0], source.vertices(*SIDES))
    places[on_eye] = enlarge_iris(places[on_eye])
    faces = np.full(source.faces.shape, -1)
    faces[skin] = chart.faces
    rest = np.full(source.faces[~skin].shape, -1)
    rest[corners[~skin]] = len(chart.uv) + inverse.ravel()
    faces[~skin] = rest
    uv = np.concatenate([chart.uv, places]).astype(np.float32)
    return uv, np.concatenate([chart.vertex, unique[:, 0]]), faces


def teacher_places(
    mean: Float, triangles: Int, old: FaceModel, found: Path
) -> tuple[Int, Float, npt.NDArray[np.float32]]:
    """Vertices (478, 3), weights (478, 3) and scatter (478,) of the teacher's points, carried from face model 1.

    Each point is projected onto the nearest triangle of the skin (the mean head's).
    """
    with np.load(found) as data:
        points, scatter = old.mean[data["vertex"]].astype(np.float64), data["scatter_mm"].astype(np.float32)
    corners = mean[triangles]
    near = cKDTree(corners.mean(1)).query(points, k=24)[1]
    chosen, weights = np.zeros(len(points), np.int64), np.zeros((len(points), 3))
    for k, point in enumerate(points):
        candidates = [(*_closest(point, corners[t]), t) for t in near[k]]
        _, weights[k], chosen[k] = min(candidates, key=lambda c: c[0])
    return triangles[chosen], weights, scatter


def _closest(point: Float, triangle: Float) -> tuple[float, Float]:
    """Distance from a point to a triangle (3, 3) and the barycentrics of its nearest place, clamped to the triangle."""
    edges = (triangle[1:] - triangle[0]).T
    b, c = np.linalg.lstsq(edges, point - triangle[0], rcond=None)[0]
    weights = np.clip(np.array([1 - b - c, b, c]), 0, None)
    weights /= weights.sum()
    return float(np.linalg.norm(weights @ triangle - point)), weights


def triangles_of(source: Source, *parts: str) -> Int:
    """(T, 3) vertices of the named parts' triangles."""
    faces = source.faces[np.isin(source.part, [PART_NAMES.index(part) for part in parts])].astype(np.int32)
    every = np.arange(len(source.neutral), dtype=np.int32)
    split = split_quads(faces, source.neutral.astype(np.float32), source.mirror.astype(np.int32), every)
    return split.astype(np.int64)


def eyes_of(source: Source) -> tuple[Eye, Eye]:
    """The source's eyes."""
    left, right = (triangles_of(source, side) for side in SIDES)
    return find(source.neutral, (left, right), triangles_of(source, "face"))


def build(whole: Path, faces: Path, shipped: FaceModel, teacher_map: Path) -> HeadModel:
    """Build the head model.

    Args:
        whole: ``ict_facekit_full.npz``.
        faces: ``ict_facekit.npz``.
        shipped: face model 1, with its albedo.
        teacher_map: ``teacher_map.npz`` of `training.teacher_map`.
    """
    source = read(whole)
    rotation = identity_rotation(faces, shipped)
    eyes = eyes_of(source)
    for eye in eyes:
        rest(eye, source.neutral)
        follow_lids(eye, source.neutral, source.identity)
    mean = (source.neutral - ORIGIN_CM) / CM_PER_DM
    expression = np.zeros((EXPRESSION, *mean.shape), np.float32)
    expression[: len(source.expression)] = mend_expressions(source, eyes) / CM_PER_DM
    uv, vertex, quads = places_of(source)
    return HeadModel(
        mean=mean.astype(np.float32),
        identity=(np.tensordot(rotation, source.identity, 1) / CM_PER_DM).astype(np.float32),
        expression=expression,
        tongue_out=tongue_out(source) / np.float32(CM_PER_DM),
        faces=quads.astype(np.int32),
        part=source.part.astype(np.uint8),
        uv=uv,
        vertex=vertex.astype(np.int32),
        landmarks=source.landmarks.astype(np.int32),
        mirror=source.mirror.astype(np.int32),
        **_eye_fields(source, eyes),
        **_fields_of_face_model_1(source, mean, shipped, teacher_map),
        source_identity=rotation.astype(np.float32),
        expression_names=(*source.expression_names, *[""] * (EXPRESSION - len(source.expression_names))),
        part_names=PART_NAMES,
        part_materials=PART_MATERIALS,
        name="face3d-2",
        licence="Apache-2.0; derived from MIT-licensed statistics, see NOTICE",
        source=SOURCE,
    )


def _eye_fields(source: Source, eyes: tuple[Eye, Eye]) -> dict[str, Any]:
    """The head model's fields that `networks.head_eyes` works with."""
    lids = outer_lids(eyes[0], source.neutral)
    return {
        "eye_poles": np.stack([eye.poles for eye in eyes]).astype(np.int32),
        "eye_centre": float(np.mean([eye.share for eye in eyes])),
        "eye_radius": radius_table(eyes[0], source.neutral).astype(np.float32),
        "iris_radius": iris_radius(),
        "lids": np.stack([lids, source.mirror[lids]]).astype(np.int32),
    }


def _fields_of_face_model_1(source: Source, mean: Float, shipped: FaceModel, teacher_map: Path) -> dict[str, Any]:
    """The head model's fields that are carried over: albedo and the teacher's points."""
    skin = [name for name, material in zip(PART_NAMES, PART_MATERIALS, strict=True) if material == "skin"]
    albedo_mean, albedo = carry(source, mean, triangles_of(source, *skin), shipped)
    vertices, weights, scatter = teacher_places(mean, triangles_of(source, "face"), shipped, teacher_map)
    return {
        "albedo_mean": albedo_mean.astype(np.float32),
        "albedo": albedo.astype(np.float32),
        "teacher_vertices": vertices.astype(np.int32),
        "teacher_weights": weights.astype(np.float32),
        "teacher_scatter": scatter,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("whole", type=Path, help="ict_facekit_full.npz")
    parser.add_argument("faces", type=Path, help="ict_facekit.npz")
    parser.add_argument("face_model", type=Path, help="face model 1, .npz")
    parser.add_argument("teacher_map", type=Path, help="teacher_map.npz")
    parser.add_argument("output", type=Path, help="head model, .npz")
    arguments = parser.parse_args()
    built = build(arguments.whole, arguments.faces, FaceModel.load(arguments.face_model), arguments.teacher_map)
    built.save(arguments.output)
    print(
        f"{len(built.mean)} vertices, {len(built.faces)} faces; fingerprint {built.fingerprint} -> {arguments.output}"
    )
