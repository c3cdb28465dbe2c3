"""How sure the regressor is of a face: the standard deviations it expects of its own errors, from its features."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

FILE = "certainty.safetensors"  # beside the regressor's file, whose digest stands in its metadata
FEATURES = 2048
COMPONENTS = 64  # principal ones: a few thousand faces with known errors cannot teach more inputs than that
HIDDEN = 24
GROUPS = ("identity", "expression", "pose", "landmarks")
"""What errors are of, root mean squares: the neutral shape (mm, size and place aside), what the expression adds (mm),
the rotation (degrees), the landmarks in the picture (pixels of the 224 px crop)."""


class Certainty(nn.Module):
    """Features (B, 2048), the means of the last map -> (B, 4) above 0: one over the expected errors of `GROUPS`.

    Products of matrices and not `nn.Linear`: the INT8 graph keeps them in float32, as all that follows its heads. In
    the regressor the components are one more of its heads (`head`), so that nothing else reads the map.
    """

    middle: torch.Tensor
    basis: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("middle", torch.zeros(FEATURES))
        self.register_buffer("basis", torch.zeros(FEATURES, COMPONENTS))
        self.first = nn.Parameter(torch.randn(COMPONENTS, HIDDEN) * COMPONENTS**-0.5)
        self.first_bias = nn.Parameter(torch.zeros(HIDDEN))
        self.last = nn.Parameter(torch.zeros(HIDDEN, len(GROUPS)))
        self.bias = nn.Parameter(torch.zeros(len(GROUPS)))

    @classmethod
    def beside(cls, regressor: Path) -> Certainty | None:
        """Read the file that lies beside a regressor's; None where there is none, or it belongs to other weights.

        Raises:
            OSError, SafetensorError, RuntimeError: it is damaged, or of another network.
        """
        path = regressor.with_name(FILE)
        if not path.is_file():
            return None
        with safe_open(path, "pt") as file:
            belongs_to = (file.metadata() or {}).get("regressor")
        if belongs_to != digest(regressor):
            return None
        certainty = cls()
        certainty.load_state_dict({name: value.float() for name, value in load_file(path).items()})
        return certainty.eval()

    @torch.no_grad()
    def begin(self, features: torch.Tensor, errors: torch.Tensor) -> None:
        """Set the components of the inputs, and the usual errors (n, 4; NaN where not known) as the first answer."""
        self.middle.copy_(features.mean(0))
        _, sizes, vectors = torch.svd_lowrank(features - self.middle, COMPONENTS, niter=4)
        self.basis.copy_(vectors * (len(features) ** 0.5 / sizes))
        self.bias.copy_(errors.square().nanmean(0).sqrt().log())

    def head(self, window: int) -> nn.Conv2d:
        """Make the convolution that computes the components (B, 64, 1, 1) of a map (B, 2048, window, window)."""
        head = nn.Conv2d(FEATURES, COMPONENTS, window)
        head.weight = nn.Parameter((self.basis.T / window**2)[..., None, None].repeat(1, 1, window, window))
        head.bias = nn.Parameter(-self.middle @ self.basis)
        return head

    def log_deviation(self, components: torch.Tensor) -> torch.Tensor:
        """Compute the logarithms of the expected errors (B, 4) from the components (B, 64)."""
        return torch.relu(components @ self.first + self.first_bias) @ self.last + self.bias

    def components(self, features: torch.Tensor) -> torch.Tensor:
        """Compute the principal components (B, 64), of unit variance, of features (B, 2048)."""
        return (features - self.middle) @ self.basis

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Compute the certainty; see the class."""
        return self.of(self.components(features))

    def of(self, components: torch.Tensor) -> torch.Tensor:
        """Compute the certainty (B, 4) from the components (B, 64)."""
        # No face is more than e^3 times as sure, or unsure, as one error unit: what is beyond is no face.
        return (-self.log_deviation(components).clamp(-3.0, 5.0)).exp()


def digest(path: Path) -> str:
    """Return the SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
