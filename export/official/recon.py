"""Load `net_recon` of ModelScope / HRN, Deep3DFaceRecon and 3DDFA-V3, which share one layout, as a regressor."""

from __future__ import annotations

from pathlib import Path

from export.errors import ExportError
from export.official import checkpoint
from networks.head_model import AnyFaceModel
from networks.regressor import ReconstructionNet, Regressor

BFM_VERTICES = 35_709
"""Vertices of the face model that all published checkpoints were trained with."""


def load_regressor(path: Path, face_model: AnyFaceModel) -> Regressor:
    """Read a published checkpoint strictly and combine it with a face model.

    Args:
        path: `pytorch_model.pt` (or its folder), `epoch_NN.pth`, `net_recon.pth`, or the same as safetensors.
        face_model: the BFM face model, for whose coefficients the network was trained.

    Raises:
        ExportError: the file is damaged, of another network or revision, untrained, or the face model is another one.
    """
    path = checkpoint.resolve(path)
    content = checkpoint.read(path)
    checkpoint.refuse_v1(path, content)
    checkpoint.check_details(content, path)
    network = ReconstructionNet()
    checkpoint.load_strictly(network, checkpoint.state_dict(content, path), path)
    checkpoint.refuse_zero_heads(list(network.final_layers), path)
    if len(face_model.mean) != BFM_VERTICES:
        raise ExportError(
            f"The checkpoint {path} speaks of the Basel Face Model with {BFM_VERTICES} vertices, and the face model "
            f"'{face_model.name}' has {len(face_model.mean)}: make one with `python -m export.official.face_models bfm "
            "...` and name it with --face-model."
        )
    return Regressor(network, face_model).eval()
