"""Optimisation profiles of plans, from the GPU flavour of a model's configuration and from the ONNX file."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from export.errors import ExportError

CONFIG = Path("configs") / "tensorrt.pbtxt"
MAX_VERTICES = 40_000
"""Above the largest known face model (BFM, 35,709); also the size of the texture network's warm-up sample."""


@dataclass(frozen=True)
class Shapes:
    """Smallest, usual and largest shape of an input, batch first."""

    smallest: tuple[int, ...]
    usual: tuple[int, ...]
    largest: tuple[int, ...]


def max_batch_size(model: Path) -> int:
    """Read `max_batch_size` of a model's GPU flavour.

    Read with a regular expression: the serving image has no protobuf classes for the configuration.

    Raises:
        ExportError: the model has no GPU flavour, or no batch size in it.
    """
    path = model / CONFIG
    try:
        found = re.search(r"^max_batch_size:\s*(\d+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        raise ExportError(f"{path} is missing: the model '{model.name}' has no GPU flavour.") from None
    if found is None or int(found[1]) < 1:
        raise ExportError(f"{path} has no max_batch_size of at least 1: a plan's profile is made for it.")
    return int(found[1])


def profile(inputs: Mapping[str, Sequence[int | str]], max_batch: int, vertices: int) -> dict[str, Shapes]:
    """Return the profile: batch from 1 to `max_batch`, usually half of it; other sizes as in the graph.

    Args:
        inputs: name -> shape of the ONNX graph, batch first; a string is a free axis.
        max_batch: the largest batch.
        vertices: of the exported face model, for the only other free axis.
    """
    shapes = {}
    for name, shape in inputs.items():
        rest = list(shape[1:])
        small = [vertices if isinstance(size, str) else size for size in rest]
        large = [MAX_VERTICES if isinstance(size, str) else size for size in rest]
        shapes[name] = Shapes((1, *small), (max(1, max_batch // 2), *small), (max_batch, *large))
    return shapes
