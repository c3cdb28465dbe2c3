"""The plots of `docs/performance.md`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

COLOURS = ("#8d99ae", "#b7b7a4", "#d4a373", "#e9c46a", "#457b9d", "#e76f51", "#2a9d8f", "#6d597a")


def bars(path: Path, groups: Mapping[str, Mapping[str, float]], unit: str, title: str) -> None:
    """Draw one group of bars for each key of ``groups``, one bar for each name in it."""
    names = list(next(iter(groups.values())))
    figure, axes = plt.subplots(figsize=(8, 3.6))
    width = 0.8 / len(names)
    for index, name in enumerate(names):
        heights = [values.get(name, 0.0) for values in groups.values()]
        positions = [k + (index - (len(names) - 1) / 2) * width for k in range(len(groups))]
        drawn = axes.bar(positions, heights, width * 0.94, label=name, color=COLOURS[index % len(COLOURS)])
        axes.bar_label(drawn, [f"{height:.3g}" for height in heights], fontsize=6, padding=1)
    axes.set_xticks(range(len(groups)), list(groups))
    _finish(figure, axes, path, "", unit, title)


def lines(path: Path, curves: Mapping[str, Sequence[tuple[float, float]]], x: str, y: str, title: str) -> None:
    """Draw one line through (x, y) points for each name."""
    figure, axes = plt.subplots(figsize=(6, 3.4))
    for index, (name, points) in enumerate(curves.items()):
        axes.plot(*zip(*points, strict=True), marker="o", label=name, color=COLOURS[(index + 4) % len(COLOURS)])
    axes.set_ylim(bottom=0)
    _finish(figure, axes, path, x, y, title)


def stack(path: Path, columns: Mapping[str, Mapping[str, float]], unit: str, title: str) -> None:
    """Draw stacked bars: column -> part -> height."""
    parts = list(dict.fromkeys(part for column in columns.values() for part in column))
    figure, axes = plt.subplots(figsize=(7, 3.8))
    bottoms = [0.0] * len(columns)
    for index, part in enumerate(parts):
        heights = [column.get(part, 0.0) for column in columns.values()]
        axes.bar(list(columns), heights, 0.6, bottoms, label=part, color=COLOURS[index % len(COLOURS)])
        bottoms = [a + b for a, b in zip(bottoms, heights, strict=True)]
    _finish(figure, axes, path, "", unit, title)


def _finish(figure: Any, axes: Any, path: Path, x: str, y: str, title: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_title(title, fontsize=10)
    axes.grid(axis="y", alpha=0.3)
    axes.legend(fontsize=7, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, bbox_inches="tight", metadata={"Software": None})
    plt.close(figure)
