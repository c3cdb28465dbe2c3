"""One identity of several photographs; pose and expression stay each photograph's own.

The face model is linear, so that everything is said in shapes: with neutral shapes N_k and expression offsets
E_k = shape_k - N_k, the person's shape with photograph k's expression is sum_k w_k N_k + E_k.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

# Of the 257 coefficients.
IDENTITY, ALBEDO, ANGLES, TRANSLATION = slice(0, 80), slice(144, 224), slice(224, 227), slice(254, 257)
# The camera of a 224 px crop, as the regressor has it: focal length and centre in pixels, distance in decimetres.
FOCAL, CENTRE, DISTANCE, CROP = 1015.0, 112.0, 10.0, 224
# Variance of a photograph's identity, over that of a frontal sharp one. A face turned by 30 to 50 degrees shows its
# depth and is surer, by up to TURNED; towards profile it is found less exactly, by up to PROFILE; in few or blurred
# pixels it is less sure, by COARSE for each factor e. From exact heads and from the errors in photographs of known
# poses (docs/decisions/50-one-identity.md).
TURNED, PROFILE, COARSE = 0.5, 2.0, 0.35


class Person(NamedTuple):
    """What K photographs say together, over N vertices.

    Attributes:
        shapes: float32 [K, 3, N, 3] decimetres, as the regressor's, with the person's identity.
        coefficients: float32 [K, 257], likewise.
        weights: float32 [K], each photograph's part in the identity, 1 together.
    """

    shapes: F32
    coefficients: F32
    weights: F32


class Lacking(NamedTuple):
    """What the mean identity of several photographs lacks.

    Attributes:
        identity: float32 [80], coefficients.
        neutral: float32 [N, 3] decimetres, the same of the neutral shape.
    """

    identity: F32
    neutral: F32


def weigh(coefficients: F32, quality: F32, score: F32, certainty: F32) -> F32:
    """Weigh K photographs by how sure their identity is: float32 [K], 1 together.

    Args:
        coefficients: float32 [K, 257].
        quality: float32 [K, 4] of align: size, sharpness, pose, cover, 0..1.
        score: float32 [K] of the detector, 0..1.
        certainty: float32 [K], one over the error of the identity that the regressor expects; 0 where it does not say.
    """
    size, sharpness, _, cover = np.clip(quality.astype(np.float64), 0.02, 1).T
    yaw = np.clip(np.abs(coefficients[:, ANGLES][:, 1].astype(np.float64)), 0, np.pi / 2)
    turned = 1 - TURNED * np.sin(2 * yaw) ** 2 + PROFILE * np.sin(yaw) ** 8
    variance = turned - COARSE * (np.log(size) + np.log(np.maximum(sharpness, 0.1)) / 2)
    if (certainty > 0).all():
        expected = 1 / certainty.astype(np.float64) ** 2
        variance = variance * expected / expected.mean()
    weights = cover * np.clip(score, 0.1, 1) / variance
    return np.asarray(weights / weights.sum(), np.float32)


def most_frontal(coefficients: F32, quality: F32) -> int:
    """Choose the photograph whose eyes and lips are seen best: frontal, large and sharp.

    Args:
        coefficients: float32 [K, 257].
        quality: float32 [K, 4] of align.
    """
    facing = np.clip(np.cos(coefficients[:, ANGLES][:, :2].astype(np.float64)), 0, 1).prod(1)
    size, sharpness, _, cover = quality.astype(np.float64).T
    return int((facing**4 * size * np.sqrt(sharpness) * cover).argmax())


def join(
    shapes: F32,
    coefficients: F32,
    weights: F32,
    landmarks: NDArray[np.int32],
    lacking: Lacking | None = None,
) -> Person:
    """Give K photographs one identity; each one's head moves so that its landmarks stay where they were seen.

    Args:
        shapes: float32 [K, 3, N, 3]: posed, with expression, neutral.
        coefficients: float32 [K, 257].
        weights: float32 [K], 1 together.
        landmarks: int32 [68], vertices.
        lacking: what is added to their mean identity.
    """
    neutral = np.tensordot(weights, shapes[:, 2], 1)
    if lacking is not None:
        neutral = neutral + lacking.neutral
    changes = neutral - shapes[:, 2]
    joined = np.empty_like(shapes)
    joined[:, 2] = neutral
    joined[:, 1] = shapes[:, 1] + changes
    own = coefficients.copy()
    for part in (IDENTITY, ALBEDO):
        own[:, part] = weights @ coefficients[:, part]
    if lacking is not None:
        own[:, IDENTITY] += lacking.identity
    for k, change in enumerate(changes):
        joined[k, 0] = shapes[k, 0] + change @ rotation(coefficients[k, ANGLES])
        step = returned(joined[k, 0, landmarks], shapes[k, 0, landmarks])
        joined[k, 0] += step
        own[k, TRANSLATION] += step
    return Person(joined, own, weights)


def returned(points: F32, before: F32) -> F32:
    """The translation [3] of points [P, 3] after which the camera sees them nearest to others [P, 3]: decimetres.

    Both in the camera frame. Least squares of columns and rows times the depth, which is linear.
    """
    target = before[:, :2] / (DISTANCE - before[:, 2:])
    # (x + tx) - target_x * (DISTANCE - z - tz) = 0, and the same of y.
    system = np.zeros((2, len(points), 3), np.float64)
    system[0, :, 0] = system[1, :, 1] = 1
    system[..., 2] = target.T
    wanted = target * (DISTANCE - points[:, 2:]) - points[:, :2]
    return np.asarray(np.linalg.lstsq(system.reshape(-1, 3), wanted.T.reshape(-1), rcond=None)[0], np.float32)


def rotation(angles: F32) -> F32:
    """Rotation matrix for rows, ``posed = shape @ R``, of pitch, yaw, roll in radians: the transpose of Rz Ry Rx."""
    (sx, sy, sz), (cx, cy, cz) = np.sin(angles), np.cos(angles)
    turn_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    turn_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    turn_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return np.asarray((turn_z @ turn_y @ turn_x).T, np.float32)


def project(points: F32, cameras: F32) -> F32:
    """Where points [K, P, 3], decimetres in the camera frame, lie in the photographs: [K, P, 2] source pixels.

    Args:
        points: see above.
        cameras: float32 [K, 4], sx, sy, ox, oy of the 224 px crop: source_x = column * sx + ox.
    """
    depth = DISTANCE - points[..., 2]
    column = FOCAL * points[..., 0] / depth + CENTRE
    row = (CROP - 1) - (FOCAL * points[..., 1] / depth + CENTRE)
    places = np.stack([column, row], -1)
    return np.asarray(places * cameras[:, None, 0:2] + cameras[:, None, 2:4], np.float32)
