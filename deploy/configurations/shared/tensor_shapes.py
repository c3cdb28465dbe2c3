"""Whether the tensors of a request have the shapes that a model's code counts on.

The source is deploy/configurations/shared/tensor_shapes.py; `make configs` copies it into the version folders that use
it. Triton checks shapes against the configuration, but for a batch dimension of 0, which it hands on, and dimensions
that are -1 there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

Rows = Mapping[str, tuple[int | None, ...]]
"""Name of a tensor -> its dimensions behind the batch's; None: any from 1 on."""


def shape_fault(tensors: Mapping[str, NDArray[Any]], rows: Rows) -> str | None:
    """Compare a request's tensors with the shapes that they may have.

    Args:
        tensors: by name, the batch dimension first.
        rows: holds every name of ``tensors``.

    Returns:
        A sentence for the caller about the first tensor of another shape, or about batch dimensions that differ; None
        where nothing is wrong.
    """
    for name, value in tensors.items():
        dims = rows[name]
        fits = value.ndim == len(dims) + 1 and all(
            length > 0 if dim is None else length == dim for dim, length in zip(dims, value.shape[1:], strict=True)
        )
        if not fits or not len(value):
            wanted = ", ".join("any" if dim is None else str(dim) for dim in dims)
            return f"`{name}` has shape {list(value.shape)}: send [batch, {wanted}], no dimension of it 0."
    if len({len(value) for value in tensors.values()}) > 1:
        return "the tensors differ in their batch dimension: send as many rows of each."
    return None
