"""Triton's side of `steady`: a clip's frames in the order of time, by Triton's sequence batcher; see tracks.py."""

from __future__ import annotations

import traceback
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from arkit_names import NAMES, weights_of
from lips import Lips
from meters import Meters
from numpy.typing import NDArray
from steady_options import Options, Refused, options_from
from tracks import EXPRESSION, IDENTITY, Track

FARTHEST = 100.0  # of a coefficient: squares and products of these stay far from overflow
# Clips whose state is kept: sixteen times the slots, for those that ended without a word.
MAX_TRACKS = 512


class TritonPythonModel:
    """Keeps a filter for each clip that has a slot."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the expressions' names, which export wrote into this version folder."""
        path = Path(args["model_repository"]) / args["model_version"] / "expressions.npz"
        with np.load(path, allow_pickle=False) as data:
            self._names = tuple(str(name) for name in data["expression_names"])
            self._fingerprint = int(data["fingerprint"][0])
            self._lips = Lips(self._names, data["lip_gaps"])
        self._tracks: OrderedDict[int | str, Track] = OrderedDict()
        self._meters = Meters()

    def execute(self, requests: list[pb_utils.InferenceRequest]) -> list[pb_utils.InferenceResponse]:
        """Answer each request by itself: they are of different clips."""
        return [self._safely(request) for request in requests]

    def _safely(self, request: pb_utils.InferenceRequest) -> pb_utils.InferenceResponse:
        try:
            outputs = self._outputs(request, options_from(request.parameters()))
            return pb_utils.InferenceResponse(
                [pb_utils.Tensor(name, outputs[name][None]) for name in request.requested_output_names()]
            )
        except Refused as error:
            self._meters.refused(error.tag)
            refusal = pb_utils.TritonError(f"[{error.tag}] {error}", pb_utils.TritonError.INVALID_ARG)
            return pb_utils.InferenceResponse([], refusal)
        except Exception as error:  # whatever it is, it concerns this request and not its neighbours
            pb_utils.Logger.log_error("steady: " + traceback.format_exc())
            failure = pb_utils.TritonError(f"{type(error).__name__}: {error}", pb_utils.TritonError.INTERNAL)
            return pb_utils.InferenceResponse([], failure)

    def _outputs(self, request: pb_utils.InferenceRequest, options: Options) -> dict[str, NDArray[Any]]:
        tensors = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        coefficients = tensors["coefficients"].reshape(-1, 257)
        if len(coefficients) != 1 or not np.abs(coefficients).max() <= FARTHEST:  # written so that a NaN fails
            raise Refused("BadTensor", "`coefficients` is that of no single face: send what the regressor returns.")
        if int(tensors["fingerprint"].ravel()[0]) != self._fingerprint:
            raise Refused(
                "FaceModelMismatch",
                "the regressor and `steady` belong to different face models: export both again (python -m export all).",
            )
        found = self._track(request, options).step(coefficients[0], 1 / options.frame_rate)
        named = any(self._names)
        expression = self._lips.closed(found.coefficients[IDENTITY], found.coefficients[EXPRESSION])
        return {
            "steady_coefficients": found.coefficients,
            "blendshapes": weights_of(self._names, expression) if named else np.zeros(len(NAMES), np.float32),
            "rotation": found.rotation,
        }

    def _track(self, request: pb_utils.InferenceRequest, options: Options) -> Track:
        """The clip of a request: a new one at its first frame, forgotten after its last one."""
        clip, flags = request.correlation_id(), request.flags()
        track = self._tracks.pop(clip, None)
        if track is None or flags & pb_utils.TRITONSERVER_REQUEST_FLAG_SEQUENCE_START:
            track = Track(options.smoothing)
            self._meters.begun()
        if not flags & pb_utils.TRITONSERVER_REQUEST_FLAG_SEQUENCE_END:
            self._tracks[clip] = track
            while len(self._tracks) > MAX_TRACKS:
                self._tracks.popitem(last=False)
        return track
