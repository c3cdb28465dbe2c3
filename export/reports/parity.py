"""Compare MTCNN's graph with the sequential cascade on a folder of photographs.

    python -m export.reports.parity FOLDER [--limit N] [--mosaics N]

For every picture the sequential cascade runs on the picture itself and the graph on its 512 px canvas, as in the
service. A face counts as found when a face of the graph overlaps it by IoU >= 0.85; its points agree when each of
the five lies within 3 % of the box's longer side. Mosaics combine 4 to 16 of the pictures, to test crowds.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from export.models.detector import SAME_IOU, SAME_POINTS, iou
from export.pictures import canvas_of, load_picture, pictures_in
from export.session import Session
from export.stages.trace import onnx_from_module
from networks.detector import reference
from networks.detector.cascade import Detector
from networks.detector.contract import FACE_THRESHOLD, example_inputs
from networks.detector.mtcnn import ONet, PNet, RNet
from networks.detector.pyramid import MIN_FACE
from networks.detector.weights import default_weights

Floats = NDArray[np.float32]
Picture = NDArray[np.uint8]
Run = Callable[[NDArray[np.uint8], Floats], Floats]

MIN_FACE_SHARE = 0.08
"""Faces below this part of the picture's short side are not counted."""
MIN_RATE = 0.97
"""Least part of the faces that the graph has to find."""
SUMMARY = "Compare the detector graph with the sequential cascade on a folder of photographs."


@dataclass
class Agreement:
    """Counts and errors of the pictures compared so far."""

    pictures: int = 0
    faces: int = 0
    found: int = 0
    points: int = 0
    extra: int = 0
    ious: list[float] = field(default_factory=list)
    point_errors: list[float] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)

    def add(self, name: str, short_side: int, sequential: Floats, graph: Floats) -> None:
        """Compare the sequential cascade's faces [n,15] with the graph's [m,15] (from `FACE_THRESHOLD` on)."""
        self.pictures += 1
        min_side = MIN_FACE_SHARE * short_side
        for row in sequential[
            np.minimum(sequential[:, 2] - sequential[:, 0], sequential[:, 3] - sequential[:, 1]) > min_side
        ]:
            self.faces += 1
            overlap = iou(row[:4], graph[:, :4]) if len(graph) else np.zeros(1, np.float32)
            best = int(overlap.argmax())
            self.ious.append(float(overlap[best]))
            if overlap[best] < SAME_IOU:
                self.missed.append(f"{name} (score {row[4]:.2f}, IoU {overlap[best]:.2f})")
                continue
            self.found += 1
            distance = np.linalg.norm((row[5:] - graph[best, 5:]).reshape(5, 2), axis=1).max()
            error = float(distance / max(row[2] - row[0], row[3] - row[1]))
            self.point_errors.append(error)
            self.points += error <= SAME_POINTS
        for row in graph[np.minimum(graph[:, 2] - graph[:, 0], graph[:, 3] - graph[:, 1]) > min_side]:
            self.extra += not len(sequential) or float(iou(row[:4], sequential[:, :4]).max()) < 0.5

    @property
    def rate(self) -> float:
        """Return the part of the sequential cascade's faces that the graph finds, 0..1."""
        return self.found / max(1, self.faces)

    def lines(self) -> list[str]:
        """Format the numbers, one sentence each."""
        errors = self.point_errors or [0.0]
        return [
            f"{self.pictures} pictures, {self.faces} faces of the cascade above {MIN_FACE_SHARE:.0%} of the short side",
            f"same face (IoU >= {SAME_IOU}): {self.found} = {self.rate:.1%}; mean IoU {np.mean(self.ious or [0]):.3f}",
            f"all five points within {SAME_POINTS:.0%} of the box: {self.points} of {self.found}",
            f"worst of the five: {np.mean(errors):.2%} of the box, 95th percentile {np.percentile(errors, 95):.2%}",
            f"faces of the graph that the sequential cascade has not: {self.extra}",
        ]


def compare(
    pictures: Iterator[tuple[str, Picture]], networks: tuple[PNet, RNet, ONet], run: Run, on_canvas: bool = False
) -> Agreement:
    """Run both on every picture; `run` maps canvas [1,3,512,512] and geometry [1,6] to faces [1,64,15]."""
    agreement = Agreement()
    for name, picture in pictures:
        canvas, geometry = canvas_of(picture)
        faces = run(canvas[None], geometry[None])[0]
        ratio = float(max(geometry[2:4]))
        if on_canvas:
            size = np.round(geometry[:2] / geometry[2:4]).astype(int)
            sequential = reference.detect(canvas.transpose(1, 2, 0)[: size[1], : size[0]], networks, MIN_FACE)
            scale = np.tile(geometry[2:4], 7)
            sequential[:, [0, 1, 2, 3, *range(5, 15)]] = (
                sequential[:, [0, 1, 2, 3, *range(5, 15)]] + 0.5
            ) * scale - 0.5
        else:
            sequential = reference.detect(picture, networks, MIN_FACE * ratio)
        agreement.add(name, min(picture.shape[:2]), sequential, faces[faces[:, 4] >= FACE_THRESHOLD])
    return agreement


def mosaics(files: list[Path], count: int) -> Iterator[tuple[str, Picture]]:
    """Generate `count` pictures of about 1200 px that hold 2x2 to 4x4 of the given ones."""
    chance = random.Random(1)
    for index in range(count):
        across = 2 + index % 3
        side = 1200 // across
        picture = np.zeros((side * across, side * across, 3), np.uint8)
        for cell in range(across * across):
            row, col = divmod(cell, across)
            part = cv2.resize(load_picture(chance.choice(files)), (side, side), interpolation=cv2.INTER_AREA)
            picture[row * side : (row + 1) * side, col * side : (col + 1) * side] = part
        yield f"mosaic {index} ({across}x{across})", picture


def main(arguments: list[str] | None = None) -> int:
    """Print the agreement; return 0, 1 below `MIN_RATE`, or 2 without pictures."""
    parser = argparse.ArgumentParser(prog="python -m export.reports.parity", description=SUMMARY)
    parser.add_argument("folder", type=Path, help="photographs, in subfolders too")
    parser.add_argument("--limit", type=int, help="take only so many of them")
    parser.add_argument("--mosaics", type=int, default=0, help="add so many pictures of 4 to 16 faces")
    parser.add_argument(
        "--on-canvas", action="store_true", help="let the sequential cascade see the 512 px canvas, too"
    )
    options = parser.parse_args(arguments)
    files = pictures_in(options.folder, options.limit)
    if not files:
        print(f"There are no pictures in {options.folder}.", file=sys.stderr)
        return 2
    detector = Detector.load(default_weights())
    session = Session(onnx_from_module(detector, example_inputs(), Detector.INPUTS, Detector.OUTPUTS))

    def run(canvas: Picture, geometry: Floats) -> Floats:
        return session({"canvas": canvas, "geometry": geometry})["faces"]

    def pictures() -> Iterator[tuple[str, Picture]]:
        for file in files:
            yield str(file.relative_to(options.folder)), load_picture(file)
        yield from mosaics(files, options.mosaics)

    agreement = compare(pictures(), (detector.p_net, detector.r_net, detector.o_net), run, options.on_canvas)
    print("\n".join(agreement.lines()))
    for name in agreement.missed[:20]:
        print("  not the same:", name)
    return 0 if agreement.rate >= MIN_RATE else 1


if __name__ == "__main__":
    sys.exit(main())
