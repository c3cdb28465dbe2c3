"""The enhancement network changes nothing at first, takes any size, and every row by itself."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

from networks.enhance import BLOCK, Enhance, EnhanceNet


def faces(rows: int, height: int, width: int) -> torch.Tensor:
    return torch.randint(0, 256, (rows, 3, height, width), dtype=torch.uint8, generator=torch.manual_seed(0))


def test_an_untrained_network_changes_nothing() -> None:
    given = faces(2, 64, 64)
    torch.testing.assert_close(Enhance(EnhanceNet())(given), given, rtol=0, atol=0)


def test_any_size_in_blocks_and_every_row_by_itself(tmp_path: Path) -> None:
    torch.manual_seed(1)
    net = EnhanceNet()
    torch.nn.init.normal_(net.last.weight, 0, 0.3)
    save_file(dict(net.state_dict()), tmp_path / "enhance.safetensors")
    enhance = Enhance.load(tmp_path / "enhance.safetensors")
    given = faces(3, 5 * BLOCK, 9 * BLOCK)
    with torch.no_grad():
        together, alone = enhance(given), enhance(given[1:2])
    assert together.shape == given.shape
    assert (together != given).float().mean() > 0.3
    torch.testing.assert_close(together[1:2].short(), alone.short(), rtol=0, atol=1)
