"""Results of the report: a row for each variant, and the INT8 chain."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from export.criteria import Criterion, Verdict
from export.graph import Size
from export.stages.gate import MAX_TIME_RATIO


@dataclass(frozen=True)
class Row:
    """Measurements of a network's variant; `ratio` is its time relative to float32."""

    network: str
    variant: str
    size: Size
    ratio: float
    verdict: Verdict

    @property
    def decision(self) -> str:
        """Return the exporter's decision on the variant."""
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
        """Return the means as criteria with the bounds of INT8."""
        return [
            Criterion("vertices in the head frame, mean mm", float(self.head.mean()), 0.3),
            Criterion("vertices in the camera frame, mean mm", float(self.camera.mean())),
            Criterion("texture, mean SSIM", float(self.similarity.mean()), 0.982, "at least"),
            Criterion("texture, mean squared error", float(self.squared.mean()), 0.005),
        ]


@dataclass(frozen=True)
class Measured:
    """All measurements on one kind of processor."""

    processor: str
    """Its name, and whether it has VNNI."""
    vnni: str
    """`with VNNI` or `without VNNI`."""
    rows: list[Row]
    """Rows of all networks; empty where only the chain was requested."""
    chain: Chain

    def save(self, path: Path) -> None:
        """Write JSON."""
        path.write_text(json.dumps(asdict(self), default=lambda array: array.tolist()), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Measured:
        """Read what `save` wrote."""
        content = json.loads(path.read_text(encoding="utf-8"))
        rows = []
        for row in content.pop("rows"):
            criteria = tuple(Criterion(**criterion) for criterion in row.pop("verdict")["criteria"])
            rows.append(Row(**{**row, "size": Size(**row["size"]), "verdict": Verdict(criteria)}))
        chain = Chain(**{name: np.array(values) for name, values in content.pop("chain").items()})
        return cls(**content, rows=rows, chain=chain)
