"""The shape that goes into the files: what the regressor decoded, with lips, eyes and expression put right."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from colours import eye_shade, mouth_light
from eyes import aim, settle
from head import F32, Head
from mouth import MOUTH_CLOSE, closing, raise_teeth

# The eyes look into the camera where that is no more than this off straight ahead; people turn their heads for more.
MOST_DEGREES = 25.0
# The camera of the face model's family stands ten decimetres before the origin.
CAMERA = np.array([0, 0, 10], np.float32)
AHEAD = np.array([0, 0, 1], np.float32)
# Upper and lower lid in iBUG-68, of the left eye and of the right one.
LIDS = ((43, 44, 46, 47), (37, 38, 40, 41))
# The iris stands that far above the middle between the lids (decimetres), that far before the eyeball's middle, and
# rises to no more than that sine.
ABOVE_DM, IRIS_DEPTH_DM, HIGHEST = 0.006, 0.105, 0.3
# Vertices by which two shapes' rotation is found: every sixteenth is enough and keeps it out of the clock.
_EVERY = 16


@dataclass(frozen=True)
class Pose:
    """The rigid movement from the head's frame into the camera's: ``posed = head @ turn + shift``.

    Attributes:
        turn: float32 [3, 3].
        shift: float32 [3], decimetres.
    """

    turn: F32
    shift: F32

    @classmethod
    def between(cls, head: F32, posed: F32) -> Pose:
        """Find the pose from one shape [N, 3] in both frames."""
        a, b = head[::_EVERY].astype(np.float64), posed[::_EVERY].astype(np.float64)
        middle, there = a.mean(0), b.mean(0)
        u, _, vt = np.linalg.svd((a - middle).T @ (b - there))
        turn = u * [1, 1, np.sign(np.linalg.det(u @ vt))] @ vt
        return cls(turn.astype(np.float32), (there - middle @ turn).astype(np.float32))

    def apply(self, vertices: F32) -> F32:
        """Move vertices [N, 3] from the head's frame to the camera's."""
        return vertices @ self.turn + self.shift

    def back(self, direction: F32) -> F32:
        """Turn a direction [3] from the camera's frame to the head's."""
        return direction @ self.turn.T


@dataclass(frozen=True)
class Upright:
    """A shape in the head's frame.

    Attributes:
        vertices: float32 [N, 3], decimetres.
        expression: float32 [64], coefficients of the expression that it has; empty without a head.
        light: float32 [N], how much light each vertex gets, 0..1; None without a head.
        pose: of the photograph.
    """

    vertices: F32
    expression: F32
    light: F32 | None
    pose: Pose


def face_upright(shapes: F32, neutral: bool) -> Upright:
    """Take the shape of a face model that has no head from the regressor's shapes, float32 [3, N, 3]."""
    pose = Pose.between(shapes[1], shapes[0])
    return Upright(shapes[2 if neutral else 1], np.zeros(0, np.float32), None, pose)


def head_upright(head: Head, shapes: F32, coefficients: F32, sideways: float | None, neutral: bool) -> Upright:
    """Place what the regressor does not know of a head: its eyes, and whether its lips are closed.

    Args:
        head: what the shapes are of.
        shapes: float32 [3, N, 3] of the regressor: posed, head frame, head frame neutral.
        coefficients: float32 [64], of the expression.
        sideways: degrees by which the photograph's eyes are turned to the right of the picture, if that is known.
        neutral: leave the expression out; such a head looks ahead.
    """
    pose = Pose.between(shapes[1], shapes[0])
    if neutral:
        vertices, expression = shapes[2], np.zeros(64, np.float32)
        directions = np.stack([AHEAD, AHEAD])
    else:
        vertices, expression = expressive(head, shapes, coefficients)
        vertices = raise_teeth(head, vertices)
        directions = gaze(head, vertices, pose, sideways)
    for side in range(2):
        vertices = aim(head, vertices, side, directions[side])
    vertices = settle(head, vertices)
    light = mouth_light(head, vertices)
    for side in range(2):
        light[head.eyes[side]] = eye_shade(head, vertices, side)
    return Upright(vertices, expression, light, pose)


def expressive(head: Head, shapes: F32, coefficients: F32) -> tuple[F32, F32]:
    """Compute the shape with the photograph's expression, lips closed that are hardly open.

    Args:
        head: what the shapes are of.
        shapes: float32 [3, N, 3] of the regressor: posed, head frame, head frame neutral.
        coefficients: float32 [64], of the expression.

    Returns:
        [N, 3] and the expression [64] that it has.
    """
    expression = coefficients.copy()
    more = closing(head, shapes[2], shapes[1])
    if not more:
        return shapes[1], expression
    slot = head.expression_names.index(MOUTH_CLOSE)
    expression[slot] += more
    return shapes[1] + np.float32(more) * head.expression[slot], expression


def gaze(head: Head, vertices: F32, pose: Pose, sideways: float | None) -> F32:
    """Find where the eyes look.

    Sideways where the photograph says it, else into the camera if it is nearly ahead, else straight ahead. Up and down
    lids follow the eyes, so that the middle between them tells it better than the regressor's pitch does.

    Args:
        head: what the shape is of.
        vertices: float32 [N, 3], head frame.
        pose: of the photograph.
        sideways: degrees to the right of the picture off the camera's axis, or None.

    Returns:
        float32 [2, 3], unit, head frame: of the left and the right eye.
    """
    found = []
    for side in range(2):
        centre, _ = head.eye(vertices, side)
        if sideways is None:
            x, _, z = pose.back(CAMERA - pose.apply(centre))
        else:
            angle = np.radians(sideways)
            x, _, z = pose.back(np.array([np.sin(angle), 0, np.cos(angle)], np.float32))
        across = np.arctan2(x, z)
        if sideways is None and abs(across) > np.radians(MOST_DEGREES):
            across = 0.0
        lids = vertices[head.landmarks[list(LIDS[side])], 1]
        rise = (float(lids.mean()) + ABOVE_DM - float(centre[1])) / IRIS_DEPTH_DM
        up = np.arcsin(np.clip(rise, -HIGHEST, HIGHEST))
        found.append([np.sin(across) * np.cos(up), np.sin(up), np.cos(across) * np.cos(up)])
    return np.array(found, np.float32)
