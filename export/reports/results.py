"""What the report shows: one row a variant, and the INT8 chain."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from export.criteria import Criterion, Verdict
from export.graph import Size
from export.stages.gate import MAX_TIME_RATIO


@dataclass(frozen=True)
class Row:
    """One variant of one network."""

    network: str
    variant: str
    size: Size
    ratio: float
    verdict: Verdict

    @property
    def decision(self) -> str:
        """What the exporter does with it."""
        if self.variant == "fp32":
            return "reference"
        if not self.verdict.passed:
            return "refused (quality)"
        if self.variant == "int8 u8s8":
            return "CPU" if self.ratio <= MAX_TIME_RATIO else "refused (not faster)"
        return "TensorRT"


@dataclass(frozen=True)
class Chain:
    """The INT8 chain against float32, one number a face."""

    head: NDArray[np.float64]
    """Mean vertex difference in the head frame, mm."""
    camera: NDArray[np.float64]
    """The same in the camera frame."""
    similarity: NDArray[np.float64]
    """SSIM of the textures, the INT8 one sampled by the INT8 shapes."""
    squared: NDArray[np.float64]
    """Their mean squared error, 0..1."""

    def criteria(self) -> list[Criterion]:
        """Means against the bounds that INT8 is held to."""
        return [
            Criterion("vertices in the head frame, mean mm", float(self.head.mean()), 0.3),
            Criterion("vertices in the camera frame, mean mm", float(self.camera.mean())),
            Criterion("texture, mean SSIM", float(self.similarity.mean()), 0.982, "at least"),
            Criterion("texture, mean squared error", float(self.squared.mean()), 0.005),
        ]
