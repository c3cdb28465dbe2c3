"""Albedo carried from face model 1 to the whole head's skin, and plain colours for everything that is not skin.

What face model 1 knows well is the inner face. Towards its rim its albedo is hair and shadow; there and beyond, colours
run smoothly into the tone of the cheeks.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from scipy.sparse.linalg import splu
from scipy.spatial import cKDTree

from networks.face_model import FaceModel
from training.head_source import Source

Float = npt.NDArray[np.float64]
Int = npt.NDArray[np.int64]

# sRGB of what is not skin: linings of the sockets, eyeballs, mouth, teeth, lashes.
_PLAIN = {
    "mouth_socket": (112, 52, 50), "eye_socket_left": (150, 92, 84), "eye_socket_right": (150, 92, 84),
    "eye_left": (232, 226, 220), "eye_right": (232, 226, 220), "gums": (176, 96, 92), "tongue": (186, 100, 98),
    "teeth_upper": (224, 217, 200), "teeth_lower": (222, 214, 196), "lashes_left": (48, 36, 30),
    "lashes_right": (48, 36, 30),
}  # fmt: skip
# A vertex knows its colour where face model 1's surface is within this of it (decimetres) and inside of this ellipse,
# seen from the front: below the hair line, before temples and ears, above the throat (decimetres, head frame).
_NEAR_DM = 0.04
_MIDDLE_DM, _HALF_DM = np.array([0.0, -0.22]), np.array([0.64, 0.80])
_EDGE = (0.80, 1.0)  # of the ellipse, between which trust fades
_BEHIND_DM = (-0.20, 0.0)  # and in depth
# How firmly known colours are kept, and how weakly unknown ones are drawn to the tone of the cheeks, relative to the
# pull of neighbours.
_FIRM, _DRAWN = 40.0, 0.002


def _smoothstep(x: Float, low: float, high: float) -> Float:
    t = np.clip((x - low) / (high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t))


def carry(source: Source, mean: Float, triangles: Int, old: FaceModel) -> tuple[Float, Float]:
    """Albedo of the head: mean (N, 3) sRGB 0..255, modes (80, N, 3).

    Args:
        source: the parts.
        mean: (N, 3) mean head, decimetres, head frame.
        triangles: (T, 3) of the skin, vertices.
        old: face model 1, whose albedo is carried.
    """
    skin = np.unique(triangles)
    known, colours = _known(mean[skin], old)
    ellipse = np.linalg.norm((mean[skin, :2] - _MIDDLE_DM) / _HALF_DM, axis=1)
    inside = (1 - _smoothstep(ellipse, *_EDGE)) * _smoothstep(mean[skin, 2], *_BEHIND_DM)
    inside[np.isin(skin, np.setdiff1d(_linings(source), source.vertices("face")))] = 0
    trust = inside * known
    tone = np.median(colours[:, trust > 0.99], axis=1)  # (81, 3): of all that is known, hence of the cheeks
    spread = _spread(skin, triangles, len(mean), trust, colours, tone)
    albedo_mean, modes = np.zeros((len(mean), 3)), np.zeros((len(colours) - 1, len(mean), 3))
    albedo_mean[skin], modes[:, skin] = spread[0], spread[1:]
    for name, colour in _PLAIN.items():
        vertices = np.setdiff1d(source.vertices(name), source.vertices("face"))
        albedo_mean[vertices], modes[:, vertices] = colour, 0
    return np.clip(albedo_mean, 0, 255), modes


def _linings(source: Source) -> Int:
    return source.vertices("mouth_socket", "eye_socket_left", "eye_socket_right")


def _known(points: Float, old: FaceModel) -> tuple[Float, Float]:
    """Whether face model 1's surface passes by each point (P,) 0..1, and its colours there (81, P, 3), mean first."""
    share = np.array([(i, j, 6 - i - j) for i in range(7) for j in range(7 - i)]) / 6
    corners = old.mean[old.triangles].astype(np.float64)
    samples = np.einsum("sk,fkc->fsc", share, corners).reshape(-1, 3)
    distance, nearest = cKDTree(samples).query(points)
    corner = old.triangles[nearest // len(share)]
    weight = share[nearest % len(share)]
    every = np.concatenate([old.albedo_mean[None], old.albedo]).astype(np.float64)
    return 1 - _smoothstep(distance, _NEAR_DM / 2, _NEAR_DM), np.einsum("pk,mpkc->mpc", weight, every[:, corner])


def _spread(skin: Int, triangles: Int, count: int, trust: Float, colours: Float, tone: Float) -> Float:
    """Colours (81, P, 3) that follow the known ones where they are trusted and are smooth elsewhere."""
    number = np.full(count, -1)
    number[skin] = np.arange(len(skin))
    t = number[triangles]
    edges = np.concatenate([t[:, [0, 1]], t[:, [1, 2]], t[:, [2, 0]]])
    graph = sp.coo_matrix((np.ones(len(edges)), tuple(edges.T)), shape=(len(skin),) * 2).tocsr()
    graph = ((graph + graph.T) > 0).astype(np.float64)
    laplacian = sp.diags(np.asarray(graph.sum(1)).ravel()) - graph
    drawn = np.full(len(skin), _DRAWN)
    system = (laplacian + sp.diags(_FIRM * trust + drawn)).tocsc()
    right = (_FIRM * trust)[None, :, None] * colours + drawn[None, :, None] * tone[:, None]
    flat = right.transpose(1, 0, 2).reshape(len(skin), -1)
    solved = splu(system).solve(flat)
    return np.asarray(solved.reshape(len(skin), len(colours), 3).transpose(1, 0, 2))
