"""Compare the detectors on labelled photographs, on mosaics of them, and on pictures without a face.

    python -m export.reports.detectors FOLDER LABELS.npz [FOLDER LABELS.npz ...] [--limit N] [--mosaics N] [--empty N]

LABELS.npz are MediaPipe's points of a folder's pictures, as `training/label.py` writes them. A face counts as found
when a row of the detector with a score of at least 0.7 has its eyes and nose within 0.6 of the distance between the
eyes. The points' error is the mean distance of the five points over that distance, in percent; the median shift of each
point, which is only the difference between two conventions, is removed. Mosaics hold the pictures as cells of a square
grid, up to 12 x 12; a cell counts as found when a face's centre lies in it. Pictures without a face are parts of
scikit-image's pictures of things and animals at random places and scales, and generated noise, gradients, ellipses and
gratings. Times are processor time of one thread, the detectors in turns.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import skimage
from numpy.typing import NDArray
from torch import nn

from export.pictures import canvas_of, load_picture
from export.session import Session
from export.stages.surgery import clean
from export.stages.trace import onnx_from_module
from networks.detector.cascade import Detector
from networks.detector.contract import INPUTS, OUTPUTS, SLOTS, example_inputs
from networks.detector.single_shot import SingleShotDetector
from networks.detector.weights import default_weights

Floats = NDArray[np.float32]
Picture = NDArray[np.uint8]

SUMMARY = "Compare the detectors on labelled photographs, on mosaics, and on pictures without a face."
THRESHOLD = 0.7
"""The service's score threshold."""
SAME_FACE = 0.6
FIVE = (468, 473, 4, 61, 291)
"""MediaPipe's points: irises, tip of the nose, corners of the mouth, left in the picture first."""
MARGIN = 0.2
"""Border added to labelled pictures, in parts of the longer side: portraits cropped to the face have none."""
GRIDS = (2, 4, 8, 12)
THINGS = (
    "brick.png", "cell.png", "chelsea.png", "chessboard_RGB.png", "clock_motion.png", "coffee.png", "coins.png",
    "color.png", "grass.png", "gravel.png", "horse.png", "hubble_deep_field.jpg", "ihc.png", "microaneurysms.png",
    "moon.png", "motorcycle_left.png", "motorcycle_right.png", "page.png", "phantom.png", "retina.jpg", "rocket.jpg",
    "text.png",
)  # fmt: skip
"""Pictures of scikit-image's wheel that show no person."""


class Labelled(NamedTuple):
    """A picture's canvas and geometry, and its five points [5,2] in source pixels."""

    canvas: Picture
    geometry: Floats
    points: Floats


class FaceErrors(NamedTuple):
    """What a detector made of labelled pictures.

    Attributes:
        pictures: how many there were.
        errors: [n,5,2] of the faces found, in eye distances.
        scores: [n].
    """

    pictures: int
    errors: Floats
    scores: Floats

    def lines(self) -> list[str]:
        """Format the numbers."""
        shifted = self.errors - np.median(self.errors, 0)
        mean = 100 * np.linalg.norm(shifted, axis=2).mean(1)
        scores = ", ".join(f"{value:.3f}" for value in np.percentile(self.scores, (0, 1, 5, 50)))
        error, worse = np.median(mean), np.percentile(mean, 90)
        return [
            f"found {len(self.errors)} of {self.pictures}",
            f"points {error:.2f} % of the eye distance, 90th percentile {worse:.2f} %",
            f"scores, percentiles 0, 1, 5, 50: {scores}",
        ]


def labelled(folders: list[tuple[Path, Path]], limit: int | None) -> list[Labelled]:
    """Load the pictures in which the teacher found a face; with ``limit``, so many, evenly spread, of each folder."""
    result = []
    for folder, labels in folders:
        with np.load(labels, allow_pickle=False) as data:
            known = np.flatnonzero(np.isfinite(data["points"][:, 0, 0]))
            files, points = data["files"][known], data["points"][known][:, FIVE, :2]
        chosen = (
            range(len(files)) if limit is None else np.linspace(0, len(files) - 1, min(limit, len(files))).astype(int)
        )
        for index in chosen:
            picture = load_picture(folder / str(files[index]))
            border = int(MARGIN * max(picture.shape[:2]))
            picture = np.asarray(
                cv2.copyMakeBorder(picture, border, border, border, border, cv2.BORDER_REPLICATE), np.uint8
            )
            result.append(Labelled(*canvas_of(picture), points[index] + border))
    return result


