"""The outcomes by which inference requests are counted: answered, refused and why, failed, or given up.

A refusal is the sender's to mend, or says that the service is full or starting; a fault is the service's own. Both come
from Triton as errors: a model that refuses writes the name of the client's exception in brackets into its sentence.
"""

from __future__ import annotations

import re
from typing import Final

import grpc

OK, CANCELLED, FAULT = "ok", "cancelled", "fault"
"""Answered; given up by its sender; failed although nothing refused it."""

REFUSALS: Final = (
    *("BadFace", "BadImage", "BadOption", "BadRequest", "ConsentRequired", "FaceModelMismatch", "ImageTooLarge"),
    *("NoFace", "NoSuchFace", "NotServed", "Overloaded", "ServerUnavailable", "Timeout"),
)
"""Exceptions of the client with which a request is refused; every other tag counts as a fault."""

OUTCOMES: Final = (OK, CANCELLED, FAULT, *REFUSALS)

CAUSES: Final = ("none", "client", "load", "server")
"""Who has to do something: nobody; the one who sent the picture or the request; who adds servers; who runs them."""

_CAUSES: Final = {
    **dict.fromkeys((OK, CANCELLED), "none"),
    **dict.fromkeys(("Overloaded", "Timeout"), "load"),
    **dict.fromkeys((FAULT, "ServerUnavailable", "FaceModelMismatch"), "server"),
}
_BY_CODE: Final = {
    grpc.StatusCode.INVALID_ARGUMENT: "BadRequest",
    grpc.StatusCode.NOT_FOUND: "BadRequest",
    grpc.StatusCode.UNIMPLEMENTED: "BadRequest",
    grpc.StatusCode.OUT_OF_RANGE: "BadRequest",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "Overloaded",
    grpc.StatusCode.UNAVAILABLE: "Overloaded",
    grpc.StatusCode.DEADLINE_EXCEEDED: "Timeout",  # the client's own
    grpc.StatusCode.CANCELLED: CANCELLED,
}
_TAG: Final = re.compile(rf"\[({'|'.join(REFUSALS)})\] ")
# A model's sentence stands behind Triton's own words about the ensemble's step; a client's text may stand in it later.
_LOOK_AT: Final = 500


def of_error(sentence: str, otherwise: str = FAULT) -> str:
    """Return the outcome of a request that Triton answered with an error; ``otherwise`` where no model refused it."""
    match = _TAG.search(sentence, 0, _LOOK_AT)
    return otherwise if match is None else match[1]


def of_http(status: int, body: bytes) -> str:
    """Return the outcome of an error of Triton's over HTTP."""
    otherwise = "Overloaded" if status == 503 else FAULT if status >= 500 else "BadRequest"
    return of_error(body[:_LOOK_AT].decode(errors="replace"), otherwise)


def of_grpc(code: grpc.StatusCode, details: str) -> str:
    """Return the outcome of an error of Triton's over gRPC."""
    return of_error(details, _BY_CODE.get(code, FAULT))


def cause(outcome: str) -> str:
    """Return who has to do something about an outcome, one of `CAUSES`."""
    return _CAUSES.get(outcome, "client")
