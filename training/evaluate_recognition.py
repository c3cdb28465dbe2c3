"""`python -m training.evaluate_recognition`: how well the service tells people apart.

``--pairs FOLDER`` takes any folder with an ``index.csv`` (columns ``file`` and ``person``): every photograph is
compared with every other. ``--lfw FOLDER --protocol pairs.txt`` takes LFW and its own list of pairs in ten folds.
Photographs are detected, aligned and embedded as the service does it, by the
exported detector and embedder; the face in the middle of the photograph is taken. Where no face is found, no pair is
accepted.

Writes ``recognition.json`` and ``recognition.png`` to the folder of --out. Photographs are only measured with; nothing
is trained or chosen by them but the thresholds that are printed.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray

from export.errors import ExportError
from export.options import ROOT
from export.pictures import canvas_of, load_picture
from export.samples import served_alignment
from export.session import Session
from training.recognition_metrics import (
    RATES,
    Pairs,
    accepted,
    accuracies,
    balanced,
    every_pair,
    roc,
    threshold_at,
)

matplotlib.use("Agg")

LOWEST_SCORE = 0.3
"""Least score of a face that is taken, 0..1: a photograph of the protocol shows one."""
TURNED = 20.0
"""Degrees to the side from which a pair with such a face is reported by itself."""
SMALL = 90.0
"""Longer side of a face's box in pixels below which a pair with such a face is reported by itself."""


@dataclass(frozen=True)
class Photographs:
    """Embedded photographs.

    Attributes:
        vectors: float32 [n, D]; zeros where no face was found.
        yaw: float64 [n], turn to the side in degrees.
        size: float64 [n], longer side of the box in pixels.
    """

    vectors: NDArray[np.float32]
    yaw: NDArray[np.float64]
    size: NDArray[np.float64]

    @property
    def found(self) -> NDArray[np.bool_]:
        """Which photographs show a face."""
        return np.asarray(np.abs(self.vectors).sum(axis=1) > 0)


class Recogniser:
    """Detector, alignment and embedder of the model repository."""

    def __init__(self, repository: Path, version: int = 1) -> None:
        files = [repository / "detector" / "1" / "model.onnx", repository / "embedder" / str(version) / "model.onnx"]
        for file in files:
            if not file.is_file():
                raise ExportError(f"{file} is not there: run `make export`.")
        self._detector, self._embedder = (Session(file) for file in files)
        self._points, self._upright = served_alignment(), served_alignment("embedding_crop")

    def embed(self, path: Path) -> tuple[NDArray[np.float32] | None, float, float]:
        """Return a photograph's vector (None: no face), turn in degrees and size in pixels."""
        picture = load_picture(path)
        canvas, geometry = canvas_of(picture)
        faces = self._detector({"canvas": canvas[None], "geometry": geometry[None]})["faces"][0]
        faces = faces[faces[:, 4] >= LOWEST_SCORE]
        if not len(faces):
            return None, float("nan"), float("nan")
        height, width = picture.shape[:2]
        beside = np.hypot(faces[:, [0, 2]].mean(axis=1) - width / 2, faces[:, [1, 3]].mean(axis=1) - height / 2)
        face = faces[int(beside.argmin())]
        points = face[5:].reshape(5, 2)
        crop = self._upright.cut_upright(picture, self._upright.similarity(points))
        vector = self._embedder({"aligned": np.ascontiguousarray(crop.transpose(2, 0, 1))[None]})["embedding"][0]
        return vector, abs(self._points.fit(points, height).yaw), float(max(face[2] - face[0], face[3] - face[1]))

    def embed_all(self, paths: Sequence[Path]) -> Photographs:
        """Embed photographs one by one."""
        rows = [self.embed(path) for path in paths]
        length = next((len(vector) for vector, _, _ in rows if vector is not None), 1)
        vectors = [np.zeros(length, np.float32) if vector is None else vector for vector, _, _ in rows]
        return Photographs(np.stack(vectors), np.array([r[1] for r in rows]), np.array([r[2] for r in rows]))


def read_index(folder: Path) -> list[tuple[Path, str]]:
    """Read ``index.csv``.

    Raises:
        ExportError: it is missing or has other columns.
    """
    try:
        with (folder / "index.csv").open(encoding="utf-8", newline="") as file:
            return [(folder / row["file"], row["person"]) for row in csv.DictReader(file)]
    except (OSError, KeyError) as error:
        raise ExportError(f"{folder} has no index.csv with the columns file and person ({error}).") from error


def read_protocol(folder: Path, protocol: Path) -> Iterator[tuple[Path, Path, bool, int]]:
    """Read LFW's pairs.txt: two photographs, whether they show one person, and the fold.

    The first line has the number of folds and of equal pairs in each, which as many unequal ones follow.

    Raises:
        ExportError: it is not such a list.
    """
    lines = [line.split() for line in protocol.read_text(encoding="utf-8").splitlines() if line.strip()]
    try:
        count = int(lines[0][-1])
        for number, words in enumerate(lines[1:]):
            same = len(words) == 3  # NAME A B, or NAME A OTHER B
            first, second = (words[0], words[1]), (words[0], words[2]) if same else (words[2], words[3])
            a, b = (folder / name / f"{name}_{int(index):04d}.jpg" for name, index in (first, second))
            yield a, b, same, number // (2 * count)
    except (IndexError, ValueError) as error:
        raise ExportError(f"{protocol} is not a list of pairs as LFW's: {error}.") from error


