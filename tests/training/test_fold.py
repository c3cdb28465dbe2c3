"""Folding the normalisations changes how a network is computed, not what it computes."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from networks.regressor import ReconstructionNet
from training.fold import fold, unfold


def trained(window: int = 1) -> ReconstructionNet:
    """A network whose normalisations have seen something."""
    torch.manual_seed(0)
    net = ReconstructionNet(window)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.1)
            nn.init.normal_(module.running_mean, 0, 0.1)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 2.0)  # type: ignore[arg-type]
    for head in net.final_layers.parameters():
        nn.init.normal_(head, 0, 0.01)
    return net.eval()


@torch.no_grad()
def test_a_folded_network_answers_as_before_and_so_does_one_with_its_weights_unfolded() -> None:
    net, picture = trained(), torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    wanted = net(picture)
    fold(net)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in net.modules())
    np.testing.assert_allclose(net(picture), wanted, rtol=1e-3, atol=1e-4)
    again = ReconstructionNet().eval()
    again.load_state_dict(unfold(net.state_dict()))
    np.testing.assert_allclose(again(picture), wanted, rtol=1e-3, atol=1e-4)


def test_weights_with_normalisations_are_unfolded_already() -> None:
    state = trained().state_dict()
    assert unfold(state).keys() == state.keys()


@torch.no_grad()
def test_heads_resized_to_a_larger_map_answer_nearly_the_same_on_the_enlarged_picture() -> None:
    small, large = trained(2), trained(3)
    large.load_resized(small.state_dict())
    picture = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    flat = picture.mean((2, 3), keepdim=True)
    # A picture of one colour is the same at any size, but for the border.
    answers = [net(flat.expand(-1, -1, side, side)) for net, side in ((small, 64), (large, 96))]
    assert torch.nn.functional.cosine_similarity(*answers).item() > 0.98
