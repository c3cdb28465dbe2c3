"""Base class of the exported models: how one is loaded, traced, fed, split and compared.

Each has one class, in a module of its own beside this one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import onnx
from torch import Tensor, nn

from export.criteria import Criterion
from export.models import texture_split
from export.options import ROOT, Precision, Target
from export.samples import Sample
from export.session import Feed, Session
from export.stages.surgery import clean
from export.stages.trace import onnx_from_module
from networks.head_model import AnyFaceModel, load_face_model

WEIGHTS = ROOT / "weights"
FACE_MODEL = WEIGHTS / "face_model.npz"
Loaded = tuple[nn.Module, tuple[Tensor, ...]]


class ExportedModel(ABC):
    """One model of the repository that is exported from weights.

    Attributes:
        name: of the model in the repository.
        weights: where the default weights are.
        companion_files: further files that the graph depends on, with any weights.
        inputs, outputs: names by the contract, in the order of the module's arguments and results.
        inner: names of results that follow the outputs, at which a graph can be split; there may be fewer.
        dynamic_axes: tensor -> axis -> name, for free axes besides the batch.
        needs_face_model: whether the graph holds a face model.
        needs_earlier: whether the model takes what regressor and parser give.
        cpu_precisions: precisions to try for a CPU, best first. float16 is no faster there in ONNX Runtime.
        float_streams: number of last residual streams in float32, unless a calibration has chosen it.
        calibration_error: criterion that calibration methods are compared by; None: the model is not calibrated.
    """

    name: str
    weights: Path
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    companion_files: tuple[Path, ...] = ()
    inner: tuple[str, ...] = ()
    dynamic_axes: Mapping[str, Mapping[int, str]] = MappingProxyType({})
    needs_face_model: bool = True
    needs_earlier: bool = False
    cpu_precisions: tuple[Precision, ...] = ("int8", "fp32")
    float_streams: int = 0
    calibration_error: str | None = None

    @abstractmethod
    def load(
        self, weights: Path | None, face_model: AnyFaceModel | None, recipe: str | None = None, fixed: bool = False
    ) -> Loaded:
        """Load the PyTorch module, and inputs to trace it with.

        Args:
            weights: None for the default ones.
            face_model: of the graph, where `needs_face_model`.
            recipe: pixel preparation of a RetinaFace checkpoint or an embedder in ArcFace's format.
            fixed: whether all inner sizes have to be fixed (for TensorRT).

        Raises:
            NetworkError: a file is missing, damaged, or of another network.
        """

    @abstractmethod
    def feed(self, sample: Sample, earlier: Feed) -> Feed:
        """Return the model's inputs for a sample; ``earlier``: shapes and parts, where `needs_earlier`."""

    @abstractmethod
    def compare(self, expected: Feed, actual: Feed, feed: Feed) -> list[Criterion]:
        """Compare a variant's outputs with those of float32.

        Args:
            expected, actual: outputs of float32 and of the variant, stacked along the batch.
            feed: the inputs.

        Returns:
            criteria with the bounds of the gate.
        """

    def trace(
        self, weights: Path | None, face_model: AnyFaceModel | None, recipe: str | None = None, fixed: bool = False
    ) -> onnx.ModelProto:
        """Trace the module of `load`; return the graph before surgery."""
        module, example = self.load(weights, face_model, recipe, fixed)
        return onnx_from_module(module, example, self.inputs, self.outputs, self.dynamic_axes, self.inner)

    def clean(self, traced: onnx.ModelProto) -> onnx.ModelProto:
        """Apply the graph surgery."""
        return clean(traced, self.dynamic_axes)

    def precisions(self, target: Target, precision: Precision | None, strict: bool) -> list[Precision]:
        """List the precisions to try, best first.

        Args:
            target: on a CPU a refused precision falls back to float32, for TensorRT to the next higher one.
            precision: the requested one; None: the fastest that passes its gate.
            strict: try only ``precision``.
        """
        if precision is not None and strict:
            return [precision]
        if target == "tensorrt":
            steps: list[Precision] = ["int8", "fp16", "fp32"]
            return steps[steps.index(precision or "fp16") :]
        if precision is not None:
            return list(dict.fromkeys((precision, "fp32")))
        return list(self.cpu_precisions)

    def split(self, graph: onnx.ModelProto) -> texture_split.SplitGraph | None:
        """Split a graph into the parts that the service's CPU backend runs; None: it runs the whole graph."""
        del graph
        return None

    def served_session(self, graph: onnx.ModelProto, exact: bool = False) -> Session:
        """Load a graph as the service's CPU backend runs it.

        ``exact``: with kernels that do not saturate, for graphs that are not meant for a CPU.
        """
        parts = self.split(graph)
        return texture_split.session_of(parts, exact) if parts else Session(graph, exact=exact)

    def note(self, face_model: AnyFaceModel) -> str | None:
        """Return a remark on a graph with this face model for `export.json`, or None."""
        del face_model
        return None


def is_built_in(face_model: AnyFaceModel) -> bool:
    """Tell whether a face model has the UV layout that the texture network was trained on: the built-in one's."""
    return FACE_MODEL.is_file() and load_face_model(FACE_MODEL).fingerprint == face_model.fingerprint
