"""The quality gate: what a variant must hold against float32 before it may enter the repository.

Every criterion is a number with a bound; the numbers go into the sidecar and the report, whether they pass or not.
Speed is judged as a ratio in the same run, never in milliseconds.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import skimage.metrics
from numpy.typing import NDArray

from export.detector.parity import SAME_IOU, SAME_POINTS, iou
from export.parts import as_served
from export.saturation import saturating
from export.session import Feed, Session, median_seconds, stack

BATCH = 4
"""Samples run together."""
MOST_TIME = 0.95
"""A variant may take this part of float32's time: what gains less is not worth another file."""


@dataclass(frozen=True)
class Criterion:
    """One number and its bound; `bound` None: reported, not judged."""

    name: str
    value: float
    bound: float | None = None
    sense: Literal["at least", "at most"] = "at most"

    @property
    def passed(self) -> bool:
        """Whether the number is on the right side of its bound. NaN never is."""
        if self.bound is None:
            return True
        return bool(self.value >= self.bound if self.sense == "at least" else self.value <= self.bound)

    def __str__(self) -> str:
        if self.bound is None:
            return f"{self.name} {self.value:.4g}"
        mark = "ok" if self.passed else "FAILED"
        return f"{self.name} {self.value:.4g} ({self.sense} {self.bound:g}: {mark})"


@dataclass(frozen=True)
class Verdict:
    """All criteria of one variant."""

    criteria: tuple[Criterion, ...]

    @property
    def passed(self) -> bool:
        """Whether every criterion holds."""
        return all(criterion.passed for criterion in self.criteria)

    def __str__(self) -> str:
        return "; ".join(str(criterion) for criterion in self.criteria)

    def as_dict(self) -> dict[str, Any]:
        """For the sidecar."""
        return {
            "passed": self.passed,
            "criteria": [
                {**vars(c), "value": float(f"{c.value:.6g}"), "passed": bool(c.passed)} for c in self.criteria
            ],
        }


def compare_detector(wanted: Feed, given: Feed, _feed: Feed) -> list[Criterion]:
    """Same faces by IoU and points, over all faces of float32 with a score of 0.7 and more."""
    same = points = total = 0
    overlaps = []
    for plain, all_rows in zip(wanted["faces"], given["faces"], strict=True):
        other = all_rows[all_rows[:, 4] >= 0.5]
        for row in plain[plain[:, 4] >= 0.7]:
            total += 1
            overlap = iou(row[:4], other[:, :4])
            if not overlap.size:
                overlaps.append(0.0)
                continue
            best = int(overlap.argmax())
            overlaps.append(float(overlap[best]))
            same += overlap[best] >= SAME_IOU
            side = max(row[2] - row[0], row[3] - row[1])
            points += np.linalg.norm((row[5:] - other[best, 5:]).reshape(5, 2), axis=1).max() <= SAME_POINTS * side
    return [
        Criterion("faces compared", float(total), 1, "at least"),
        Criterion(f"same faces (IoU >= {SAME_IOU})", same / max(1, total), 0.97, "at least"),
        Criterion(f"points within {SAME_POINTS:.0%} of the box", points / max(1, total), 0.97, "at least"),
        Criterion("mean IoU", float(np.mean(overlaps or [0.0]))),
    ]


def compare_regressor(wanted: Feed, given: Feed, feed: Feed) -> list[Criterion]:
    """Coefficients, shape in the head's own frame, and where the landmarks land in the 224 px crop."""
    a, b = wanted["coefficients"].astype(np.float64), given["coefficients"].astype(np.float64)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosine = np.where(norms > 0, (a * b).sum(1) / np.maximum(norms, 1e-12), np.all(a == b, axis=1))
    head = np.linalg.norm(wanted["shapes"][:, 1] - given["shapes"][:, 1], axis=-1) * 100  # dm -> mm
    posed = np.linalg.norm(wanted["vertices"] - given["vertices"], axis=-1)
    pixels = (wanted["landmarks"] - given["landmarks"]) / feed["context"][:, None, 15:17]
    return [
        Criterion("coefficients, mean cosine", float(cosine.mean()), 0.99, "at least"),
        Criterion("vertices in the head frame, mean mm", float(head.mean()), 0.3),
        Criterion("landmarks in the crop, mean px", float(np.linalg.norm(pixels, axis=-1).mean()), 0.5),
        Criterion("vertices in the camera frame, mean mm", float(posed.mean())),
        Criterion("coefficients, smallest cosine", float(cosine.min())),
    ]


def compare_texture(wanted: Feed, given: Feed, _feed: Feed) -> list[Criterion]:
    """Structural similarity and mean squared error (0..1) of the textures; visibility must hardly change."""
    similarities, errors = [], []
    for a, b in zip(wanted["texture"], given["texture"], strict=True):
        similarities.append(similarity(a, b))
        errors.append(np.mean(((a.astype(np.float64) - b) / 255.0) ** 2))
    moved = np.abs(wanted["visibility"].astype(np.int16) - given["visibility"]) > 8
    return [
        Criterion("texture, mean SSIM", float(np.mean(similarities)), 0.982, "at least"),
        Criterion("texture, mean squared error", float(np.mean(errors)), 0.005),
        Criterion("visibility, part of texels that differ", float(moved.mean()), 0.01),
        Criterion("texture, smallest SSIM", float(np.min(similarities))),
    ]


