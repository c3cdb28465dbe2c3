"""Five-point alignment of the HRN / Deep3DFaceRecon family (``POS`` and ``resize_n_crop_img``).

For training and calibration. The served model has its own copy in ``model_repository/align``, because a version folder
must be complete by itself; a test compares the two.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

# Eyes, nose tip, mouth corners of the family's mean face: decimetres, x right, y up, z to the camera
# (`similarity_Lm3D_all.mat` of Deep3DFaceRecon).
TEMPLATE = np.array(
    [
        [-0.311487, 0.290361, 0.133780],
        [0.309799, 0.289720, 0.131795],
        [0.003253, -0.046179, 0.552442],
        [-0.252169, -0.381339, 0.224057],
        [0.248466, -0.381282, 0.222358],
    ]
)
RESCALE = 102.0  # pixels a decimetre in the 224 px crop


def similarity(points: npt.NDArray[np.floating[Any]], height: int) -> tuple[float, float, float]:
    """Fit x = R1.X + tx, y = R2.X + ty to the five points by least squares (``POS`` of Deep3DFaceRecon).

    Args:
        points: (5, 2) column and row in pixels: eyes, nose tip, mouth corners, left in the picture first.
        height: picture height in pixels (the reference counts rows from the bottom).

    Returns:
        s, tx, ty: crop pixels per source pixel, and the template's origin in source pixels (ty counts from the last
        row upwards).
    """
    x, y = points[:, 0].astype(np.float64), height - 1 - points[:, 1].astype(np.float64)
    system = np.zeros((10, 8))
    system[0::2, :3], system[0::2, 3] = TEMPLATE, 1
    system[1::2, 4:7], system[1::2, 7] = TEMPLATE, 1
    target = np.stack([x, y], 1).reshape(-1)
    solution = np.linalg.lstsq(system, target, rcond=None)[0]
    scale = float(np.linalg.norm(solution[:3]) + np.linalg.norm(solution[4:7])) / 2
    return RESCALE / scale, float(solution[3]), float(solution[7])


def crop_transform(points: npt.NDArray[np.floating[Any]], height: int) -> tuple[float, float, float]:
    """Compute the map from source pixels to the 224 px crop: ``crop = source * s + (dx, dy)``, y down.

    The family rounds the crop's corner to whole pixels; this does not.

    Args:
        points, height: as in `similarity`.

    Returns:
        s, dx, dy: crop pixels per source pixel, and the shift in crop pixels.
    """
    s, tx, ty = similarity(points, height)
    row = height - 1 - ty
    return s, 112.0 - tx * s, 111.0 - row * s
