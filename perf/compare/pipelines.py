"""The networks without a server, in the kinds that are compared."""

from __future__ import annotations

from typing import Protocol

from perf.compare.repository_steps import Answer


class Pipeline(Protocol):
    """Answers requests with photographs."""

    def run(self, data: bytes) -> Answer:
        """Answer for the best face of one photograph, given as file bytes."""

    def run_batch(self, files: list[bytes]) -> list[Answer]:
        """Answer for the best face of each photograph of a batch."""


def pipeline(kind: str, product: str = "face3d") -> Pipeline:
    """Load a pipeline.

    Args:
        kind: ``eager``, the pipeline of this family of models with its cascade; ``eager_same``, the served networks;
            ``onnx``, where a batch is one run of each network; or ``onnx_parallel``, where a batch is spread over the
            cores.
        product: ``face3d`` or ``embed``.

    Raises:
        ValueError: the family has no pipeline of that product.
    """
    if kind.startswith("eager"):
        from perf.compare.eager import EagerEmbedder, EagerPyTorch, FamilyDetector, ServedDetector

        if product == "face3d":
            return EagerPyTorch(FamilyDetector if kind == "eager" else ServedDetector)
        if kind == "eager":
            raise ValueError("the family's own pipeline has no embedder")
        return EagerEmbedder()

    from perf.compare.bare_onnx import BatchedOnnx, ParallelOnnx

    return BatchedOnnx(product) if kind == "onnx" else ParallelOnnx(product)
