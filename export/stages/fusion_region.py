"""The part of a face model that the model `fusion` draws, written beside its code as `topology.npz`."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from networks.head_model import AnyFaceModel, HeadModel

SKIN, EYE, MOUTH = range(3)
# What a ray meets inside the openings of the face. Lashes, which are drawn on cards, and teeth, gums and tongue are not
# among it: what shows there is taken from a photograph, whose place the socket behind them says well enough.
EYE_PARTS = ("eye_socket_left", "eye_socket_right", "eye_left", "eye_right")
MOUTH_PARTS = ("mouth_socket",)
# Of the mean head, decimetres: triangles behind these cannot lie before the face, whichever way it looks.
FRONT_DM, NECK_DM = -0.45, -1.2
# The face that is exchanged: a rounded rectangle of the mean head, decimetres. Brows end at 0.58 to the sides and reach
# 0.6 in height, the chin is at -0.81, the ears begin at 0.74.
MIDDLE_DM, HALF_WIDTH_DM, HALF_HEIGHT_DM, ROUNDNESS = -0.08, 0.69, 0.80, 4
# Shares of the way to its outline between which a place fades from the face, and loses its freedom to move.
FADE, FREE = (0.86, 1.0), (0.55, 0.95)


def region_arrays(model: AnyFaceModel) -> dict[str, Any]:
    """What `fusion` reads (region.py of its version folder): name -> array."""
    if isinstance(model, HeadModel):
        triangles, kind, vertex, uv = _of_head(model)
    else:
        triangles, vertex, uv = model.triangles, np.arange(len(model.mean)), model.uv
        kind = np.full(len(triangles), SKIN)
    place = model.mean[vertex]
    front = (place[triangles, 2].min(1) > FRONT_DM) & (place[triangles, 1].min(1) > NECK_DM)
    used, numbers = np.unique(triangles[front], return_inverse=True)
    way = outline_share(place[used])
    return {
        "triangles": numbers.reshape(-1, 3).astype(np.int32),
        "kind": kind[front].astype(np.uint8),
        "vertex": vertex[used].astype(np.int32),
        "uv": uv[used].astype(np.float32),
        "inside": 1 - _smoothstep(way, *FADE),
        "freedom": 1 - _smoothstep(way, *FREE),
        "vertices": np.array(len(model.mean), np.int64),
        "fingerprint": np.array([model.fingerprint], np.int64),
    }


def _of_head(model: HeadModel) -> tuple[npt.NDArray[Any], ...]:
    outer = ("face", "head_and_neck")
    groups = [model.triangles(*parts) for parts in (outer, EYE_PARTS, MOUTH_PARTS)]
    kind = np.repeat([SKIN, EYE, MOUTH], [len(group) for group in groups])
    return np.concatenate(groups), kind, model.vertex, model.uv


def outline_share(place: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """How far points (n, 3) of the mean head lie on the way from the face's middle to its outline; 1 there."""
    x, y = place[:, 0] / HALF_WIDTH_DM, (place[:, 1] - MIDDLE_DM) / HALF_HEIGHT_DM
    return np.asarray((x**ROUNDNESS + y**ROUNDNESS) ** (1 / ROUNDNESS), np.float32)


def _smoothstep(x: npt.NDArray[np.float32], low: float, high: float) -> npt.NDArray[np.float32]:
    t = np.clip((x - low) / (high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), np.float32)
