"""Steps of Muon on convolutions: orthogonal ones, in the convolution's own memory."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from training.muon import ConvolutionMuon, as_matrix


def test_a_step_is_nearly_orthogonal_and_reaches_the_convolution() -> None:
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(8, 16, 3, 3).to(memory_format=torch.channels_last))
    muon = ConvolutionMuon([weight], 1e-2)
    before = weight.detach().clone()
    # One direction of the gradient is a hundred times as strong as the others.
    strong = torch.outer(torch.randn(8), torch.randn(144)).view(8, 16, 3, 3)
    weight.grad = 100 * strong + torch.randn(8, 16, 3, 3)
    muon.step(1e-2)
    sizes = torch.linalg.svdvals(as_matrix(weight.detach() - before))
    assert sizes.max() < 2 * sizes.min()
    assert sizes.mean() > 0


def test_weights_in_another_order_in_memory_are_refused() -> None:
    with pytest.raises(ValueError, match="channels-last"):
        ConvolutionMuon([nn.Parameter(torch.randn(8, 16, 3, 3))], 1e-2)
