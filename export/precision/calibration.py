"""Ranges of activations for INT8: three calibration methods over the same histograms, and the file of their results.

Calibrating takes photographs and minutes; its result is a few thousand numbers. So it is committed as a JSON file with
the digest of the weights, and a clean clone quantises without photographs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from export.errors import ExportError
from export.precision.equalise import Shifts, equalised
from export.precision.int8 import Range, Scheme, to_int8
from export.session import Feed, Session, with_outputs

BINS = 2048
METHODS = ("minmax", "percentile", "entropy")
PERCENTILE = 99.99
"""Percentage of the values inside the range of the percentile method."""
OUTLIER_SHARE = 0.02
"""Share of the samples whose extremes are excluded at either end: a crop without a face can drive an activation to ten
times its range on faces, which would cost all faces resolution."""
FOLDER = Path(__file__).parent / "ranges"


@dataclass
class Ranges:
    """Ranges of one network's activations by three methods, and their origin."""

    weights: str
    samples: int
    source: str
    bounds: dict[str, dict[str, Range]] = field(default_factory=dict)
    """method -> tensor -> (smallest, largest)."""
    chosen: str = "minmax"
    """The method in use. Without a comparison min-max: clipping overfits to the faces that calibrated."""
    comparison: dict[str, dict[str, float]] = field(default_factory=dict)
    """method -> criterion -> value, on pictures that did not calibrate; `chosen` is the best of them."""
    keep_float: list[str] = field(default_factory=list)
    """Nodes that stay in float32, chosen by the sensitivity report."""
    shifts: Shifts = field(default_factory=dict)
    """Scaling of the channels that the ranges refer to (`export/precision/equalise.py`)."""
    streams: int = 0
    """Number of last residual streams in float32 (`export/precision/streams.py`)."""
    judged: str = ""
    """Description of the pictures that compared the methods."""

    def save(self, path: Path) -> None:
        """Write JSON with five significant digits, more than 8 bits can represent."""
        rounded = {
            method: {name: [float(f"{value:.5g}") for value in bounds] for name, bounds in tensors.items()}
            for method, tensors in self.bounds.items()
        }
        # One string a group: as lists they would double the length of the file.
        shifts = {name: " ".join(map(str, exponents)) for name, exponents in self.shifts.items()}
        content = {**vars(self), "bounds": rounded, "shifts": shifts}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Ranges:
        """Read what `save` wrote.

        Raises:
            ExportError: the file is missing or not of this layout.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            bounds = {
                method: {name: (float(low), float(high)) for name, (low, high) in tensors.items()}
                for method, tensors in content.pop("bounds").items()
            }
            shifts = {name: [int(k) for k in line.split()] for name, line in content.pop("shifts", {}).items()}
            return cls(bounds=bounds, shifts=shifts, **content)
        except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
            raise ExportError(f"{path} does not hold calibrated ranges ({error}): calibrate anew.") from None


def calibrate(model: onnx.ModelProto, tensors: Sequence[str], feeds: Iterable[Feed]) -> dict[str, dict[str, Range]]:
    """Run all feeds twice, for the extremes and for the histograms, and derive ranges by each of `METHODS`.

    The extremes exclude a share of outlying samples (`OUTLIER_SHARE`); with less than 50 samples none.

    Args:
        model: float32, after surgery.
        tensors: names of float activations.
        feeds: inputs of the graph.

    Returns:
        method -> tensor -> (smallest, largest).

    Raises:
        ExportError: there are no feeds.
    """
    session = Session(with_outputs(model, tensors))
    feeds = list(feeds)
    if not feeds:
        raise ExportError("There is not one sample to calibrate with.")
    extremes = np.empty((len(feeds), len(tensors), 2))
    for row, feed in zip(extremes, feeds, strict=True):
        results = session(feed)
        # Every range holds 0, and a tensor whose size depends on the picture may be empty.
        row[:] = [(results[name].min(initial=0.0), results[name].max(initial=0.0)) for name in tensors]
    excluded = int(len(feeds) * OUTLIER_SHARE)
    lows = np.sort(extremes[..., 0], axis=0)[excluded]
    highs = np.sort(extremes[..., 1], axis=0)[len(feeds) - 1 - excluded]
    low = {name: min(0.0, float(value)) for name, value in zip(tensors, lows, strict=True)}
    high = {name: max(0.0, float(value)) for name, value in zip(tensors, highs, strict=True)}
    counts = {name: np.zeros(BINS, np.int64) for name in tensors}
    for feed in feeds:
        results = session(feed)
        for name in tensors:
            width = (high[name] - low[name]) or 1.0
            # Every third value: 3 divides no row length, and the histogram is the same to a percent.
            values = results[name].ravel()[::3]
            bins = ((values - low[name]) * (BINS / width)).astype(np.int32).clip(0, BINS - 1)
            counts[name] += np.bincount(bins, minlength=BINS)
    bounds: dict[str, dict[str, Range]] = {method: {} for method in METHODS}
    for name in tensors:
        edges = np.linspace(low[name], high[name], BINS + 1)
        bounds["minmax"][name] = (low[name], high[name])
        bounds["percentile"][name] = percentile_range(counts[name], edges)
        bounds["entropy"][name] = entropy_range(counts[name], edges)
    return bounds


def quantised(model: onnx.ModelProto, ranges: Ranges, scheme: Scheme) -> onnx.ModelProto:
    """Build the INT8 graph with these ranges.

    Args:
        model: float32, after surgery.
        ranges: of this network.
        scheme: for a CPU or for TensorRT.
    """
    bounds = ranges.bounds[ranges.chosen]
    return to_int8(equalised(model, ranges.shifts), bounds, scheme, ranges.keep_float, ranges.streams)


def percentile_range(counts: NDArray[np.int64], edges: NDArray[np.float64], percent: float = PERCENTILE) -> Range:
    """Return the range that excludes an equal part of the values at either end."""
    cumulative = np.cumsum(counts) / max(1, counts.sum())
    tail = (1 - percent / 100) / 2
    first = int(np.searchsorted(cumulative, tail, side="right"))
    last = int(np.searchsorted(cumulative, 1 - tail, side="left"))
    return float(edges[min(first, len(counts) - 1)]), float(edges[min(last, len(counts) - 1) + 1])


def entropy_range(counts: NDArray[np.int64], edges: NDArray[np.float64], levels: int = 128) -> Range:
    """Return the clipping with the smallest Kullback-Leibler divergence (the method of TensorRT, Migacz 2017).

    Both ends are clipped to the same multiple of the extremes: activations after a ReLU have one end at zero, the
    others are nearly symmetric.
    """
    best, best_share = np.inf, 1.0
    total = counts.astype(np.float64)
    centre = int(np.clip(np.searchsorted(edges, 0.0, side="right") - 1, 0, len(counts) - 1))
    # A ReLU's zeros are in one bin, which every scale represents exactly; counted, they would dominate the divergence.
    total[centre] = total[max(centre - 1, 0) : centre + 2].min()
    for share in np.linspace(0.1, 1.0, 46):
        first = centre - int(centre * share)
        last = centre + max(levels // 8, int((len(counts) - centre) * share))
        inside = total[first:last].copy()
        if inside.sum() == 0:
            continue
        clipped = inside.copy()
        clipped[0] += total[:first].sum()
        clipped[-1] += total[last:].sum()
        quantised = _requantised(inside, 2 * levels)
        divergence = _divergence(clipped, quantised)
        if divergence < best:
            best, best_share = divergence, float(share)
    return float(edges[0]) * best_share, float(edges[-1]) * best_share


def _requantised(counts: NDArray[np.float64], levels: int) -> NDArray[np.float64]:
    """Quantise a histogram to `levels`: each group's mass is spread over its bins that are not empty."""
    group = np.minimum(np.arange(len(counts)) * levels // len(counts), levels - 1)
    filled = counts > 0
    mass = np.bincount(group, counts, minlength=levels)
    members = np.bincount(group, filled, minlength=levels)
    return np.where(filled, mass[group] / np.maximum(members[group], 1), 0.0)


def _divergence(expected: NDArray[np.float64], actual: NDArray[np.float64]) -> float:
    p, q = expected / expected.sum(), actual / max(actual.sum(), 1e-12)
    both = p > 0
    return float(np.sum(p[both] * np.log(p[both] / np.maximum(q[both], 1e-12))))


def committed_ranges(network: str, weights: str) -> Ranges | None:
    """Return the committed ranges of a network; None where they were made for other weights."""
    path = FOLDER / f"{network}.json"
    if not path.is_file():
        return None
    ranges = Ranges.load(path)
    return ranges if ranges.weights == weights else None
