"""Triton's side of `pair`: two photographs become the rows of one batch; of a batch of two the first row is taken."""

from __future__ import annotations

import numpy as np
import triton_python_backend_utils as pb_utils

# Outputs that are the first row of an input, and what each output is made of.
FIRST_ROWS = {f"source_{name}": name for name in ("crop_hd", "shapes", "context", "parts")}
NEEDS = {"image": ("source", "target"), "whole": (), **{output: (name,) for output, name in FIRST_ROWS.items()}}


class TritonPythonModel:
    """Puts together and takes apart; looks at nothing."""

    def execute(self, requests: list[pb_utils.InferenceRequest]) -> list[pb_utils.InferenceResponse]:
        """Answer each request by itself."""
        return [_answer(request) for request in requests]


def _answer(request: pb_utils.InferenceRequest) -> pb_utils.InferenceResponse:
    given = {tensor.name(): tensor for tensor in request.inputs()}
    wanted = request.requested_output_names()
    needed = {name for output in wanted for name in NEEDS[output]}
    if missing := sorted(needed - set(given)):
        sentence = f"[BadTensor] the request lacks `{missing[0]}`: send what the outputs are made of."
        error = pb_utils.TritonError(sentence, pb_utils.TritonError.INVALID_ARG)
        return pb_utils.InferenceResponse([], error)
    arrays = {name: given[name].as_numpy() for name in needed}
    outputs = []
    for name in wanted:
        if name == "image":
            rows = np.stack([arrays["source"].reshape(1), arrays["target"].reshape(1)])
        elif name == "whole":
            rows = np.array([[False], [True]])
        else:
            rows = np.ascontiguousarray(arrays[FIRST_ROWS[name]][:1])
        outputs.append(pb_utils.Tensor(name, rows))
    return pb_utils.InferenceResponse(outputs)
