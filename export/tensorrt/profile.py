"""Shapes a plan is built for, read from the GPU flavour of the model's configuration and from the ONNX file."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from export.errors import ExportError

CONFIG = Path("configs") / "tensorrt.pbtxt"
MAX_VERTICES = 40_000
"""Room for the largest known face model (BFM, 35,709); also what the texture network is warmed up with."""


@dataclass(frozen=True)
class Shapes:
    """Smallest, usual and largest shape of one input, batch first."""

    smallest: tuple[int, ...]
    usual: tuple[int, ...]
    largest: tuple[int, ...]


def max_batch_size(model: Path) -> int:
    """`max_batch_size` of the model's GPU flavour.

    Read with a regular expression: the serving image has no protobuf classes for the configuration.

    Raises:
        ExportError: the model has no GPU flavour, or it does not batch.
    """
    path = model / CONFIG
    try:
        found = re.search(r"^max_batch_size:\s*(\d+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        raise ExportError(f"{path} is missing: the model '{model.name}' has no GPU flavour.") from None
    if found is None or int(found[1]) < 1:
        raise ExportError(f"{path} has no max_batch_size of at least 1: a plan's profile is made for it.")
    return int(found[1])


def profile(inputs: Mapping[str, Sequence[int | str]], most: int, vertices: int) -> dict[str, Shapes]:
    """One profile: batch from 1 to `most`, usual half of it; everything else as it is in the graph.

    Args:
        inputs: name -> shape of the ONNX graph, batch first; a string is a free axis.
        most: the largest batch.
        vertices: of the exported face model, for the one other axis that may be free.
    """
    shapes = {}
    for name, shape in inputs.items():
        rest = list(shape[1:])
        small = [vertices if isinstance(size, str) else size for size in rest]
        large = [MAX_VERTICES if isinstance(size, str) else size for size in rest]
        shapes[name] = Shapes((1, *small), (max(1, most // 2), *small), (most, *large))
    return shapes
