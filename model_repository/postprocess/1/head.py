"""What a whole head has that a face alone has not: named shapes, eyeballs that turn, lips that close."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
I32 = NDArray[np.int32]


@dataclass(frozen=True)
class Displacements:
    """Displacements of K shapes, kept in 16 bits, as the file has them.

    Attributes:
        steps: int16 [K, N, 3].
        step: decimetres of one.
    """

    steps: NDArray[np.int16]
    step: np.float32

    def __getitem__(self, shape: int) -> F32:
        """float32 [N, 3], decimetres."""
        return np.asarray(self.steps[shape] * self.step, np.float32)


@dataclass(frozen=True)
class Head:
    """Arrays of a head of N vertices; lengths are decimetres in the head's frame.

    Attributes:
        expression: of 64 shapes, displacements at full expression.
        expression_names: 64 names, ``""`` where a mode is empty.
        tongue_out: float32 [N, 3], displacement of the one ARKit shape that is no sum of the others.
        landmarks: int32 [68], vertices in iBUG-68 order.
        eyes: the vertices of the left (+x) and of the right eyeball, ascending.
        eye_poles: int32 [2, 2], front and back pole of each eyeball.
        eye_centre: share of the way from the back pole to the front pole at which an eyeball turns.
        eye_radius: float32 [A, T], the left eyeball's radius in distances of its poles, by azimuth and tilt; the right
            one is its mirror image.
        iris_radius: of the iris in an eyeball's square of texture coordinates, around its middle.
        lids: int32 [2, L], vertices of the outer skin of the lids over each eye.
        upper_jaw: float32 [N], 1 for upper teeth and gums, 0 for what does not hang on them.
        gum_line: int32 [G], vertices along the upper edge of the upper front teeth, where the gums begin.
    """

    expression: Displacements
    expression_names: tuple[str, ...]
    tongue_out: F32
    landmarks: I32
    eyes: tuple[NDArray[np.intp], NDArray[np.intp]]
    eye_poles: I32
    eye_centre: float
    eye_radius: F32
    iris_radius: float
    lids: I32
    upper_jaw: F32
    gum_line: I32

    @classmethod
    def from_arrays(cls, data: Mapping[str, Any]) -> Head:
        """Take a head out of the arrays of ``topology.npz``; modes are int16 times a step there."""
        return cls(
            expression=Displacements(data["expression"].astype(np.int16), np.float32(data["expression_step"])),
            expression_names=tuple(str(name) for name in data["expression_names"]),
            tongue_out=data["tongue_out"].astype(np.float32) * np.float32(data["tongue_out_step"]),
            landmarks=data["landmarks"].astype(np.int32),
            eyes=(data["eye_left"].astype(np.intp), data["eye_right"].astype(np.intp)),
            eye_poles=data["eye_poles"].astype(np.int32),
            eye_centre=float(data["eye_centre"]),
            eye_radius=data["eye_radius"].astype(np.float32),
            iris_radius=float(data["iris_radius"]),
            lids=data["lids"].astype(np.int32),
            upper_jaw=data["upper_jaw"].astype(np.float32),
            gum_line=data["gum_line"].astype(np.int32),
        )

    def eye(self, vertices: F32, side: int) -> tuple[F32, F32]:
        """Return centre [3] and unit viewing axis [3] of an eyeball (0: left, at +x; 1: right) of a shape [N, 3]."""
        front, back = vertices[self.eye_poles[side]]
        axis = front - back
        return back + self.eye_centre * axis, axis / np.linalg.norm(axis)
