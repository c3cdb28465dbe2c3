"""Momentum orthogonalised by Newton-Schulz (Jordan et al., 2024) for the weights of convolutions, AdamW for the rest.

torch's `Muon` takes matrices only. A convolution's weights are one, of the output's channels by all inputs of a place:
here the optimiser sees them through a view of the same memory.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

WEIGHT_DECAY = 1e-4


def as_matrix(weights: torch.Tensor) -> torch.Tensor:
    """View the weights (O, I, H, W) of a convolution, in channels-last memory, as a matrix (O, H * W * I)."""
    return weights.permute(0, 2, 3, 1).flatten(1)


class ConvolutionMuon:
    """Steps convolutions by Muon, whose steps are as long as AdamW's (`match_rms_adamw`).

    Args:
        convolutions: their weights (O, I, H, W), in channels-last memory.
        rate: of learning.
    """

    def __init__(self, convolutions: Iterable[nn.Parameter], rate: float) -> None:
        self.weights = list(convolutions)
        self.matrices = [nn.Parameter(as_matrix(weights.detach())) for weights in self.weights]
        for weights, matrix in zip(self.weights, self.matrices, strict=True):
            if weights.data_ptr() != matrix.data_ptr():
                raise ValueError("A convolution's weights are not in channels-last memory.")
        self.optimiser = torch.optim.Muon(
            self.matrices, rate, weight_decay=WEIGHT_DECAY, adjust_lr_fn="match_rms_adamw"
        )

    def step(self, rate: float) -> None:
        """Take one step at a rate, by the gradients that the weights have."""
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        for weights, matrix in zip(self.weights, self.matrices, strict=True):
            matrix.grad = None if weights.grad is None else as_matrix(weights.grad)
        self.optimiser.step()
