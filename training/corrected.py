"""The regressor trained beneath the correction of its identity, which stays as it is (`networks.identity_correction`).

A correction that is fitted afterwards moves the shape away from what the other heads were trained with: expression and
pose belong to the shape before it. Here the losses see what is served. dlib's features of a picture are computed once,
from the picture as it is and mirrored, and not under each change of it.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from networks.certainty import digest
from networks.embedder.dlib_resnet import DlibResNet
from networks.identity_correction import FILE, IdentityCorrection, default_weights
from training.precision import autocast

BATCH = 25  # pictures whose features are computed together


class FixedCorrection:
    """A correction read from its file, whatever regressor it belongs to.

    Args:
        path: ``identity_correction.safetensors``.
        margin: pixels around the 224 px crop in the pictures of training.
        device: where the network computes.
    """

    def __init__(self, path: Path, margin: int, device: torch.device) -> None:
        parts = load_file(path)
        network = DlibResNet.load(default_weights())
        self.correction = IdentityCorrection(network, parts["matrix"].float(), parts["offset"].float())
        self.correction = self.correction.eval().requires_grad_(False).to(device)
        self.margin, self.device = margin, device

    @torch.no_grad()
    def features(self, pictures: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
        """Compute dlib's features of pictures as they are and mirrored: (n, 2, 256) float32.

        Args:
            pictures: (n, 3, S, S) uint8 RGB, the 224 px crop with a margin.
            points: (n, 5, 2) pixels of the crop, in the detector's order.
        """
        m, found = self.margin, []
        mirrored = points[:, [1, 0, 2, 4, 3]] * torch.tensor([-1.0, 1.0]) + torch.tensor([223.0, 0.0])
        for part, here, there in zip(pictures.split(BATCH), points.split(BATCH), mirrored.split(BATCH), strict=True):
            crops = part[..., m:-m, m:-m].to(self.device).float()
            chips = torch.cat([self.correction.chip(crops, here), self.correction.chip(crops.flip(3), there)])
            with autocast(self.device):
                features = self.correction.network.features(chips).float()
            found.append(torch.stack(features.chunk(2), 1))
        return torch.cat(found)

    def change(self, identity: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """Correct identities (B, 80) by features (B, 256)."""
        values = torch.cat([identity, features], 1)
        return identity + values @ self.correction.matrix + self.correction.offset


def assign(correction: Path, regressor: Path) -> None:
    """Write a correction beside a regressor's weights, as belonging to them.

    Args:
        correction: ``identity_correction.safetensors``, perhaps of other weights.
        regressor: the weights, which were trained beneath it.
    """
    with safe_open(correction, "pt") as file:
        metadata = {**(file.metadata() or {}), "regressor": digest(regressor)}
    save_file(load_file(correction), regressor.with_name(FILE), metadata)