def similarity(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """Structural similarity of two uint8 pictures [3,h,w]."""
    structural_similarity: Callable[..., Any] = skimage.metrics.structural_similarity
    return float(structural_similarity(a, b, channel_axis=0, data_range=255))


Compare = Callable[[Feed, Feed, Feed], list[Criterion]]
COMPARE: dict[str, Compare] = {
    "detector": compare_detector,
    "regressor": compare_regressor,
    "texture": compare_texture,
}


def judge(
    network: str,
    plain: onnx.ModelProto,
    variant: onnx.ModelProto,
    feeds: Sequence[Feed],
    timed: bool = True,
    rounds: int = 7,
    any_x86: bool = True,
) -> Verdict:
    """Run float32 and the variant on the same samples and judge the variant.

    Integer products that cannot saturate give the same sums on every processor, so that what is measured on this one
    holds on all.

    Args:
        network: name of the network.
        plain, variant: graphs with the same interface.
        feeds: single samples.
        timed: also ask that the variant is faster, and run both as this machine would serve them (not for graphs that
            are meant for another one, which run by kernels that do not saturate).
        rounds: runs that are timed.
        any_x86: also ask that no integer product can saturate on a processor without VNNI.
    """
    graphs = {"plain": plain, "variant": variant}
    sessions = {name: as_served(graph) if timed else Session(graph, exact=True) for name, graph in graphs.items()}
    runs: dict[str, list[Feed]] = {name: [] for name in sessions}
    batches = [stack(feeds[i : i + BATCH]) for i in range(0, len(feeds), BATCH)]
    for batch in batches:
        for name, session in sessions.items():
            runs[name].append(session(batch))
    criteria = COMPARE[network](stack(runs["plain"]), stack(runs["variant"]), stack(batches))
    criteria.append(Criterion("values that are not finite", float(_not_finite(runs["variant"])), 0))
    criteria.append(exactness(variant, any_x86))
    if timed:
        criteria += _speed(sessions, feeds[0], rounds)
    return Verdict(tuple(criteria))


def exactness(model: onnx.ModelProto, any_x86: bool = True) -> Criterion:
    """How many products of a graph can saturate without VNNI; `any_x86`: none may."""
    count = len(saturating(model))
    return Criterion("products that can saturate without VNNI", float(count), 0 if any_x86 else None)


def speed(plain: onnx.ModelProto, variant: onnx.ModelProto, feed: Feed, rounds: int = 7) -> Verdict:
    """Only how fast a variant is, in turns with float32: what is too slow need not be judged further."""
    return Verdict(tuple(_speed({"plain": as_served(plain), "variant": as_served(variant)}, feed, rounds)))


def _speed(sessions: Mapping[str, Session], feed: Feed, rounds: int) -> list[Criterion]:
    seconds = median_seconds(sessions, feed, rounds)
    return [
        Criterion("time against fp32", seconds["variant"] / seconds["plain"], MOST_TIME),
        Criterion("fp32 ms", seconds["plain"] * 1000),
    ]


def judge_itself(model: onnx.ModelProto, feeds: Sequence[Feed]) -> Verdict:
    """What float32 itself has to hold: a picture's result does not depend on its neighbours, nothing overflows."""
    session = Session(model)
    batch = stack(feeds[:BATCH])
    together = session(batch)
    worst = 0.0
    for index in range(min(BATCH, len(feeds))):
        alone = session(feeds[index])
        worst = max(worst, *(_difference(alone[name][0], together[name][index]) for name in alone))
    return Verdict(
        (
            Criterion("batch against single, largest relative difference", worst, 1e-2),
            Criterion("values that are not finite", float(_not_finite([together])), 0),
        )
    )


def lint(model: onnx.ModelProto, feed: Feed) -> str | None:
    """What `polygraphy check lint` finds wrong with a graph; None when it is clean.

    `feed` gives the linter the sizes of the inputs: it would make a free axis 1 long.
    """
    shapes = [f"{name}:[{','.join(str(size) for size in value.shape)}]" for name, value in feed.items()]
    with tempfile.TemporaryDirectory() as folder:
        path, report = Path(folder) / "model.onnx", Path(folder) / "lint.json"
        onnx.save(model, path)
        # The command line is the linter's stable interface; it runs in a process of its own.
        program = "import sys; from polygraphy.tools import main; sys.exit(main())"
        command = [sys.executable, "-c", program, "check", "lint", str(path), "-o", str(report), "--silent"]
        command += ["--input-shapes", *shapes]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        entries = json.loads(report.read_text())["lint_entries"] if report.is_file() else []
    errors = [entry["message"] for entry in entries if entry["level"] != "warning"]
    if result.returncode == 0 and not errors:
        return None
    return " ".join(errors)[:500] or f"polygraphy ended with exit code {result.returncode}: {result.stderr[-300:]}"


def _difference(a: NDArray[Any], b: NDArray[Any]) -> float:
    if a.dtype == np.uint8:
        return float(np.mean(np.abs(a.astype(np.int16) - b) > 1))
    scale = max(1.0, float(np.abs(a).max()))
    return float(np.abs(a.astype(np.float64) - b).max()) / scale


def _not_finite(results: Sequence[Feed]) -> int:
    return sum(
        int(np.count_nonzero(~np.isfinite(value)))
        for result in results
        for value in result.values()
        if value.dtype.kind == "f"
    )
