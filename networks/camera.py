"""The camera of HRN / Deep3DFaceRecon for a 224 px crop, batched.

Camera frame in decimetres: x right, y up, z toward the camera, which stands at (0, 0, 10) and looks down -z.
"""

from __future__ import annotations

import torch

FOCAL = 1015.0  # pixels of a 224 px crop (field of view 12.6 degrees)
CENTRE = 112.0  # principal point, pixels of that crop
DISTANCE = 10.0  # decimetres from camera to origin
CROP = 224  # side in pixels of the regressor's crop
CROP_HD = 512  # and of the texture network's


def rotation(angle: torch.Tensor) -> torch.Tensor:
    """Compute rotation matrices for row vectors, ``posed = shape @ R``.

    Args:
        angle: (B, 3) radians, pitch about x, yaw about y, roll about z.

    Returns:
        (B, 3, 3), the transpose of Rz Ry Rx (Deep3DFaceRecon, ``compute_rotation``).
    """
    x, y, z = angle.unbind(-1)
    cx, sx, cy, sy, cz, sz = x.cos(), x.sin(), y.cos(), y.sin(), z.cos(), z.sin()
    rows = [
        torch.stack([cy * cz, sx * sy * cz - cx * sz, cx * sy * cz + sx * sz], -1),
        torch.stack([cy * sz, sx * sy * sz + cx * cz, cx * sy * sz - sx * cz], -1),
        torch.stack([-sy, sx * cy, cx * cy], -1),
    ]
    return torch.stack(rows, -2).transpose(-1, -2)


def project(posed: torch.Tensor) -> torch.Tensor:
    """Project camera-frame points (B, N, 3), decimetres, to (column, row) of the 224 px crop, (B, N, 2)."""
    return torch.stack(project_coordinates(posed[..., 0], posed[..., 1], posed[..., 2]), -1)


def project_coordinates(x: torch.Tensor, y: torch.Tensor, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Project camera-frame coordinates in decimetres, of any shape, to column and row of the 224 px crop.

    column = f x / (10 - z) + c, row = 223 - (f y / (10 - z) + c), with f 1015 and c 112.
    """
    depth = DISTANCE - z
    return FOCAL * x / depth + CENTRE, (CROP - 1) - (FOCAL * y / depth + CENTRE)
