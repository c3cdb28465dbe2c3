"""ARKit's morph targets of a mesh."""

from __future__ import annotations

from functools import lru_cache

import arkit
import numpy as np
from glb import LEAST_DM, STEP, Targets
from head import F32
from surface import Surface

_STEP_DM = np.float32(STEP * 10)  # of a displacement


class Rig:
    """The 52 targets of one mesh of a head."""

    def __init__(self, surface: Surface, mesh: str) -> None:
        """Compute the displacements, and what the file holds of them in the head's frame."""
        assert surface.head is not None
        self._primitives = surface.primitives(mesh)
        self._exact = arkit.shapes(surface.head)
        self._stored = _stored(self._exact)
        self._targets = [Targets.of(self._exact[:, p.vertex], len(p.vertex)) for p in self._primitives]

    def rest_shape(self, vertices: F32, weights: F32, turn: F32) -> F32:
        """Compute the shape from which the targets at their weights lead to another one.

        Args:
            vertices: float32 [N, 3], decimetres, where they lead.
            weights: float32 [52].
            turn: float32 [3, 3] from the head's frame to that of ``vertices``, rows times it.

        Returns:
            float32 [N, 3].
        """
        moved = np.flatnonzero(weights)
        if not len(moved):
            return vertices
        if _is_identity(turn):  # all of them, because taking some out would copy megabytes
            sums = weights @ self._stored.reshape(len(weights), -1)
        else:
            shapes = _stored(self._exact[moved] @ turn)
            sums = weights[moved] @ shapes.reshape(len(moved), -1)
        return np.asarray(vertices - sums.reshape(-1, 3), np.float32)

    def targets(self, primitive: int, turn: F32) -> Targets:
        """Return the targets of a primitive of the mesh, in a frame turned so."""
        if _is_identity(turn):
            return self._targets[primitive]
        at = self._primitives[primitive].vertex
        return Targets.of(self._exact[:, at] @ turn, len(at))


@lru_cache(maxsize=4)
def rig_of(surface: Surface, mesh: str) -> Rig:
    """Return the rig of a mesh, made once: it takes a quarter of a second."""
    return Rig(surface, mesh)


def _stored(displacements: F32) -> F32:
    """Round displacements, decimetres, as the file gives them back."""
    far = np.abs(displacements).max(axis=2, keepdims=True) >= LEAST_DM
    return np.asarray(np.rint(displacements / _STEP_DM) * _STEP_DM * far, np.float32)


def _is_identity(turn: F32) -> bool:
    return bool((turn == np.eye(3, dtype=np.float32)).all())
