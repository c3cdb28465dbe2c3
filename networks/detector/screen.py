"""A small network between P- and R-Net that removes the candidates which R-Net would reject.

A photograph gives R-Net 60 to 128 candidates of which it accepts ten, and they cost half as much as all of P-Net.
P-Net's features in the 5 x 5 windows around a candidate tell most of them apart: an extra head of P-Net computes
`EXTRA_FEATURES` numbers a window, and two dense layers classify the candidate. The boxes and scores of the candidates
that pass do not change: R- and O-Net compute them from the pixels.

Trained by `training/screen.py` for one P-Net, whose digest is in the file's metadata.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from networks.errors import NetworkError

PNET_OUTPUTS = 5
"""P-Net's outputs for a window: logit of a face and four box offsets."""
FEATURES = 32
"""Channels that P-Net's heads read."""
NEIGHBOURHOOD_RADIUS = 2
"""Windows read to each side of a candidate's own."""
SCREEN_CANDIDATES = 192
"""Candidates that are classified, best first: 1.5 times what R-Net can get."""
EXTRA_FEATURES = 11
"""Outputs of the extra head: with P-Net's five they are 16, which a convolution computes at once on a CPU."""
HIDDEN_UNITS = 64


class Screen(nn.Module):
    """Classify candidates: P-Net's outputs around them and their pyramid levels -> logits, above 0 for R-Net."""

    def __init__(self, levels: int) -> None:
        super().__init__()
        self.look = nn.Conv2d(FEATURES, EXTRA_FEATURES, 1)
        self.level = nn.Parameter(torch.zeros(levels, HIDDEN_UNITS))
        self.dense1 = nn.Linear((PNET_OUTPUTS + EXTRA_FEATURES) * (2 * NEIGHBOURHOOD_RADIUS + 1) ** 2, HIDDEN_UNITS)
        self.dense2 = nn.Linear(HIDDEN_UNITS, HIDDEN_UNITS // 2)
        self.dense3 = nn.Linear(HIDDEN_UNITS // 2, 1)

    def forward(self, neighbourhoods: Tensor, level: Tensor) -> Tensor:
        """Classify candidates by P-Net's outputs [B,n,C,25] around them and levels [B,n]: logits [B,n]."""
        x = torch.relu(self.dense1(neighbourhoods.flatten(2)) + self.level[level])
        logit: Tensor = self.dense3(torch.relu(self.dense2(x)))
        return logit[..., 0]

    @classmethod
    def load(cls, path: Path, p_net: Path, levels: int) -> Screen | None:
        """Read a safetensors file strictly.

        Args:
            path: of the screen's weights.
            p_net: of P-Net's weights.
            levels: of the pyramid.

        Returns:
            None when the screen was trained for other P-Net weights.

        Raises:
            NetworkError: the file is missing, damaged, or holds something else.
        """
        if not path.is_file():
            raise NetworkError(f"The detector's screen {path} is not there: it is part of the repository.")
        screen = cls(levels)
        try:
            with p_net.open("rb") as weights:
                digest = hashlib.file_digest(weights, "sha256").hexdigest()
            with safe_open(path, "pt") as file:
                if (file.metadata() or {}).get("p_net") != digest:
                    return None
            screen.load_state_dict(load_file(path))
        except (SafetensorError, RuntimeError, OSError) as error:
            raise NetworkError(f"{path} does not hold the detector's screen: {error}") from None
        return screen.eval()
