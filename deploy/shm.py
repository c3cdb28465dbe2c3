"""`python -m deploy.shm`: how much shared memory (/dev/shm) a container needs, from the model configurations.

Each process of a Python model exchanges tensors with the server through a region of its own, which grows to the largest
batch it has met and never shrinks. So, for every model with such processes:

    processes x max_batch_size x bytes of a row (all inputs and outputs) x 2

where as many rows as the gateway lets through are those of a large texture.

Twice, because a region grows while the old one is still in use. Dimensions that a configuration leaves open (-1) and
the sizes of files stand in the table below. On the embedded server the networks' onnxruntime backend is Python as well;
on NVIDIA's container (``--flavour tensorrt``) only preprocess, align and postprocess are. ``--fusion``: where `fuse` is
served, which keeps pictures whole.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from server.gateway import limits
from server.repository import DEFAULT_REPOSITORY, SWITCHED, read_repository, without

_MIB = 1 << 20
_BYTES = {"TYPE_UINT8": 1, "TYPE_BOOL": 1, "TYPE_FP16": 2, "TYPE_FP32": 4, "TYPE_INT32": 4, "TYPE_INT64": 8}
# What an open dimension or a file comes to at most, bytes a row.
_LARGEST = {
    "picture": 2048 * 2048 * 3,  # preprocess scales the long side to 2048
    "close_up": 3,
    "texture": 1024 * 1024 * 3,
    "photo_texture": 1024 * 1024 * 3,
    "thumbnail": 512 * 512 * 3,
    "shapes": 3 * 40_000 * 3 * 4,  # BFM has 35,709 vertices
    "vertices": 40_000 * 3 * 4,
    "vertices_neutral": 40_000 * 3 * 4,
    "embedding": 1024 * 4,  # embedders give 128 to 1024 numbers
    "image": 32 * _MIB,  # max_bytes of preprocess
    "source": 32 * _MIB,
    "target": 32 * _MIB,
    "source_shapes": 3 * 40_000 * 3 * 4,
    "photo_shapes": 3 * 40_000 * 3 * 4,
    "photo_embedding": 1024 * 4,
    "faces": 512 * 15 * 4,  # as many as merge gives of tiles
    "mask": 4 * _MIB,
    "mesh": 6 * _MIB,
    "texture_image": 4 * _MIB,
    "preview": 2 * _MIB,
    "warnings": 4096,
    "texture_warnings": 4096,
    "doubts": 4096,
}
# The same of a request for a texture above 1024, of which the gateway lets `limits.MAX_LARGE` through at a time; or for
# small faces: the canvases of tiles are less than such a picture, in whose place they stand.
_OF_LARGE = {
    "picture": 4096 * 3072 * 3,
    "close_up": 3072 * 3072 * 3,  # of a face that fills the picture
    "mesh": 32 * _MIB,
    "texture_image": 40 * _MIB,
}
_WHOLE = 16_000_000 * 3
"""Bytes of a whole picture: `max_whole_pixels` of preprocess; a fused one as PNG has no more."""
_FUSED = {"picture": _WHOLE, "picture_file": _WHOLE}


def row_bytes(config: Any, sizes: Mapping[str, int] = _LARGEST) -> int:
    """Add up the bytes of a row's inputs and outputs; KeyError for an open dimension that the sizes do not have.

    Where the configuration has no batch dimension, the first one of a tensor is that of the pictures of a request.
    """
    total = 0
    for tensor in (*config.input, *config.output):
        kind = type(config).DESCRIPTOR.fields_by_name["input"].message_type.fields_by_name["data_type"].enum_type
        name = kind.values_by_number[tensor.data_type].name
        rows, dims = 1, list(tensor.dims)
        if not config.max_batch_size:
            rows = dims.pop(0)
            rows = limits.MAX_PHOTOGRAPHS if rows < 0 else rows
        if name == "TYPE_STRING" or any(dim < 0 for dim in dims):
            total += rows * sizes[tensor.name]
        else:
            total += rows * math.prod(dims) * _BYTES[name]
    return total


def needs(repository: Path = DEFAULT_REPOSITORY, flavour: str | None = None, fusion: bool = False) -> dict[str, int]:
    """Return for each model the bytes of shared memory that its processes may come to."""
    found = {}
    largest = _LARGEST | (_FUSED if fusion else {})
    models = read_repository(repository, flavour)
    for name, model in (models if fusion else without(models, SWITCHED)).items():
        config = model.config
        in_python = config.backend == "python" or (config.backend == "onnxruntime" and flavour is None)
        if in_python:
            processes = sum(group.count or 1 for group in config.instance_group) or 1
            batch = max(1, config.max_batch_size)
            large = min(batch, limits.MAX_LARGE)
            rows = (batch - large) * row_bytes(config, largest) + large * row_bytes(config, {**largest, **_OF_LARGE})
            found[name] = processes * rows * 2
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the sum and its parts."""
    parser = argparse.ArgumentParser(prog="python -m deploy.shm", description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--repository", type=Path, default=DEFAULT_REPOSITORY, metavar="DIR")
    parser.add_argument("--flavour", metavar="NAME", help="as --model-config-name, for instance tensorrt")
    parser.add_argument("--fusion", action="store_true", help="with `fuse`")
    options = parser.parse_args(arguments)
    parts = needs(options.repository, options.flavour, options.fusion)
    for name, size in parts.items():
        print(f"{name:12} {size / _MIB:8.0f} MiB")
    print(f"{'together':12} {sum(parts.values()) / _MIB:8.0f} MiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