def mosaics(faces: list[Labelled], count: int) -> Iterator[tuple[int, Picture]]:
    """Generate `count` pictures of 1200 px for each grid: cells along a side, and the picture."""
    chance = np.random.default_rng(1)
    for across in GRIDS:
        side = 1200 // across
        for _ in range(count):
            picture = np.zeros((side * across, side * across, 3), np.uint8)
            for row, column in np.ndindex(across, across):
                canvas, geometry, _ = faces[chance.integers(len(faces))]
                width, height = np.round(geometry[:2] / geometry[2:4]).astype(int)
                cell = cv2.resize(
                    canvas[:, :height, :width].transpose(1, 2, 0), (side, side), interpolation=cv2.INTER_AREA
                )
                picture[row * side : (row + 1) * side, column * side : (column + 1) * side] = cell
            yield across, picture


def faceless(count: int) -> Iterator[Picture]:
    """Generate `count` pictures without a face: three fifths parts of photographs, the rest generated."""
    chance = np.random.default_rng(2)
    folder = Path(skimage.__file__).parent / "data"
    things = [load_picture(folder / name) for name in THINGS]
    for index in range(count):
        if index % 5 < 3:
            yield _part(things[index % len(things)], chance)
        else:
            yield _generated(index, chance)


def _part(picture: Picture, chance: np.random.Generator) -> Picture:
    height, width = picture.shape[:2]
    part = np.array([height, width]) * chance.uniform(0.3, 1.0)
    rows, columns = np.maximum(part.astype(int), 16)
    top, left = chance.integers(0, height - rows + 1), chance.integers(0, width - columns + 1)
    return np.rot90(picture[top : top + rows, left : left + columns], chance.integers(4))


