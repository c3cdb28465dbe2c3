"""Everything that leaves `align` for one face: crops, cameras, and what is doubtful about it."""

from __future__ import annotations

from collections.abc import Set
from typing import Any, NamedTuple

import cv2
import numpy as np
from alignment import cut, fit, window
from close_up import close_up
from embedding_crop import cut_upright, quality, similarity
from face_check import check
from face_doubts import QualityWarning, quality_warnings
from face_rows import Row, points_of
from numpy.typing import NDArray
from picture_inputs import true_size

CROP, CROP_HD = 224, 512
# Outputs for the embedder: a request of `embed` takes these and no crop of the others.
UPRIGHT = frozenset({"aligned", "quality"})
CLOSE_UP = frozenset({"close_up", "close_up_camera"})


class Cutout(NamedTuple):
    """A face that was cut out.

    Attributes:
        tensors: of one row of the answer; ``warnings`` are added by whoever knows them all.
        yaw: turn of the head to the side in degrees.
        doubts: what a user should know.
    """

    tensors: dict[str, Any]
    yaw: float
    doubts: list[QualityWarning]


def cut_out(
    picture: NDArray[np.uint8], geometry: NDArray[np.float32], face: Row, names: Set[str], texture_size: int
) -> Cutout:
    """Cut a face out of a picture, which may be padded: its true size follows from the geometry.

    Args:
        picture: uint8 [h, w, 3].
        geometry: of preprocess, float32 [6].
        face: float32 [15].
        names: of the outputs that are asked for.
        texture_size: side of the texture that is asked for, in texels.

    Raises:
        Refused: ``BadFace``, or ``BadTensor`` when picture and geometry contradict each other.
    """
    source, rows, columns = true_size(picture, geometry)
    check(face, source)
    picture = picture[:rows, :columns]
    camera = fit(points_of(face), source[1])
    small = window(camera, source, CROP)
    crop = cut(picture, small)
    tensors: dict[str, Any] = {"face": face}
    if names & UPRIGHT:
        tensors |= _upright(picture, source, face, camera.yaw)
    if names - UPRIGHT - {"face", "warnings"}:
        large = window(camera, source, CROP_HD)
        cameras = np.array([*small.camera(source), *large.camera(source)], np.float32)
        tensors |= {"crop": _planes(crop), "crop_hd": _planes(cut(picture, large)), "camera": cameras}
        tensors["context"] = np.concatenate([face, cameras])
        if names & CLOSE_UP:
            ratio = (source[0] / columns, source[1] / rows)
            near = close_up(picture, ratio, cameras[4:].tolist(), texture_size)
            tensors |= {"close_up": near.pixels, "close_up_camera": near.camera}
    return Cutout(tensors, camera.yaw, quality_warnings(face, source, camera.yaw, crop))


def _upright(picture: NDArray[np.uint8], source: tuple[float, float], face: Row, yaw: float) -> dict[str, NDArray[Any]]:
    """Turn the face upright for the embedder, and say how far it can be relied on."""
    rows, columns = picture.shape[:2]
    whole = similarity(points_of(face))
    crop = cut_upright(picture, whole.scaled(columns / source[0], rows / source[1]))
    return {"aligned": _planes(crop), "quality": quality(face, whole, source, yaw, crop)}


def _planes(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Convert uint8 [h, w, 3] to [3, h, w]; a transposed copy takes ten times as long."""
    planes = np.empty((3, *pixels.shape[:2]), np.uint8)
    cv2.split(pixels, list(planes))
    return planes
