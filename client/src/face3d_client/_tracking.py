"""Clips: a head that moves as the frames of a video show it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from face3d_client._coefficients import Coefficients
from face3d_client._detection import DetectedFace
from face3d_client._embedding import Quality
from face3d_client._mesh.animation import animated_glb
from face3d_client._mesh.formats import write_files
from face3d_client._person import Person

__all__ = ["Clip", "TrackedFrame"]


@dataclass(frozen=True, eq=False)
class TrackedFrame:
    """Expression and pose of a head in one frame, steady from frame to frame.

    Attributes:
        index: of the frame in its clip, from 0 on.
        seconds: from the first frame on.
        blendshapes: float32 (52,): weights of ARKit's shapes, 0..1, in the order of their names.
        rotation: float32 (4,): of the head, a unit quaternion x, y, z, w; the identity faces the camera.
        coefficients: of this frame, with expression and pose steadied; the identity is the frame's own guess.
        face: where it is.
        quality: how well the frame shows it.
    """

    index: int
    seconds: float
    blendshapes: NDArray[np.float32]
    rotation: NDArray[np.float32]
    coefficients: Coefficients
    face: DetectedFace
    quality: Quality


@dataclass(frozen=True, eq=False)
class Clip:
    """One person's head, and how it moves.

    Attributes:
        person: identity and texture, from the frames that show them best.
        frames: those in which the face was found.
        missed: how many others there were.
    """

    person: Person
    frames: tuple[TrackedFrame, ...]
    missed: int = 0

    @property
    def glb(self) -> bytes:
        """A GLB file with one animation: the head's rotation and the weights of ARKit's shapes, a key a frame."""
        return animated_glb(
            self.person.head.glb,
            np.array([frame.seconds for frame in self.frames], np.float32),
            np.stack([frame.rotation for frame in self.frames]),
            np.stack([frame.blendshapes for frame in self.frames]),
        )

    def save(self, path: str | os.PathLike[str]) -> list[Path]:
        """Write the moving head to a .glb file; the folder is made if it is not there.

        Raises:
            ValueError: another suffix: no other format here has an animation.
        """
        target = Path(path)
        if target.suffix.lower() != ".glb":
            raise ValueError(f"{target}: a clip is written as .glb. Choose such a name.")
        return write_files(target.parent, {target.name: self.glb})

    def __repr__(self) -> str:
        return f"Clip({len(self.frames)} frames, {self.missed} missed, {self.person!r})"