def _generated(index: int, chance: np.random.Generator) -> Picture:
    side = 480
    y, x = np.mgrid[0:side, 0:side] / side
    kind = (index // 5) % 4
    if kind == 0:  # noise of one scale
        cells = int(2 ** chance.integers(2, 9))
        noise = chance.integers(0, 256, (cells, cells, 3)).astype(np.uint8)
        return np.asarray(cv2.resize(noise, (side, side), interpolation=cv2.INTER_CUBIC), np.uint8)
    if kind == 1:
        slope = chance.uniform(-200, 200, (3, 2))
        levels = 128 + slope[:, 0, None, None] * (x - 0.5) + slope[:, 1, None, None] * (y - 0.5)
        return np.asarray(levels.clip(0, 255).transpose(1, 2, 0), np.uint8)
    picture = np.full((side, side, 3), chance.integers(0, 256, 3), np.uint8)
    if kind == 2:
        for _ in range(40):
            centre, axes = chance.integers(0, side, 2), chance.integers(4, 120, 2)
            colour = [int(level) for level in chance.integers(0, 256, 3)]
            cv2.ellipse(picture, centre.tolist(), axes.tolist(), float(chance.uniform(0, 180)), 0, 360, colour, -1)
        return picture
    wave = np.sin(2 * np.pi * chance.uniform(2, 40) * (x * chance.normal() + y * chance.normal()))
    return np.asarray((127 + 120 * wave)[..., None].repeat(3, 2), np.uint8)


def errors_of(session: Session, faces: list[Labelled]) -> FaceErrors:
    """Detect the faces of labelled pictures and compare their points."""
    errors, scores = [], []
    for canvas, geometry, points in faces:
        rows = session({"canvas": canvas[None], "geometry": geometry[None]})["faces"][0]
        rows = rows[rows[:, 4] >= THRESHOLD]
        eyes = points[1] - points[0]
        distance = float(np.linalg.norm(eyes))
        found = rows[:, 5:].reshape(-1, 5, 2) - points
        far = np.linalg.norm(found[:, :3], axis=2).mean(1) / distance
        if len(far) and far.min() < SAME_FACE:
            cosine, sine = eyes / distance
            best = int(far.argmin())
            errors.append(found[best] @ np.array([[cosine, -sine], [sine, cosine]]) / distance)
            scores.append(rows[best, 4])
    return FaceErrors(len(faces), np.array(errors, np.float32), np.array(scores, np.float32))


def cells_found(session: Session, pictures: list[tuple[int, Picture]]) -> dict[int, tuple[int, int]]:
    """Count, for each grid, the cells in which a face was found, and those that could be, which the slots limit."""
    counts = dict.fromkeys(GRIDS, (0, 0))
    for across, picture in pictures:
        canvas, geometry = canvas_of(picture)
        rows = session({"canvas": canvas[None], "geometry": geometry[None]})["faces"][0]
        rows = rows[rows[:, 4] >= THRESHOLD]
        centres = (rows[:, :2] + rows[:, 2:4]) / 2 // (picture.shape[0] / across)
        found, all_cells = counts[across]
        cells = len({(int(column), int(row)) for column, row in centres})
        counts[across] = (found + cells, all_cells + min(across * across, SLOTS))
    return counts


def false_alarms(session: Session, pictures: list[Picture]) -> list[float]:
    """Return the scores from the service's threshold on that pictures without a face got, one a picture."""
    alarms = []
    for picture in pictures:
        canvas, geometry = canvas_of(picture)
        best = float(session({"canvas": canvas[None], "geometry": geometry[None]})["faces"][0, 0, 4])
        if best >= THRESHOLD:
            alarms.append(best)
    return alarms


def milliseconds(sessions: Mapping[str, Session], faces: list[Labelled], rounds: int = 40) -> dict[str, float]:
    """Return the median processor time of each detector for one picture, measured in turns."""
    times: dict[str, list[float]] = {name: [] for name in sessions}
    for number in range(rounds):
        canvas, geometry, _ = faces[number % len(faces)]
        for name, session in sessions.items():
            start = time.thread_time()
            session({"canvas": canvas[None], "geometry": geometry[None]})
            times[name].append(time.thread_time() - start)
    return {name: 1000 * float(np.median(values)) for name, values in times.items()}


def candidates(names: list[str]) -> dict[str, nn.Module]:
    """Load the detectors of the command line: ``mtcnn``, or ``yunet-SIDE`` for a canvas reduced to SIDE pixels."""
    return {
        name: Detector.load(default_weights())
        if name == "mtcnn"
        else SingleShotDetector.load(side=int(name.split("-")[1]))
        for name in names
    }


def main(arguments: list[str] | None = None) -> int:
    """Print the comparison; return 0."""
    parser = argparse.ArgumentParser(prog="python -m export.reports.detectors", description=SUMMARY)
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER LABELS", help="pictures and their labels")
    parser.add_argument("--detectors", nargs="+", default=["mtcnn", "yunet-320"], help="mtcnn, yunet-SIDE")
    parser.add_argument("--limit", type=int, help="take only so many pictures of each folder")
    parser.add_argument("--mosaics", type=int, default=0, help="so many of each grid")
    parser.add_argument("--empty", type=int, default=0, help="so many pictures without a face")
    options = parser.parse_args(arguments)
    faces = labelled(list(zip(options.folders[::2], options.folders[1::2], strict=True)), options.limit)
    sessions = {
        name: Session(clean(onnx_from_module(module, example_inputs(), INPUTS, OUTPUTS)), threads=1)
        for name, module in candidates(options.detectors).items()
    }
    crowds, empty = list(mosaics(faces, options.mosaics)), list(faceless(options.empty))
    times = milliseconds(sessions, faces)
    for name, session in sessions.items():
        print(f"{name}: {times[name]:.1f} ms")
        for line in errors_of(session, faces).lines():
            print(f"  {line}")
        for across, (found, cells) in cells_found(session, crowds).items():
            if cells:
                print(f"  {across} x {across} faces: {found} of {cells} = {found / cells:.1%}")
        alarms = false_alarms(session, empty)
        print(
            f"  {len(empty)} pictures without a face: {len(alarms)} false alarms", *(f"{score:.2f}" for score in alarms)
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
