"""Steps of Muon on convolutions: orthogonal ones, in the convolution's own memory."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from training.muon import ConvolutionMuon, as_matrix


def test_a_step_is_nearly_orthogonal_and_reaches_the_convolution() -> None:
    torch.manual_seed(0)
    convolution = nn.Conv2d(16, 8, 3, bias=False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    muon = ConvolutionMuon([convolution.weight], 1e-2)
    before = convolution.weight.detach().clone()
    # One direction of the gradient is a hundred times as strong as the others.
    strong = torch.outer(torch.randn(8), torch.randn(144)).view(8, 16, 3, 3)
    convolution.weight.grad = 100 * strong + torch.randn(8, 16, 3, 3)
    muon.step(1e-2)
    sizes = torch.linalg.svdvals(as_matrix(convolution.weight.detach() - before))
    assert sizes.max() < 2 * sizes.min()
    assert sizes.mean() > 0


def test_weights_in_another_order_in_memory_are_refused() -> None:
    convolution = nn.Conv2d(16, 8, 3)
    with pytest.raises(ValueError, match="channels-last"):
        ConvolutionMuon([convolution.weight], 1e-2)
