"""Pose and expression that a mesh is given after it came: for a surface, and for the server's own file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from face3d_client._mesh.glb import glb_with_pose, glb_with_vertices
from face3d_client._mesh.surface import Surface

__all__ = ["Placement"]


@dataclass(frozen=True, eq=False)
class Placement:
    """What is done to a mesh.

    Attributes:
        vertices: (M, 3) mm that take the place of those of its only part. None: its own.
        weights: of its morph targets by name; those left out are 0. None: its own.
        matrix: rigid float64 (4, 4), mm, after that. None: it stays where it is.
    """

    vertices: NDArray[np.float32] | None = None
    weights: Mapping[str, float] | None = None
    matrix: NDArray[np.float64] | None = None

    def surface(self, surface: Surface) -> Surface:
        """Place a mesh; its morph targets are used up.

        Raises:
            FaceModelMismatch: `vertices` belong to another mesh.
        """
        placed = surface.morphed(self.weights)
        if self.vertices is not None:
            placed = placed.with_vertices(self.vertices)
        return placed if self.matrix is None else placed.transformed(self.matrix)

    def glb(self, glb: bytes, surface: Surface, scale: float) -> bytes:
        """Place the mesh of a GLB; pictures, materials and morph targets stay.

        Args:
            glb: the server's file.
            surface: what was read from it.
            scale: file units per millimetre.

        Raises:
            BadResponse: vertices have to be replaced, and the file does not hold them as float32.
            FaceModelMismatch: `vertices` belong to another mesh.
        """
        per_metre = scale * 1000
        if self.vertices is not None:
            return glb_with_vertices(glb, self.surface(surface).parts[0], per_metre)
        return glb_with_pose(glb, self.matrix, per_metre, self.weights)
