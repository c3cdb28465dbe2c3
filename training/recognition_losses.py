"""Losses of recognition: a classifier with a margin between people, and the distance to a teacher's embedding."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import nn

Margin = Literal["arcface", "cosface"]


class MarginClassifier(nn.Module):
    """A softmax over people whose right answer has to win by a margin.

    ArcFace (Deng et al., 2019) adds ``margin`` to the angle to the right person's direction, CosFace (Wang et al.,
    2018) subtracts it from the cosine. All cosines are then multiplied by ``scale``.

    Args:
        dimensions: of the embedding.
        people: number of classes.
        kind: of the margin.
        margin: radians for ArcFace (0.5), a cosine for CosFace (0.35).
        scale: of the cosines.
        smoothing: part of the target that is spread over all people.
    """

    def __init__(
        self,
        dimensions: int,
        people: int,
        kind: Margin = "arcface",
        margin: float | None = None,
        scale: float = 32.0,
        smoothing: float = 0.1,
    ) -> None:
        super().__init__()
        self.directions = nn.Parameter(torch.randn(people, dimensions) * 0.01)
        self.kind, self.scale, self.smoothing = kind, scale, smoothing
        self.margin = margin if margin is not None else {"arcface": 0.5, "cosface": 0.35}[kind]

    def logits(self, embedding: torch.Tensor, person: torch.Tensor) -> torch.Tensor:
        """Compute the logits, (B, D) and int64 (B,) -> (B, people)."""
        cosine = nn.functional.linear(nn.functional.normalize(embedding), nn.functional.normalize(self.directions))
        right = cosine.gather(1, person[:, None])
        if self.kind == "cosface":
            harder = right - self.margin
        else:
            sine = (1 - right.square()).clamp(min=1e-9).sqrt()
            harder = right * math.cos(self.margin) - sine * math.sin(self.margin)
            # Beyond pi - margin the cosine of the sum would rise again: go on with a straight line below.
            harder = torch.where(
                right > math.cos(math.pi - self.margin), harder, right - math.sin(self.margin) * self.margin
            )
        return self.scale * cosine.scatter(1, person[:, None], harder)

    def forward(self, embedding: torch.Tensor, person: torch.Tensor) -> torch.Tensor:
        """Compute the mean cross-entropy of a batch."""
        return nn.functional.cross_entropy(self.logits(embedding, person), person, label_smoothing=self.smoothing)


def distillation(embedding: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Compute how far a batch is from its teacher's: one minus the cosines, and the differences of all similarities.

    The second term compares the pictures with one another (relational distillation, Park et al., 2019), which is what
    recognition does.

    Args:
        embedding, teacher: (B, D) and (B, D'), D and D' equal for the first term.
    """
    student, taught = nn.functional.normalize(embedding), nn.functional.normalize(teacher)
    direct = 1 - (student * taught).sum(1).mean()
    relations = (student @ student.T - taught @ taught.T).square().mean()
    return direct + 10 * relations
