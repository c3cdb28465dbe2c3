"""Label crops for the parser: what is skin, what is hair, what is neither.

Two steps, because mediapipe pins old versions of shared libraries and runs in an environment of its own::

    python -m training.parser_labels crops PICTURES CROPS.npy
    .tools/teacher/bin/python -m training.parser_labels teach CROPS.npy PARSING.onnx LABELS.npy

Three teachers are joined. A portrait parser (PAN on MobileNetV3; skin, clothes, hair) knows hair from skin and takes
background for either; MediaPipe's selfie segmentation (Apache-2.0) knows the person from the background; with its face
mesh (Apache-2.0), which knows where the chin is, beards and short hair are mended (`training.parser_mending`).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from training.parser_mending import mended

SIDE = 512  # of the crops, and of the parsing teacher's input
LABEL_SIDE = 256
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of the parsing teacher's input, RGB 0..1
# Channels of the labels; unknown: 255 where nobody knows what is shown.
SKIN, HAIR, PERSON, UNKNOWN = range(4)

F32 = npt.NDArray[np.float32]
U8 = npt.NDArray[np.uint8]


def crops(folder: Path, output: Path) -> None:
    """Write the 512 px crops of a folder's faces, uint8 (n, 512, 512, 3).

    Beside them: their files (``.txt``), and where the 224 px crop lies in each (``.places.npy``, (n, 4) float32: pixels
    of the picture for one of the crop, across and down, and the crop's origin in the picture).
    """
    from training.crops import faces_of, listed

    files = listed(folder)
    pictures = np.lib.format.open_memmap(output.with_suffix(".part"), "w+", np.uint8, (len(files), SIDE, SIDE, 3))
    names: list[str] = []
    places: list[F32] = []
    for index, sample in faces_of(folder, files, f"crops of {folder.name}"):
        if sample is not None:
            pictures[len(names)] = sample.crop_hd[0].transpose(1, 2, 0)
            names.append(files[index])
            places.append(sample.context[0, 15:19])
    np.save(output, pictures[: len(names)])
    output.with_suffix(".part").unlink()
    np.save(output.with_suffix(".places.npy"), np.stack(places))
    output.with_suffix(".txt").write_text("".join(f"{name}\n" for name in names))


def parsing(session: Any, picture: U8) -> F32:
    """Skin, clothes and hair (3, 512, 512) 0..1 of a crop (512, 512, 3)."""
    scaled = (picture.astype(np.float32) / 255 - MEAN) / DEVIATION
    feed = {session.get_inputs()[0].name: scaled.transpose(2, 0, 1)[None].astype(np.float32)}
    answer: F32 = session.run(None, feed)[0][0]
    return answer


def points_of(mesh: Any, picture: U8) -> F32:
    """MediaPipe's points (478, 2) in pixels of the labels, of a crop (512, 512, 3); NaN where it sees no face."""
    found = mesh.process(picture).multi_face_landmarks
    if not found:
        return np.full((478, 2), np.nan, np.float32)
    return np.array([(point.x, point.y) for point in found[0].landmark], np.float32) * LABEL_SIDE - np.float32(0.5)


def _small(picture: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return cv2.resize(picture, (LABEL_SIDE, LABEL_SIDE), interpolation=cv2.INTER_AREA)


def teach(pictures: Path, network: Path, output: Path) -> None:
    """Write the teachers' answers, mended, uint8 (n, 4, 256, 256) 0..255: skin, hair, person, unknown."""
    import mediapipe
    import onnxruntime
    from tqdm import tqdm

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(network, options)
    selfie = mediapipe.solutions.selfie_segmentation.SelfieSegmentation(model_selection=0)
    mesh = mediapipe.solutions.face_mesh.FaceMesh(static_image_mode=True, max_num_faces=1, refine_landmarks=True)
    crops_ = np.load(pictures, mmap_mode="r")
    labels = np.lib.format.open_memmap(
        output.with_suffix(".part"), "w+", np.uint8, (len(crops_), 4, LABEL_SIDE, LABEL_SIDE)
    )
    for index in tqdm(range(len(crops_)), desc="label", mininterval=5):
        picture = np.ascontiguousarray(crops_[index])
        masks = (*parsing(session, picture), selfie.process(picture).segmentation_mask)
        answers = np.stack([_small(mask) for mask in masks]).clip(0, 1)
        labels[index] = mended(answers, points_of(mesh, picture), _small(picture))
    labels.flush()
    output.with_suffix(".part").replace(output)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    cutting = commands.add_parser("crops")
    cutting.add_argument("pictures", type=Path, help="folder with index.csv")
    cutting.add_argument("crops", type=Path, help="output .npy")
    teaching = commands.add_parser("teach")
    teaching.add_argument("crops", type=Path)
    teaching.add_argument("network", type=Path, help="the parsing teacher, ONNX")
    teaching.add_argument("labels", type=Path, help="output .npy")
    a = parser.parse_args()
    if a.command == "crops":
        crops(a.pictures, a.crops)
    else:
        teach(a.crops, a.network, a.labels)
