"""What every export makes of the default weights again, made once for all tests."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, cached_property
from pathlib import Path

import onnx
import pytest

from export.context import GATE_SAMPLES, ExportContext
from export.models import get_model
from export.options import ExportOptions, Target
from export.samples import Sample, samples_of, varied_portraits


class SharedContext(ExportContext):
    """A context whose graphs of the default weights, and samples found with them, come from an earlier export."""

    def float32_graph(self, name: str, weights: Path | None) -> onnx.ModelProto:
        fits = self.options.face_model is None or not get_model(name).needs_face_model
        if weights is None and fits and (name, None) not in self.graphs:
            earlier = _first(self.options.target)
            if self is not earlier:
                graph = onnx.ModelProto()
                graph.CopyFrom(earlier.float32_graph(name, None))  # what is written gets metadata of its own
                self.graphs[name, None] = graph
                self.digests[name, None], self.traced[name] = earlier.digests[name, None], earlier.traced[name]
        return super().float32_graph(name, weights)

    @cached_property
    def samples(self) -> list[Sample]:
        return _samples(self.options.target)


@cache
def _first(target: Target) -> SharedContext:
    return SharedContext(ExportOptions(target=target), lambda _: None)


@cache
def _samples(target: Target) -> list[Sample]:
    return samples_of(varied_portraits(GATE_SAMPLES, seed=7), _first(target).detect_faces)


@pytest.fixture(scope="module")
def shared_context() -> Iterator[None]:
    """Have the command's exports share graphs and samples for the tests of a module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("export.context.ExportContext", SharedContext)
        yield
