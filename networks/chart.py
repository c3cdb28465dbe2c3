"""The UV chart of a model's skin, as the tables that the texture network computes with.

Which triangle lies under a texel never changes, so that neither sampling nor visibility needs a rasteriser.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from networks.face_model import FaceModel
from networks.head_model import AnyFaceModel, HeadModel
from networks.uv_table import locate

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]

EYEBALLS = ("eye_left", "eye_right")


@dataclass(frozen=True)
class Chart:
    """Tables of T x T texels for a model of N vertices.

    Attributes:
        skin: (S,) int64, the vertices of the chart, ascending; what follows counts in them.
        covers: (C,) int64, vertices of surfaces without a place in the chart that hide skin: the eyeballs.
        triangles: (F, 3) int64, of the skin.
        corners: (T * T, 3) int64, the vertices around each texel, by rows, row 0 at v = 1.
        weights: (T * T, 3) float32, their barycentric weights.
        inside: (T, T) bool, texels inside the head (mouth and eye sockets), which no photograph shows rightly.
        albedo: (S, 3) float32, the mean albedo, sRGB 0..255.
        normals: (S, 3) float32, unit normals of the mean head.
        core: (T, T) float32, 0..1: the middle of the face, whose skin says what this person's skin looks like.
        features: (T, T) float32, 0..1: brows, eyes, nose and mouth, whose colours are not the skin's.
        chin: (T, T) float32, 0..1: mouth and chin, where hair is a beard's.
        beard: (T, T) float32, 0..1: where hair belongs to the face on a person whose chin has a beard. Brows and lashes
            count as skin for the parser.
        back: (T, T) float32, 0..1: near the seam at the back of the head, where both borders of the chart meet.
        plain: (T, T) float32, 0..1: scalp, neck and sides of the head, whose skin is paler than the cheeks.
    """

    skin: I64
    covers: I64
    triangles: I64
    corners: I64
    weights: F32
    inside: npt.NDArray[np.bool_]
    albedo: F32
    normals: F32
    core: F32
    features: F32
    chin: F32
    beard: F32
    back: F32
    plain: F32

    @property
    def side(self) -> int:
        """Texels a side of the tables, T."""
        return len(self.inside)

    @classmethod
    def of(cls, model: AnyFaceModel, side: int) -> Chart:
        """Make the tables of a face or of a head."""
        return _of_head(model, side) if isinstance(model, HeadModel) else _of_face(model, side)


def _of_face(model: FaceModel, side: int) -> Chart:
    """A face without eyeballs and sockets; nothing is known of where its chin is, so that it keeps all hair."""
    triangles = model.triangles.astype(np.int64)
    index, weights = locate(_points(side), model.uv.astype(np.float64), triangles)
    everywhere = np.ones((side, side), np.float32)
    return Chart(
        skin=np.arange(len(model.mean)),
        covers=np.zeros(0, np.int64),
        triangles=triangles,
        corners=triangles[index],
        weights=weights.astype(np.float32),
        inside=np.zeros((side, side), bool),
        albedo=model.albedo_mean,
        normals=_normals(model.mean, triangles),
        core=everywhere,
        features=everywhere,
        chin=everywhere,
        beard=everywhere,
        back=np.zeros_like(everywhere),
        plain=np.zeros_like(everywhere),
    )


def _of_head(model: HeadModel, side: int) -> Chart:
    places = model.triangles(*model.skin)
    triangles = model.vertex[places].astype(np.int64)
    index, weights = locate(_points(side), model.uv.astype(np.float64), places.astype(np.int64))
    corners = triangles[index]
    skin = model.vertices_of(*model.skin)
    row = np.full(len(model.mean), -1, np.int64)
    row[skin] = np.arange(len(skin))
    sockets = [name for name in model.skin if name.endswith(("_left", "_right")) or name.startswith("mouth")]
    inner = np.zeros(len(model.mean), bool)
    inner[model.vertices_of(*sockets)] = True
    place = (model.mean[corners] * weights[..., None]).sum(1)
    return Chart(
        skin=skin,
        covers=model.vertices_of(*EYEBALLS),
        triangles=row[triangles],
        corners=row[corners],
        weights=weights.astype(np.float32),
        inside=inner[corners].all(1).reshape(side, side),
        albedo=model.albedo_mean[skin],
        normals=_normals(model.mean[skin], row[triangles]),
        **{name: value.reshape(side, side) for name, value in _regions(place).items()},
    )


def _normals(vertices: F32, triangles: I64) -> F32:
    """Unit normals (S, 3) of vertices (S, 3), weighted by the areas of the triangles around each."""
    a, b, c = (vertices[corner].astype(np.float64) for corner in triangles.T)
    normals = np.zeros((len(vertices), 3))
    for corner in triangles.T:
        np.add.at(normals, corner, np.cross(b - a, c - a))
    lengths = np.linalg.norm(normals, axis=1, keepdims=True)
    return np.asarray(normals / (lengths + 1e-12), np.float32)


def _regions(place: npt.NDArray[np.floating[Any]]) -> dict[str, F32]:
    """Regions of the mean head by where its texels (n, 3) lie, decimetres; see `Chart`.

    The numbers are read off the landmarks of the mean head: brows from 0.46 in height, corners of the mouth at 0.25 to
    the sides, base of the nose at -0.18, chin at -0.81, ears from 0.7 to the sides, the back of the head at -1.6.
    """
    x, y, z = np.abs(place[:, 0]), place[:, 1], place[:, 2]
    regions = {
        "core": _to(x, 0.5) * _to(y, 0.62) * _from(y, -0.75) * _from(z, 0.0),
        "features": _to(x, 0.33 + 0.2 * np.clip(y / 0.2, 0, 1)) * _to(y, 0.62) * _from(y, -0.75) * _from(z, 0.0),
        "chin": _to(x, 0.42) * _to(y, -0.12) * _from(y, -1.1) * _from(z, -0.2),
        "beard": _to(x, 0.78) * _to(y, 0.1) * _from(y, -1.15) * _from(z, -0.5),
        "back": np.clip(1 - x / 0.6, 0, 1) * _to(z, -0.6),
        "plain": 1 - _near(np.hypot(x / 0.85, (y + 0.05) / 1.1)) * np.clip((z + 0.6) / 0.4, 0, 1),
    }
    return {name: value.astype(np.float32) for name, value in regions.items()}


_SOFT = 0.06  # decimetres over which a region fades


def _to(
    values: npt.NDArray[np.floating[Any]], limit: float | npt.NDArray[np.floating[Any]]
) -> npt.NDArray[np.floating[Any]]:
    return np.asarray(np.clip((limit - values) / _SOFT + 0.5, 0, 1))


def _from(values: npt.NDArray[np.floating[Any]], limit: float) -> npt.NDArray[np.floating[Any]]:
    return np.asarray(np.clip((values - limit) / _SOFT + 0.5, 0, 1))


def _near(distance: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.floating[Any]]:
    """1 up to 0.8 of the face's half axes from its middle, 0 from 1.15 of them on, smoothly."""
    t = np.clip((1.15 - distance) / 0.35, 0, 1)
    return np.asarray(t * t * (3 - 2 * t))


def _points(side: int) -> npt.NDArray[np.float64]:
    """UV (side * side, 2) of the texels' centres, by rows, row 0 at v = 1."""
    axis = (np.arange(side) + 0.5) / side
    u, v = np.meshgrid(axis, 1 - axis)
    return np.stack([u.ravel(), v.ravel()], 1)
