"""Triton's side of `merge`: what several photographs say about one person, or several looks at one photograph."""

from __future__ import annotations

import functools
import json
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from chart import Chart
from head_outputs import head_outputs
from identities import join, most_frontal, weigh
from merge_options import Options, options_from
from merge_refusals import Refused
from meters import Meters
from numpy.typing import NDArray
from people import check_one_person
from person_correction import PersonCorrection
from photo_tensors import CHECK, IDENTITY, TEXTURE, need
from tile_faces import join as join_faces

Tensors = dict[str, NDArray[Any]]


class TritonPythonModel:
    """Compares, joins and paints, or joins faces: one of them a request, by the inputs that it has."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the threshold from the configuration and the chart, which export wrote into this version folder."""
        parameters = json.loads(args["model_config"])["parameters"]
        self._same_person = float(parameters["same_person"]["string_value"])
        self._tables = Path(args["model_repository"]) / args["model_version"] / "chart.npz"
        self._chart = Chart.from_file(self._tables)
        self._meters = Meters()

    def execute(self, requests: list[pb_utils.InferenceRequest]) -> list[pb_utils.InferenceResponse]:
        """Answer each request by itself."""
        return [self._safely(request) for request in requests]

    def _safely(self, request: pb_utils.InferenceRequest) -> pb_utils.InferenceResponse:
        try:
            tensors = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
            outputs = self._outputs(tensors, options_from(request.parameters()))
            return pb_utils.InferenceResponse(
                [pb_utils.Tensor(name, outputs[name]) for name in _wanted(request, outputs)]
            )
        except Refused as error:
            self._meters.refused(error.tag)
            refusal = pb_utils.TritonError(f"[{error.tag}] {error}", pb_utils.TritonError.INVALID_ARG)
            return pb_utils.InferenceResponse([], refusal)
        except Exception as error:  # whatever it is, it concerns this request and not its neighbours
            pb_utils.Logger.log_error("merge: " + traceback.format_exc())
            failure = pb_utils.TritonError(f"{type(error).__name__}: {error}", pb_utils.TritonError.INTERNAL)
            return pb_utils.InferenceResponse([], failure)

    def _outputs(self, tensors: Tensors, options: Options) -> Tensors:
        if "tile_faces" in tensors:
            return _faces(tensors)
        if "photo_texture" in tensors:
            return self._texture(tensors)
        return self._identity(tensors, options) if "photo_shapes" in tensors else self._check(tensors, options)

    def _check(self, tensors: Tensors, options: Options) -> Tensors:
        """See that all photographs show one person."""
        embeddings, crops = need(tensors, CHECK)
        threshold = self._same_person if options.same_person is None else options.same_person
        found = check_one_person(embeddings, threshold)
        self._meters.compared(float(found.min()))
        return {"similarity": found, "crop": crops}

    def _identity(self, tensors: Tensors, options: Options) -> Tensors:
        """Give all photographs one identity."""
        shapes, coefficients, fingerprints, context, crops, quality, certainty, vectors, embedder = need(
            tensors, IDENTITY
        )
        self._chart.check(shapes, fingerprints)
        weights = weigh(coefficients, quality, context[:, 4], certainty[:, 0])
        reference = most_frontal(coefficients, quality) if options.reference is None else options.reference
        if reference >= len(shapes):
            raise Refused(
                "BadOption", f"`reference` is {reference}: {len(shapes)} photographs came, give 0 to {len(shapes) - 1}."
            )
        # One photograph's head is the one that face3d makes of it.
        lacking = None
        if len(shapes) > 1 and self._correction is not None:
            lacking = self._correction.lacking(coefficients, weights, vectors, embedder, certainty[:, 0])
        person = join(shapes, coefficients, weights, self._chart.landmarks, lacking)
        self._meters.joined(len(shapes))
        return head_outputs(person, self._chart, reference, fingerprints, context, crops, quality)

    @functools.cached_property
    def _correction(self) -> PersonCorrection | None:
        # Its 23 MB come with the first person, not with the server.
        return PersonCorrection.from_file(self._tables)

    def _texture(self, tensors: Tensors) -> Tensors:
        """Put the textures together."""
        # OpenCV and its 6 MB come with the first person, not with the server.
        import cv2
        from grazing import Photograph
        from person_texture import person_texture

        cv2.setNumThreads(1)
        began = time.perf_counter()
        textures, visibility, shapes, certainty, context, crops, parts = need(tensors, TEXTURE)
        self._chart.check(shapes, np.array([self._chart.fingerprint]))
        photographs = list(map(Photograph, shapes[:, 0], crops, context[:, 15:23], parts))
        merged = person_texture(self._chart, photographs, textures, visibility, certainty)
        self._meters.textured(time.perf_counter() - began)
        return {"texture": merged.colours[None], "visibility": merged.visibility[None]}


def _faces(tensors: Tensors) -> Tensors:
    """Join the faces of one photograph's tiles."""
    if "tile_view" not in tensors:
        raise Refused("BadTensor", "the request lacks `tile_view`: send tile_faces, tile_view.")
    return {"faces": join_faces(tensors["tile_faces"], tensors["tile_view"])[None]}


def _wanted(request: pb_utils.InferenceRequest, outputs: Tensors) -> list[str]:
    """The outputs asked for.

    Raises:
        Refused: ``BadTensor``, one that the inputs are not for.
    """
    names = list(request.requested_output_names())
    if strange := [name for name in names if name not in outputs]:
        raise Refused("BadTensor", f"`{strange[0]}` is not made of these inputs: ask for {', '.join(outputs)}.")
    return names
