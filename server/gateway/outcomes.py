"""What became of a request, for the counters: its outcome, and who has to do something about it."""

from __future__ import annotations

import re
from typing import Any, Final

import grpc

OK: Final = "ok"
CANCELLED: Final = "cancelled"
FAULT: Final = "Fault"
"""The outcome of a request that failed by a fault of the service."""

# Triton puts words of its own before the sentence of a model.
_TAG: Final = re.compile(r"\[([A-Z][A-Za-z0-9]{2,30})\] ")
_CAUSES: Final = {
    OK: "none",
    CANCELLED: "none",
    "Overloaded": "load",
    "Timeout": "load",
    "ServerUnavailable": "server",
    "FaceModelMismatch": "server",
    "BadTensor": "server",
    FAULT: "server",
}
_BY_CODE: Final = {
    grpc.StatusCode.INVALID_ARGUMENT: "BadRequest",
    grpc.StatusCode.NOT_FOUND: "BadRequest",
    grpc.StatusCode.UNIMPLEMENTED: "BadRequest",
    grpc.StatusCode.OUT_OF_RANGE: "BadRequest",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "Overloaded",
    grpc.StatusCode.UNAVAILABLE: "Overloaded",
    grpc.StatusCode.DEADLINE_EXCEEDED: "Timeout",
    grpc.StatusCode.CANCELLED: CANCELLED,
}
CAUSES: Final = ("none", "client", "load", "server")
"""Who has to do something: nobody; the one who sent the picture or the request; who adds servers; who runs them."""


def cause(outcome: str) -> str:
    """Who has to do something about an outcome, one of CAUSES; what is not listed is a picture or a request."""
    return _CAUSES.get(outcome, "client")


def of_words(words: str, otherwise: str) -> str:
    """The outcome by the tag in a sentence, or ``otherwise``."""
    found = _TAG.search(words[:2000])
    return found[1] if found else otherwise


def of_http(status: int, body: bytes) -> str:
    """The outcome of an answer of Triton's over HTTP."""
    if status < 400:
        return OK
    otherwise = "Overloaded" if status == 503 else FAULT if status >= 500 else "BadRequest"
    return of_words(body[:2000].decode(errors="replace"), otherwise)


def of_error(error: BaseException) -> str:
    """The outcome of a request that ended with an error that is no refusal of the gateway's."""
    if not isinstance(error, grpc.aio.AioRpcError):
        return FAULT
    code: Any = error.code()
    return of_words(error.details() or "", _BY_CODE.get(code, FAULT))
