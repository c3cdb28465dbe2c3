"""Resources that the models of one export share, made when they are first needed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import onnx

from export.errors import ExportError
from export.graph import Size
from export.models import get_model
from export.models.base import FACE_MODEL, is_built_in
from export.options import ExportOptions
from export.samples import FaceDetector, Sample, samples_of, varied_portraits
from export.session import Feed, Session
from export.stages.write import sha256
from networks.face_model import FaceModelError
from networks.head_model import AnyFaceModel, load_face_model

Say = Callable[[str], None]

GATE_SAMPLES = 16
"""Faces that a gate compares: four batches; more change no verdict and take longer than the export itself."""


@dataclass
class ExportContext:
    """Options, log, and cached graphs, samples and digests.

    Attributes:
        options: of the export.
        say: takes a line of the log.
        graphs: (model, weights) -> float32 graph after surgery.
        digests: (model, weights) -> SHA-256, computed before the weights are read: a file that is replaced meanwhile
            has a digest that fits no version.
        traced: model -> size before surgery.
    """

    options: ExportOptions
    say: Say
    graphs: dict[tuple[str, Path | None], onnx.ModelProto] = field(default_factory=dict)
    digests: dict[tuple[str, Path | None], str] = field(default_factory=dict)
    traced: dict[str, Size] = field(default_factory=dict)

    @classmethod
    def printing(cls, options: ExportOptions) -> Self:
        """Make a context whose log goes to standard output, each line with the seconds since now."""
        start = time.monotonic()
        return cls(options, lambda line: print(f"[{time.monotonic() - start:5.1f} s] {line}", flush=True))

    @cached_property
    def face_model(self) -> AnyFaceModel:
        """Return the face model of regressor, texture and topology.

        Raises:
            ExportError: its file is missing or not a face model.
        """
        path = self.options.face_model or FACE_MODEL
        try:
            return load_face_model(path)
        except FaceModelError as error:
            raise ExportError(str(error)) from error

    @cached_property
    def detect_faces(self) -> FaceDetector:
        """Return the default detector as a function, in float32; it finds the samples of every export."""
        session = Session(self.float32_graph("detector", None))
        return lambda canvas, geometry: session({"canvas": canvas, "geometry": geometry})["faces"]

    @cached_property
    def samples(self) -> list[Sample]:
        """Return the gate's samples: the built-in portraits and variations of them."""
        return samples_of(varied_portraits(GATE_SAMPLES, seed=7), self.detect_faces)

    def float32_graph(self, name: str, weights: Path | None) -> onnx.ModelProto:
        """Return the graph after surgery, traced at the first call; ``weights`` None: the default ones."""
        if (name, weights) not in self.graphs:
            model = get_model(name)
            file = weights or model.weights
            self.digests[name, weights] = sha256(file) if file.exists() else ""
            # TensorRT plans memory by sizes; a CPU saves work where sizes depend on the picture.
            fixed = self.options.target == "tensorrt"
            face_model = self.face_model if model.needs_face_model else None
            traced = model.trace(weights, face_model, self.options.recipe if weights else None, fixed)
            cleaned = model.clean(traced)
            before, after = Size.of(traced), Size.of(cleaned)
            self.traced[name] = before
            self.say(
                f"{name}: traced and cleaned, {before.nodes} -> {after.nodes} nodes, "
                f"{before.bytes / 1e6:.1f} -> {after.bytes / 1e6:.1f} MB"
            )
            self.graphs[name, weights] = cleaned
        return self.graphs[name, weights]

    def feeds(self, name: str, samples: Sequence[Sample]) -> list[Feed]:
        """Return a model's inputs for samples."""
        model = get_model(name)
        earlier = self._earlier(samples) if model.needs_earlier else [{}] * len(samples)
        return [model.feed(sample, found) for sample, found in zip(samples, earlier, strict=True)]

    def _earlier(self, samples: Sequence[Sample]) -> list[Feed]:
        """Return what the regressor and the parser give."""
        parser = Session(self.float32_graph("parser", None))
        parts = [parser(feed) for feed in self.feeds("parser", samples)]
        return [{**shape, **found} for shape, found in zip(self._shapes(samples), parts, strict=True)]

    def _shapes(self, samples: Sequence[Sample]) -> list[Feed]:
        """Return the regressor's results, or the mean face where the face model is not the built-in one.

        The alignment scales a face to 102 pixels a decimetre, about as the camera sees the mean face.
        """
        if not is_built_in(self.face_model):
            return [{"shapes": np.stack([self.face_model.mean] * 3)[None]}] * len(samples)
        regressor = Session(self.float32_graph("regressor", None))
        return [regressor({"crop": sample.crop, "context": sample.context}) for sample in samples]
