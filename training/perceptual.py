"""How far apart two pictures of a face are for a network: the distance of LPIPS on features of dlib's face network.

Zhang, Isola, Efros, Shechtman, Wang: The Unreasonable Effectiveness of Deep Features as a Perceptual Metric, CVPR 2018.
It is not LPIPS, whose networks no package brings: the features are those of a network for faces, and all of them count
alike, as in the unweighted distance of that paper.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from networks.embedder.dlib_resnet import SIDE, DlibResNet
from networks.identity_correction import default_weights

U8 = npt.NDArray[np.uint8]

# Residual blocks behind which maps are compared: the last of each resolution but the coarsest.
LAST = (2, 6, 9)


class Perceptual:
    """The distance: 0 for the same picture, at most 4."""

    def __init__(self) -> None:
        self._network = DlibResNet.load(default_weights()).eval()

    @torch.no_grad()
    def __call__(self, a: U8, b: U8) -> float:
        """Compare pictures (h, w, 3) RGB of 150 pixels a side or more, by the four windows in their corners."""
        windows = [part for picture in (a, b) for part in _corners(picture)]
        pixels = torch.from_numpy(np.stack(windows).transpose(0, 3, 1, 2).copy()).float()
        distances = []
        for layer in self._maps(pixels):
            one, two = F.normalize(layer, dim=1).chunk(2)
            distances.append((one - two).square().sum(1).mean())
        return float(torch.stack(distances).mean())

    def _maps(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        network = self._network
        x = torch.relu(network.stem((pixels - network.mean) / 256))
        found = [x]
        x = F.max_pool2d(x, 3, 2)
        for index in range(LAST[-1] + 1):
            x = network.blocks[index](x)
            if index in LAST:
                found.append(x)
        return found


def _corners(picture: U8) -> list[U8]:
    return [picture[y, x] for y in (slice(SIDE), slice(-SIDE, None)) for x in (slice(SIDE), slice(-SIDE, None))]
