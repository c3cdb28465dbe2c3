"""Exceptions made of what a server answered: its status code and its sentence.

The service puts an exception's name in front of its sentence (``[NoFace] ...``); Triton adds words of its own before
it, so the tag is searched for and not expected at the start. Without a tag the status code decides.
"""

from __future__ import annotations

import re
from typing import Final

from face3d_client._errors import (
    AccessDenied,
    BadFace,
    BadImage,
    BadOption,
    BadRequest,
    ConsentRequired,
    DifferentPeople,
    Face3DError,
    FaceModelMismatch,
    ImageTooLarge,
    NoFace,
    NoSuchFace,
    NotServed,
    Overloaded,
    RequestError,
    ServerUnavailable,
    ServiceError,
    Timeout,
)
from face3d_client._text import MAX_MESSAGE

__all__ = ["error_from", "error_from_http", "is_tagged"]

_TAGGED: Final[dict[str, type[Face3DError]]] = {
    cls.__name__: cls
    for cls in (
        BadImage,
        ImageTooLarge,
        NoFace,
        BadFace,
        NoSuchFace,
        BadOption,
        BadRequest,
        ConsentRequired,
        NotServed,
        DifferentPeople,
        Overloaded,
        Timeout,
        ServerUnavailable,
        AccessDenied,
        FaceModelMismatch,
    )
}
_REQUEST_ID: Final = re.compile(r"^\[request id: [^\]]*\]")  # Triton puts it in front, mostly as <id_unknown>
_RESTRICTED: Final = re.compile(r"is restricted, expecting header '([^']*)'")
_TAG: Final = re.compile(rf"\[({'|'.join(_TAGGED)})\]\s*(.+)", re.DOTALL)

# The two conditions under which the same call may well succeed a moment later. INTERNAL is not one of them: Triton
# also answers it to malformed requests.
_RETRYABLE: Final = frozenset({"UNAVAILABLE", "RESOURCE_EXHAUSTED"})

_BY_STATUS: Final[dict[str, type[Face3DError]]] = {
    "INVALID_ARGUMENT": RequestError,
    "OUT_OF_RANGE": RequestError,
    "UNIMPLEMENTED": RequestError,
    "ALREADY_EXISTS": RequestError,
    "RESOURCE_EXHAUSTED": Overloaded,
    "DEADLINE_EXCEEDED": Timeout,
    "UNAUTHENTICATED": AccessDenied,
    "PERMISSION_DENIED": AccessDenied,
}

_FROM_HTTP: Final[dict[int, str]] = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    408: "DEADLINE_EXCEEDED",
    413: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    501: "UNIMPLEMENTED",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


def is_tagged(message: str) -> bool:
    """Tell whether the service or its gateway wrote this message: theirs carry a ``[Tag]``."""
    return _TAG.search(message[: 4 * MAX_MESSAGE]) is not None


def error_from(status: str, message: str) -> Face3DError:
    """Make the exception for what a server answered.

    Args:
        status: name of a gRPC status code, such as ``"INVALID_ARGUMENT"``.
        message: the server's words, with or without a ``[Tag]`` in them.
    """
    message = message[: 4 * MAX_MESSAGE]  # what follows looks through it more than once
    retryable = status in _RETRYABLE
    tagged = _TAG.search(message)
    if tagged is not None:
        cls = _TAGGED[tagged[1]]
        # The gateway answers NOT_FOUND for a model that is not loaded yet: by its tag, that passes.
        passing = retryable or (cls is ServerUnavailable and status == "NOT_FOUND")
        return cls(tagged[2].strip(), status=status, retryable=passing and issubclass(cls, ServiceError))
    # An exception that a Python model did not catch arrives with its traceback; the sentence is before that.
    words = _REQUEST_ID.sub("", message).partition("\n\nAt:\n")[0].strip()
    words = words or f"the server answered {status} without a word"
    # Over gRPC it comes as UNAVAILABLE, but waiting does not help.
    if (restricted := _RESTRICTED.search(words)) is not None:
        return AccessDenied(_restricted_message(restricted[1]), status="PERMISSION_DENIED")
    if "message larger than max" in words:  # gRPC says RESOURCE_EXHAUSTED, but waiting does not help
        return ImageTooLarge(f"{words}. Send a smaller file.", status=status)
    cls = _BY_STATUS.get(status, ServerUnavailable)
    if status == "UNAVAILABLE" and "maximum queue size" in words.lower():
        cls = Overloaded
        words = "the server's queue is full. Send fewer pictures at once, or later."
    elif status == "UNAVAILABLE" and "timeout expired" in words.lower():
        cls = Timeout
    return cls(words, status=status, retryable=retryable)


def _restricted_message(header: str) -> str:
    """Say what to do about an API that Triton opens only with this header."""
    name = header.removeprefix("triton-grpc-protocol-")
    if name == "admin-key":
        return (
            "the server keeps this closed to all who do not have its admin key. Set FACE3D_ADMIN_KEY to the same key "
            "where the server is started and here (in Python: admin_key=...)."
        )
    if name == "authorization":
        return "the server wants another token. Give the right one (--token, FACE3D_TOKEN; in Python: token=...)."
    return f"the server wants the header {name!r} with a value it knows. Give it (in Python: headers=...)."


def error_from_http(code: int, message: str) -> Face3DError:
    """Make the exception for an HTTP status code and the text of its body.

    Triton maps its own codes to HTTP ones (INVALID_ARG 400, NOT_FOUND 404, INTERNAL 500, UNAVAILABLE 503); the others
    come from the proxies in front of it.
    """
    if code == 413 and _TAG.search(message) is None:
        return ImageTooLarge("the request is larger than the server takes. Send a smaller file.", status="HTTP 413")
    return error_from(_FROM_HTTP.get(code, "INTERNAL"), message)
