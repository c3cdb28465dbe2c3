"""A small network between P- and R-Net: which of P-Net's candidates would R-Net refuse anyway?

A photograph gives R-Net 60 to 128 candidates of which it takes ten, and these cost half as much as all of P-Net. P-Net
has looked at each of them through one window; whether it is a face shows as well in what it saw through the windows
around. So its last convolution gives some more numbers a window, and from those of 5 x 5 windows a candidate is judged.
Who passes is none the worse for it: the cascade computes its numbers from the pixels, as before.

Trained by `training/screen.py` for one P-Net, whose digest stands in the file.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from networks.errors import NetworkError

ANSWERS = 5
"""What P-Net says of a window: logit of a face and four offsets."""
FEATURES = 32
"""What P-Net's last convolutions read."""
REACH = 2
"""Windows looked at to each side of a candidate's."""
CANDIDATES = 192
"""Candidates that are judged, best first: half as many again as R-Net may get."""
LOOKED = 11
"""Numbers a window besides P-Net's answer: 16 are what a convolution computes at once on a CPU."""
HIDDEN = 64


class Screen(nn.Module):
    """[B,n,C,25] answers around candidates, and their levels [B,n] -> [B,n], above 0: R-Net has to see it."""

    def __init__(self, levels: int) -> None:
        super().__init__()
        self.look = nn.Conv2d(FEATURES, LOOKED, 1)
        self.level = nn.Parameter(torch.zeros(levels, HIDDEN))
        self.dense1 = nn.Linear((ANSWERS + LOOKED) * (2 * REACH + 1) ** 2, HIDDEN)
        self.dense2 = nn.Linear(HIDDEN, HIDDEN // 2)
        self.dense3 = nn.Linear(HIDDEN // 2, 1)

    def forward(self, around: Tensor, level: Tensor) -> Tensor:
        x = torch.relu(self.dense1(around.flatten(2)) + self.level[level])
        logit: Tensor = self.dense3(torch.relu(self.dense2(x)))
        return logit[..., 0]

    @classmethod
    def load(cls, path: Path, p_net: Path, levels: int) -> Screen | None:
        """Read a safetensors file strictly; None when it was trained for another P-Net than the file `p_net`.

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
