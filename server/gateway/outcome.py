"""The outcomes by which inference requests are counted: answered, refused and why, failed, or given up.

A refusal is the sender's to mend, or says that the service is full or starting; a fault is the service's own. Both come
from Triton as errors: a model that refuses writes the name of the client's exception in brackets into its sentence.
"""

from __future__ import annotations

import re
from typing import Final

OK, CANCELLED, FAULT = "ok", "cancelled", "fault"
"""Answered; given up by its sender; failed although nothing refused it."""

REFUSALS: Final = (
    *("BadFace", "BadImage", "BadOption", "BadRequest", "FaceModelMismatch", "ImageTooLarge", "NoFace", "NoSuchFace"),
    *("Overloaded", "ServerUnavailable", "Timeout"),
)
"""Exceptions of the client with which a request is refused; every other tag counts as a fault."""

OUTCOMES: Final = (OK, CANCELLED, FAULT, *REFUSALS)

_TAG: Final = re.compile(rf"\[({'|'.join(REFUSALS)})\] ")
# A model's sentence stands behind Triton's own words about the ensemble's step; a client's text may stand in it later.
_LOOK_AT: Final = 500


def of_error(sentence: str) -> str:
    """Return the outcome of a request that Triton answered with an error."""
    match = _TAG.search(sentence, 0, _LOOK_AT)
    return FAULT if match is None else match[1]
