"""How sure the regressor is of a face: the standard deviations it expects of its own errors, from its features."""

from __future__ import annotations

import torch
from torch import nn

FEATURES = 2048
COMPONENTS = 64  # principal ones: a few thousand faces with known errors cannot teach more inputs than that
HIDDEN = 24
GROUPS = ("identity", "expression", "pose", "landmarks")
"""What errors are of, root mean squares: the neutral shape (mm, size and place aside), what the expression adds (mm),
the rotation (degrees), the landmarks in the picture (pixels of the 224 px crop)."""


class Certainty(nn.Module):
    """Features (B, 2048), the means of the last map -> (B, 4) above 0: one over the expected errors of `GROUPS`.

    Products of matrices and not `nn.Linear`: the INT8 graph keeps them in float32, as all that follows its heads.
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

    @torch.no_grad()
    def begin(self, features: torch.Tensor, errors: torch.Tensor) -> None:
        """Set the components of the inputs, and the usual errors (n, 4; NaN where not known) as the first answer."""
        self.middle.copy_(features.mean(0))
        _, sizes, vectors = torch.svd_lowrank(features - self.middle, COMPONENTS, niter=4)
        self.basis.copy_(vectors * (len(features) ** 0.5 / sizes))
        self.bias.copy_(errors.square().nanmean(0).sqrt().log())

    def log_deviation(self, features: torch.Tensor) -> torch.Tensor:
        """Compute the logarithms of the expected errors (B, 4)."""
        components = (features - self.middle) @ self.basis
        return torch.relu(components @ self.first + self.first_bias) @ self.last + self.bias

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Compute the certainty; see the class."""
        # No face is more than e^3 times as sure, or unsure, as one error unit: what is beyond is no face.
        return (-self.log_deviation(features).clamp(-3.0, 5.0)).exp()
