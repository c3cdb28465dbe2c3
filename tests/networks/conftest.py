"""What the tests of the networks share: the detector's networks, portraits as pixels, and the session for a graph."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from export.session import Session
from export.stages.trace import onnx_from_module
from networks.detector.cascade import Detector
from networks.detector.contract import example_inputs
from networks.detector.weights import default_weights


def pixels(data: bytes) -> NDArray[np.uint8]:
    """Decode a picture file's bytes to RGB [h,w,3]."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.fixture(scope="session")
def portraits(portrait_bytes: bytes, portrait_jpeg: bytes) -> dict[str, NDArray[np.uint8]]:
    """Return the two public-domain portraits that come with libraries."""
    return {"astronaut": pixels(portrait_bytes), "grace_hopper": pixels(portrait_jpeg)}


@pytest.fixture(scope="session")
def photographs(data_dir: Path) -> dict[str, NDArray[np.uint8]]:
    """Return the portraits of the evaluation pictures; skip where they are missing."""
    archive = data_dir / "portraits.zip"
    if not archive.is_file():
        pytest.skip(f"no {archive.name} in {data_dir}")
    with zipfile.ZipFile(archive) as files:
        names = sorted(n for n in files.namelist() if n.lower().endswith((".jpg", ".jpeg", ".png")))
        return {name: pixels(files.read(name)) for name in names}


@pytest.fixture(scope="session", params=[False, True], ids=["cpu", "fixed"])
def detector(request: pytest.FixtureRequest) -> Detector:
    """Load the detector as a PyTorch module with its trained weights, for CPUs and with fixed sizes."""
    return Detector.load(default_weights(), fixed=request.param)


@pytest.fixture(scope="session")
def detector_session(detector: Detector) -> Session:
    """Load the detector's ONNX graph in ONNX Runtime."""
    return Session(onnx_from_module(detector, example_inputs(), Detector.INPUTS, Detector.OUTPUTS))
