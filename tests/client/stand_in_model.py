"""A Python model for a real Triton that answers as the three ensembles do, at once and from a file.

The protocol tests need errors of every kind on demand, delays and answers that tell the requests apart; the real
ensembles give neither. What a request's `image` says is done:

- ``ERROR code words``: fail with that TritonError code;
- ``SLEEP seconds``: answer after that time;
- ``NUMBER n``: answer with ``coefficients[0] = n``;
- ``UNRIGGED``: refuse a rig, as a face model without one does;
- anything else: answer with what is in `answers.npz`.

`warnings` tells the request's parameters and, for `reconstruct`, the score of the face it was given.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """One of face3d, reconstruct, detect."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the answers once."""
        folder = Path(args["model_repository"]) / args["model_version"]
        self.outputs = [output["name"] for output in json.loads(args["model_config"])["output"]]
        with np.load(folder / "answers.npz") as answers:
            self.answers: dict[str, Any] = {name: answers[name] for name in answers.files}
        for name in ("mesh", "texture", "preview"):
            self.answers[name] = np.array([[(folder / name).read_bytes()]], np.object_)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request by itself."""
        return [self.one(request) for request in requests]

    def one(self, request: Any) -> Any:
        """Do what the picture says."""
        image = pb_utils.get_input_tensor_by_name(request, "image")
        assert image is not None
        words = image.as_numpy()[0, 0].split(b" ", 2)
        answers = dict(self.answers)
        if words[0] == b"ERROR":
            code = getattr(pb_utils.TritonError, words[1].decode())
            return pb_utils.InferenceResponse([], pb_utils.TritonError(words[2].decode(), code))
        if words[0] == b"SLEEP":
            time.sleep(float(words[1]))
        if words[0] == b"NUMBER":
            answers["coefficients"] = answers["coefficients"].copy()
            answers["coefficients"][0, 0] = float(words[1])
        rigged = json.loads(request.parameters()).get("rig") == "arkit"
        if words[0] == b"UNRIGGED" and rigged:
            refusal = pb_utils.TritonError(
                "[BadOption] `rig` cannot be: leave it out.", pb_utils.TritonError.INVALID_ARG
            )
            return pb_utils.InferenceResponse([], refusal)
        told = [f"{name}={value!r}" for name, value in sorted(json.loads(request.parameters()).items())]
        face = pb_utils.get_input_tensor_by_name(request, "choice")
        if face is not None:
            told.append(f"face {face.as_numpy()[0, 4]:.2f}")
            answers["face"] = face.as_numpy()
        answers["warnings"] = np.array([[line.encode() for line in told]], np.object_).reshape(1, len(told))
        answers["texture_warnings"] = np.empty((1, 0), np.object_)
        wanted = set(request.requested_output_names())
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor(name, answers[name]) for name in self.outputs if name in wanted]
        )
