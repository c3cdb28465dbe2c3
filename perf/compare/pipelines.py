"""The networks without a server around them, in the kinds that are compared."""

from __future__ import annotations

from typing import Protocol

from perf.compare.work import Answer


class Pipeline(Protocol):
    """Photographs to answers."""

    def one(self, data: bytes) -> Answer:
        """A single one."""

    def many(self, files: list[bytes]) -> list[Answer]:
        """A batch."""


def pipeline(kind: str) -> Pipeline:
    """Load ``eager``; ``onnx``: a batch is one run of each network; ``lanes``: a batch is spread over the cores."""
    if kind == "eager":
        from perf.compare.eager import Eager

        return Eager()

    from perf.compare.bare import Bare, Batched

    return Batched() if kind == "onnx" else Bare()
