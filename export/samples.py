"""Real inputs of the networks, made as the service makes them: canvases, and crops by the served alignment.

They calibrate INT8, feed the gates, and warm models up. Two public-domain portraits come with scikit-image and
matplotlib; a folder of photographs may be given in addition.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from export.errors import ExportError
from export.pictures import canvas_of, load_picture

Picture = NDArray[np.uint8]
ROOT = Path(__file__).resolve().parents[1]
THRESHOLD = 0.9
"""Score that a face needs to become a sample, 0..1: false detections must neither calibrate nor judge a network."""


@dataclass(frozen=True)
class Sample:
    """The networks' inputs for one face, each with a batch axis of 1 (shapes: tensor table of ARCHITECTURE.md)."""

    name: str
    canvas: NDArray[np.uint8]
    geometry: NDArray[np.float32]
    crop: NDArray[np.uint8]
    crop_hd: NDArray[np.uint8]
    aligned: NDArray[np.uint8]
    context: NDArray[np.float32]


class FaceDetector(Protocol):
    """The detector as a function."""

    def __call__(self, canvas: NDArray[np.uint8], geometry: NDArray[np.float32]) -> NDArray[np.float32]:
        """Detect the faces of one picture: canvas [1,3,512,512] and geometry [1,6] -> faces [1,64,15]."""
        ...


def served_alignment(name: str = "alignment") -> ModuleType:
    """Import a module of the served alignment, from the newest version folder of the model `align`."""
    folder = ROOT / "model_repository" / "align"
    versions = sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())
    path = str(folder / str(versions[-1]))
    if path not in sys.path:  # as in the Python stub: the module imports others of its folder
        sys.path.append(path)
    return importlib.import_module(name)


def sample_of(name: str, picture: Picture, detect_faces: FaceDetector, threshold: float = THRESHOLD) -> Sample | None:
    """Make a sample of the best face of an RGB picture [h,w,3]; None where no face has the score ``threshold``."""
    alignment = served_alignment()
    canvas, geometry = canvas_of(picture)
    face = detect_faces(canvas[None], geometry[None])[0, 0]
    if face[4] < threshold:
        return None
    height, width = picture.shape[:2]
    camera = alignment.fit(face[5:].reshape(5, 2), height)
    windows = [alignment.window(camera, (width, height), size) for size in (224, 512)]
    if any(max(window.width, window.height) > 20_000 for window in windows):
        return None  # nearly equal points: the crop would enlarge a few pixels
    crop, crop_hd = (_planes(alignment.cut(picture, window)) for window in windows)
    upright = served_alignment("embedding_crop")
    aligned = _planes(upright.cut_upright(picture, upright.similarity(face[5:].reshape(5, 2))))
    cameras: list[Any] = [number for window in windows for number in window.camera((width, height))]
    context = np.concatenate([face, np.array(cameras, np.float32)])[None]
    return Sample(name, canvas[None], geometry[None], crop, crop_hd, aligned, context.astype(np.float32))


def samples_of(pictures: Iterable[tuple[str, Picture]], detect_faces: FaceDetector) -> list[Sample]:
    """Make samples of named pictures; pictures without a face are left out."""
    return list(samples_from(pictures, detect_faces))


def samples_from(pictures: Iterable[tuple[str, Picture]], detect_faces: FaceDetector) -> Iterator[Sample]:
    """Make samples lazily, one by one; pictures without a face are left out."""
    return (sample for name, picture in pictures if (sample := sample_of(name, picture, detect_faces)) is not None)


def built_in_portraits() -> list[tuple[str, Picture]]:
    """Load Eileen Collins (NASA) and Grace Hopper (US Navy): public domain, with scikit-image and matplotlib.

    Raises:
        ExportError: a package is missing.
    """
    files = [
        ("astronaut", "skimage", ("data", "astronaut.png")),
        ("grace_hopper", "matplotlib", ("mpl-data", "sample_data", "grace_hopper.jpg")),
    ]
    portraits = []
    for name, package, parts in files:
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            raise ExportError(f"The package {package} is missing, which holds a test portrait: run `make setup`.")
        portraits.append((name, load_picture(Path(spec.origin).parent.joinpath(*parts))))
    return portraits


def varied_portraits(count: int, seed: int = 0) -> Iterator[tuple[str, Picture]]:
    """Generate the built-in portraits and variations of them, for exports without photographs."""
    portraits = built_in_portraits()
    chance = np.random.default_rng(seed)
    for index in range(count):
        name, picture = portraits[index % len(portraits)]
        yield f"{name}, variation {index // len(portraits)}", vary(picture, chance) if index >= 2 else picture


def vary(picture: Picture, chance: np.random.Generator) -> Picture:
    """Vary a picture: rotation up to 20 degrees, scale 0.7 to 1.3, mirroring, gamma, tint and blur at random."""
    height, width = picture.shape[:2]
    transform = cv2.getRotationMatrix2D((width / 2, height / 2), chance.uniform(-20, 20), chance.uniform(0.7, 1.3))
    warped = cv2.warpAffine(
        picture, transform, (width, height), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REFLECT_101
    )
    if chance.random() < 0.5:
        warped = warped[:, ::-1]
    lit = (warped / 255.0) ** chance.uniform(0.6, 1.6) * chance.uniform(0.8, 1.1, 3)
    blurred = cv2.GaussianBlur(lit, (0, 0), chance.uniform(0.3, 1.5))
    return np.ascontiguousarray((blurred.clip(0, 1) * 255).astype(np.uint8))


def _planes(crop: Picture) -> Picture:
    return np.ascontiguousarray(crop.transpose(2, 0, 1))[None]