def measure(pairs: Pairs, photographs: Photographs, members: NDArray[np.int64]) -> dict[str, Any]:
    """Compute all figures.

    Args:
        pairs: compared pairs.
        photographs: what they are of.
        members: int64 [pairs, 2], places in ``photographs``.
    """
    folds, found = accuracies(balanced(pairs)), photographs.found[members].all(axis=1)
    thresholds = {rate: threshold_at(pairs, rate) for rate in RATES}
    turned = (photographs.yaw > TURNED)[members].any(axis=1)
    small = (photographs.size < SMALL)[members].any(axis=1)
    parts = {"turned": turned, "frontal": ~turned, "small": small, "large": ~small, "found": found}
    return {
        "photographs": len(photographs.vectors),
        "without a face": int((~photographs.found).sum()),
        "equal pairs": int(pairs.same.sum()),
        "unequal pairs": int((~pairs.same).sum()),
        "accuracy": {"mean": float(folds.mean()), "deviation": float(folds.std()), "folds": folds.tolist()},
        "accuracy where faces were found": float(accuracies(balanced(pairs.of(found))).mean()),
        "thresholds": {f"{rate:g}": thresholds[rate] for rate in RATES},
        "accepted": {f"{rate:g}": accepted(pairs, thresholds[rate]) for rate in RATES},
        "accepted at 0.001": {name: accepted(pairs.of(part), thresholds[1e-3]) for name, part in parts.items()},
        "equal pairs of each": {name: int(pairs.same[part].sum()) for name, part in parts.items()},
    }


def plot(pairs: Pairs, path: Path) -> None:
    """Draw the distribution of similarities and the ROC."""
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    bins = np.linspace(-0.4, 1, 71)
    for same, name, colour in ((False, "two people", "#b5651d"), (True, "one person", "#2b6ca3")):
        left.hist(pairs.similarity[pairs.same == same], bins, density=True, alpha=0.65, label=name, color=colour)
    left.axvline(threshold_at(pairs, 1e-3), color="black", linewidth=1, linestyle="--", label="1 of 1,000 accepted")
    left.set(xlabel="cosine", ylabel="density", title="Similarity of two photographs")
    left.legend(frameon=False)
    false, true = roc(pairs)
    right.semilogx(np.maximum(false, 1e-5), true, color="#2b6ca3")
    right.set(xlim=(1e-5, 1), ylim=(min(0.9, float(true[len(true) // 100])), 1.002), title="ROC")
    right.set(xlabel="part of unequal pairs accepted", ylabel="part of equal pairs accepted")
    right.grid(alpha=0.3)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def compared(options: argparse.Namespace, recogniser: Recogniser) -> tuple[Pairs, Photographs, NDArray[np.int64]]:
    """Embed the photographs that the options name, and compare them."""
    if options.pairs:
        listed = read_index(options.pairs)
        photographs = recogniser.embed_all([path for path, _ in listed])
        pairs, members = every_pair(photographs.vectors, [person for _, person in listed])
        return pairs, photographs, members
    rows = list(read_protocol(options.lfw, options.protocol))
    paths = sorted({path for row in rows for path in row[:2]})
    place = {path: number for number, path in enumerate(paths)}
    photographs = recogniser.embed_all(paths)
    members = np.array([(place[a], place[b]) for a, b, _, _ in rows])
    a, b = (photographs.vectors[members[:, side]].astype(np.float64) for side in (0, 1))
    both = photographs.found[members].all(axis=1)
    similarity = np.where(both, (a * b).sum(axis=1), -1.0)
    return (
        Pairs(similarity, np.array([row[2] for row in rows]), np.array([row[3] for row in rows])),
        photographs,
        members,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0: done, 2: it makes no sense."""
    parser = argparse.ArgumentParser(prog="python -m training.evaluate_recognition", description=__doc__)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--pairs", type=Path, metavar="FOLDER", help="photographs and an index.csv")
    which.add_argument("--lfw", type=Path, metavar="FOLDER", help="LFW's folders, one a person")
    parser.add_argument("--protocol", type=Path, metavar="FILE", help="LFW's pairs.txt")
    parser.add_argument("--repository", type=Path, default=ROOT / "model_repository", metavar="DIR")
    parser.add_argument("--version", type=int, default=1, metavar="N", help="of the embedder (1)")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "recognition", metavar="DIR")
    options = parser.parse_args(arguments)
    if options.lfw and not options.protocol:
        parser.error("--lfw needs --protocol, LFW's pairs.txt")
    try:
        pairs, photographs, members = compared(options, Recogniser(options.repository, options.version))
    except (ExportError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    options.out.mkdir(parents=True, exist_ok=True)
    figures = measure(pairs, photographs, members)
    (options.out / "recognition.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    plot(pairs, options.out / "recognition.png")
    print(json.dumps(figures, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
