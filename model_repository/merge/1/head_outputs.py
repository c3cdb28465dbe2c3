"""The outputs about a person's head, once the photographs have one identity."""

from __future__ import annotations

from typing import Any

import numpy as np
from chart import Chart
from identities import Person, project
from numpy.typing import NDArray

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]
MILLIMETRES = np.float32(100)  # in a decimetre


def head_outputs(
    person: Person, chart: Chart, reference: int, fingerprints: NDArray[Any], context: F32, crops: U8, quality: F32
) -> dict[str, NDArray[Any]]:
    """Collect the outputs of K photographs: shapes of the reference, and coefficients and landmarks of each.

    Args:
        person: K photographs with one identity.
        chart: of the face model.
        reference: the photograph whose expression and pose the head has.
        fingerprints: int64 [K, 1], of the face model.
        context: float32 [K, 23], face and cameras.
        crops: uint8 [K, 3, 512, 512].
        quality: float32 [K, 4], of `align`: size, sharpness, pose, cover.
    """
    landmarks = person.shapes[:, 0, chart.landmarks]
    one = slice(reference, reference + 1)
    chosen = np.arange(len(person.shapes)) == reference
    return {
        "shapes": person.shapes[one],
        "expression": person.coefficients[one, 80:144],
        "fingerprint": fingerprints[one],
        "context": context[one],
        "crop_hd": crops[one],
        "fingerprints": fingerprints,
        "certainties": np.stack([quality[:, 0] * np.sqrt(quality[:, 1]), chosen], 1).astype(np.float32),
        "coefficients": person.coefficients,
        "vertices": person.shapes[:, 0] * MILLIMETRES,
        "vertices_neutral": person.shapes[one, 2] * MILLIMETRES,
        "landmarks": project(landmarks, context[:, 15:19]),
        "landmarks_3d": landmarks * MILLIMETRES,
        "face_model": fingerprints[one],
        "weights": person.weights,
        "reference": np.array([reference], np.int64),
    }
