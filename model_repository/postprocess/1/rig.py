"""ARKit's morph targets of a mesh."""

from __future__ import annotations

from functools import lru_cache

import arkit
import numpy as np
from glb import LEAST_DM, STEP, Targets
from head import F32, Displacements
from surface import Surface

_STEP_DM = np.float32(STEP * 10)  # of a displacement


class Rig:
    """The 52 targets of one mesh of a head, in one frame.

    Attributes:
        targets: of each primitive of the mesh.
    """

    def __init__(self, surface: Surface, mesh: str, turn: F32 | None = None) -> None:
        """Compute the displacements, and what the file holds of them.

        Args:
            surface: of a head.
            mesh: ``head`` or ``face``.
            turn: float32 [3, 3] from the head's frame to that of the file, rows times it; None for the head's own.
        """
        assert surface.head is not None
        exact = arkit.shapes(surface.head)
        if turn is not None:
            exact = exact @ turn
        self.targets = [Targets.of(exact[:, p.vertex], len(p.vertex)) for p in surface.primitives(mesh)]
        self._stored = _stored(exact)

    def rest_shape(self, vertices: F32, weights: F32) -> F32:
        """Compute the shape from which the targets at their weights lead to another one.

        Args:
            vertices: float32 [N, 3], decimetres, where they lead.
            weights: float32 [52].

        Returns:
            float32 [N, 3].
        """
        beneath = vertices.copy()
        for k in np.flatnonzero(weights):
            beneath -= weights[k] * self._stored[k]
        return beneath


def rig_of(surface: Surface, mesh: str, turn: F32) -> Rig:
    """Return the rig of a mesh in a frame; that of the head's own is made once: it takes a quarter of a second."""
    return _upright(surface, mesh) if _is_identity(turn) else Rig(surface, mesh, turn)


@lru_cache(maxsize=4)
def _upright(surface: Surface, mesh: str) -> Rig:
    return Rig(surface, mesh)


def _stored(displacements: F32) -> Displacements:
    """Round displacements, decimetres, as the file gives them back."""
    far = np.abs(displacements).max(axis=2, keepdims=True) >= LEAST_DM
    return Displacements(np.asarray(np.rint(displacements / _STEP_DM) * far, np.int16), _STEP_DM)


def _is_identity(turn: F32) -> bool:
    return bool((turn == np.eye(3, dtype=np.float32)).all())
