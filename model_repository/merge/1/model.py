"""Triton's side of `merge`: what several photographs say about one person, or several looks at one photograph."""

from __future__ import annotations

import json
import time
import traceback
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import triton_python_backend_utils as pb_utils
from chart import Chart
from grazing import Photograph, with_grazing
from identities import join, most_frontal, project, weigh
from merge_options import Options, options_from
from merge_refusals import Refused
from meters import Meters
from numpy.typing import NDArray
from people import check_one_person
from photo_tensors import CHECK, IDENTITY, TEXTURE, need
from textures import merge_textures, resized
from tile_faces import join as join_faces

Tensors = dict[str, NDArray[Any]]


class TritonPythonModel:
    """Compares, joins and paints, or joins faces: one of them a request, by the inputs that it has."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the threshold from the configuration and the chart, which export wrote into this version folder."""
        parameters = json.loads(args["model_config"])["parameters"]
        self._same_person = float(parameters["same_person"]["string_value"])
        self._chart = Chart.from_file(Path(args["model_repository"]) / args["model_version"] / "chart.npz")
        cv2.setNumThreads(1)
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
        shapes, coefficients, fingerprints, context, crops, quality, certainty = need(tensors, IDENTITY)
        self._chart.check(shapes, fingerprints)
        weights = weigh(coefficients, quality, context[:, 4], certainty[:, 0])
        reference = most_frontal(coefficients, quality) if options.reference is None else options.reference
        if reference >= len(shapes):
            raise Refused(
                "BadOption", f"`reference` is {reference}: {len(shapes)} photographs came, give 0 to {len(shapes) - 1}."
            )
        person = join(shapes, coefficients, weights, self._chart.landmarks)
        self._meters.joined(len(shapes))
        landmarks = person.shapes[:, 0, self._chart.landmarks]
        one = slice(reference, reference + 1)
        chosen = np.arange(len(shapes)) == reference
        return {
            "shapes": person.shapes[one],
            "expression": person.coefficients[one, 80:144],
            "fingerprint": fingerprints[one],
            "context": context[one],
            "crop_hd": crops[one],
            "fingerprints": fingerprints,
            "certainties": np.stack([quality[:, 0] * np.sqrt(quality[:, 1]), chosen], 1).astype(np.float32),
            "coefficients": person.coefficients,
            "vertices": person.shapes[:, 0] * np.float32(100),
            "vertices_neutral": person.shapes[one, 2] * np.float32(100),
            "landmarks": project(landmarks, context[:, 15:19]),
            "landmarks_3d": landmarks * np.float32(100),
            "face_model": fingerprints[one],
            "weights": weights,
            "reference": np.array([reference], np.int64),
        }

    def _texture(self, tensors: Tensors) -> Tensors:
        """Put the textures together."""
        began = time.perf_counter()
        textures, visibility, shapes, certainty, context, crops, parts = need(tensors, TEXTURE)
        self._chart.check(shapes, np.array([self._chart.fingerprint]))
        fine = visibility  # which is larger than textures of small faces
        visibility = resized(fine, textures.shape[-1])
        facing = np.stack([self._chart.facing(shape[0]) for shape in shapes])
        if len(shapes) > 1:  # one photograph alone takes nothing under a flat angle
            photographs = map(Photograph, shapes[:, 0], crops, context[:, 15:23], parts)
            wider = [
                with_grazing(self._chart, *each) for each in zip(photographs, facing, textures, visibility, strict=True)
            ]
            textures, visibility = (np.stack(column) for column in zip(*wider, strict=True))
        merged = merge_textures(
            textures, visibility, facing, certainty[:, 0], self._chart.core, int(certainty[:, 1].argmax())
        )
        self._meters.textured(time.perf_counter() - began)
        shown = resized(merged.visibility[None], fine.shape[-1]) if len(shapes) > 1 else fine
        return {"texture": merged.colours[None], "visibility": np.maximum(shown, fine.max(0))}


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
