"""The networks without a server, in the kinds that are compared."""

from __future__ import annotations

from typing import Protocol

from perf.compare.repository_steps import Reconstruction


class Pipeline(Protocol):
    """Reconstructs faces of photographs."""

    def run(self, data: bytes) -> Reconstruction:
        """Reconstruct the best face of one photograph, given as file bytes."""

    def run_batch(self, files: list[bytes]) -> list[Reconstruction]:
        """Reconstruct the best face of each photograph of a batch."""


def pipeline(kind: str) -> Pipeline:
    """Load a pipeline.

    Args:
        kind: ``eager``; ``onnx``, where a batch is one run of each network; or ``onnx_parallel``, where a batch is
            spread over the cores.
    """
    if kind == "eager":
        from perf.compare.eager import EagerPyTorch

        return EagerPyTorch()

    from perf.compare.bare_onnx import BatchedOnnx, ParallelOnnx

    return BatchedOnnx() if kind == "onnx" else ParallelOnnx()
