"""What became of a request, and how Triton is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from face_rows import Refused
from meters import Meters
from numpy.typing import NDArray


@dataclass
class Answer:
    """What became of one request.

    Attributes:
        rows: tensors of each face, as far as they came.
        error: why there is no answer.
        events: what the meters are to be told, by the thread that Triton calls.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    error: Exception | None = None
    events: list[Callable[[Meters], None]] = field(default_factory=list)

    def note(self, event: Callable[..., None], *values: Any) -> None:
        """Tell the meters later."""
        self.events.append(lambda meters: event(meters, *values))


def response_of(request: pb_utils.InferenceRequest, answer: Answer) -> pb_utils.InferenceResponse:
    """Make Triton's response to a request."""
    if isinstance(answer.error, Refused):
        error = pb_utils.TritonError(f"[{answer.error.tag}] {answer.error}", pb_utils.TritonError.INVALID_ARG)
        return pb_utils.InferenceResponse([], error)
    if answer.error is not None:
        said = f"{type(answer.error).__name__}: {answer.error}"
        return pb_utils.InferenceResponse([], pb_utils.TritonError(said, pb_utils.TritonError.INTERNAL))
    most = max(len(row["warnings"]) for row in answer.rows)
    for row in answer.rows:  # rows of one request share a shape
        row["warnings"] = np.array([*row["warnings"], *[b""] * (most - len(row["warnings"]))], np.object_)
    names = request.requested_output_names()
    return pb_utils.InferenceResponse([pb_utils.Tensor(n, _stacked([row[n] for row in answer.rows])) for n in names])


def _stacked(rows: list[NDArray[Any]]) -> NDArray[Any]:
    """Stack the rows of a request into one tensor, smaller ones with zeros behind them; a single one is not copied."""
    if len(rows) == 1:
        return rows[0][None]
    shape = np.max([row.shape for row in rows], axis=0)
    if all(row.shape == tuple(shape) for row in rows):
        return np.stack(rows)
    stacked = np.zeros((len(rows), *shape), rows[0].dtype)
    for place, row in zip(stacked, rows, strict=True):
        place[tuple(slice(length) for length in row.shape)] = row
    return stacked
