"""Greedy non-maximum suppression, as tensor operations of fixed shape or as ONNX's operator: exactly the greedy result.

Boxes come sorted, best first. With S[i,j] = 1 where i comes before j and overlaps it too much, the greedy rule is
    keep[j] = valid[j] and no i with keep[i] S[i,j].
Iterating that rule from any start settles one more box each time: box 0 depends on nothing, box j only on boxes
before it, so after n - 1 iterations all n are what the loop gives, and further iterations change nothing. The
iterations are unrolled (no loop operator, no data-dependent shape), in blocks so that each one is a small product.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

BLOCK = 32
"""Boxes settled together. Any size is exact; 32 keeps both the number of nodes and the products small."""


def overlaps(
    boxes: Tensor, threshold: float, mode: Literal["union", "smaller"] = "union", extra: float = 0.0
) -> Tensor:
    """Mark the pairs that overlap by more than `threshold`: boxes [...,n,4] (x1 y1 x2 y2) -> [...,n,n], 1.0 or 0.0.

    `mode` and `extra` are those of `reference.greedy_suppression`. Written without a division, so that an empty
    box (area 0) overlaps nothing.
    """
    x1, y1, x2, y2 = boxes.unbind(-1)
    area = (x2 - x1 + extra) * (y2 - y1 + extra)
    width = torch.minimum(x2[..., None], x2[..., None, :]) - torch.maximum(x1[..., None], x1[..., None, :]) + extra
    height = torch.minimum(y2[..., None], y2[..., None, :]) - torch.maximum(y1[..., None], y1[..., None, :]) + extra
    inter = torch.relu(width) * torch.relu(height)
    if mode == "union":
        against = area[..., None] + area[..., None, :] - inter
    else:
        against = torch.minimum(area[..., None], area[..., None, :])
    return (inter > threshold * against).to(boxes.dtype)


def suppress(overlap: Tensor, valid: Tensor) -> Tensor:
    """Suppress boxes, sorted best first, that a better one overlaps.

    Args:
        overlap: [...,n,n], 1.0 where a pair overlaps too much (only i < j is read).
        valid: [...,n], 1.0 for a box, 0.0 for an empty slot.

    Returns:
        [...,n]: 1.0 for the boxes that stay.
    """
    n = valid.shape[-1]
    before = torch.triu(torch.ones(n, n, dtype=overlap.dtype), diagonal=1)
    suppresses = overlap * before
    alive = valid.unsqueeze(-2)
    kept: list[Tensor] = []
    for start in range(0, n, BLOCK):
        stop = min(start + BLOCK, n)
        block = alive[..., start:stop]
        if kept:
            block = torch.relu(block - torch.cat(kept, -1) @ suppresses[..., :start, start:stop])
        inside = suppresses[..., start:stop, start:stop]
        keep = block
        for _ in range(stop - start - 1):
            keep = torch.relu(block - keep @ inside)
        kept.append(keep)
    return torch.cat(kept, -1).squeeze(-2)


class _GreedyUnion(torch.autograd.Function):
    """Greedy suppression by intersection over union: a loop here, the operator `NonMaxSuppression` when exported."""

    @staticmethod
    def forward(_context: Any, boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
        """Return the indices [m,3] of the boxes kept: picture, 0, box; see `suppress_union`."""
        overlap = overlaps(boxes, threshold)
        valid = (scores[:, 0] > 0).to(boxes.dtype)
        pictures, kept = torch.nonzero(suppress(overlap, valid), as_tuple=True)
        return torch.stack([pictures, torch.zeros_like(pictures), kept], 1)

    @staticmethod
    def symbolic(graph: Any, boxes: Any, scores: Any, threshold: float) -> Any:
        """Emit the ONNX operator that does the same; a score of 0 is no box."""
        most = graph.op("Constant", value_t=torch.tensor([torch.iinfo(torch.int64).max]))
        limit = graph.op("Constant", value_t=torch.tensor([threshold]))
        least = graph.op("Constant", value_t=torch.tensor([0.0]))
        return graph.op("NonMaxSuppression", boxes, scores, most, limit, least)


def suppress_union(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """Suppress boxes by intersection over union, as one operator with a data-dependent result.

    Args:
        boxes: [B,n,4] x1 y1 x2 y2, best first.
        scores: [B,n], 0 for an empty slot.
        threshold: a box goes when it overlaps a better one by more than this.

    Returns:
        [B,n]: the scores of the boxes that stay, 0 for the others.
    """
    kept: Tensor = _GreedyUnion.apply(boxes, scores[:, None], threshold)  # type: ignore[no-untyped-call]
    flags = torch.zeros_like(scores)
    return scores * flags.index_put((kept[:, 0], kept[:, 2]), scores.new_ones(()))
