"""Files that a run of training leaves; one that is killed while it writes leaves the old ones whole."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file


def save_state(state: Mapping[str, Any], path: Path) -> None:
    """Write what a run is resumed from: state dicts and numbers, so that ``weights_only`` loading reads it."""
    torch.save(dict(state), path.with_suffix(".part"))
    path.with_suffix(".part").replace(path)


def save_weights(network: torch.nn.Module, path: Path, metadata: Mapping[str, str]) -> None:
    """Write a network's weights as safetensors, floating-point ones as float16."""
    weights = {
        name: (value.half() if value.is_floating_point() else value).contiguous().cpu()
        for name, value in network.state_dict().items()
    }
    save_file(weights, path.with_suffix(".part"), dict(metadata))
    path.with_suffix(".part").replace(path)
