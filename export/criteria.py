"""Criteria with bounds, by which a graph is judged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Criterion:
    """One measured value and its bound; `bound` None: reported, not judged."""

    name: str
    value: float
    bound: float | None = None
    sense: Literal["at least", "at most"] = "at most"

    @property
    def passed(self) -> bool:
        """Tell whether the value satisfies its bound; NaN never does."""
        if self.bound is None:
            return True
        return bool(self.value >= self.bound if self.sense == "at least" else self.value <= self.bound)

    def __str__(self) -> str:
        if self.bound is None:
            return f"{self.name} {self.value:.4g}"
        outcome = "ok" if self.passed else "FAILED"
        return f"{self.name} {self.value:.4g} ({self.sense} {self.bound:g}: {outcome})"


@dataclass(frozen=True)
class Verdict:
    """All criteria of one variant."""

    criteria: tuple[Criterion, ...]

    @property
    def passed(self) -> bool:
        """Tell whether every criterion is satisfied."""
        return all(criterion.passed for criterion in self.criteria)

    def __str__(self) -> str:
        return "; ".join(str(criterion) for criterion in self.criteria)

    def as_dict(self) -> dict[str, Any]:
        """Return the content for `export.json`."""
        return {
            "passed": self.passed,
            "criteria": [
                {**vars(c), "value": float(f"{c.value:.6g}"), "passed": bool(c.passed)} for c in self.criteria
            ],
        }
