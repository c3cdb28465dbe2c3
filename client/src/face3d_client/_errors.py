"""What can go wrong, as one tree.

::

    Face3DError
    ├── RequestError            this request cannot succeed however often it is sent
    │   ├── BadImage            not a picture, truncated, empty or of an unsupported format
    │   ├── ImageTooLarge       more bytes or pixels than the server takes
    │   ├── NoFace              no face, or none with a high enough score
    │   ├── BadFace             the five points found cannot be a face
    │   ├── NoSuchFace          the face asked for (index or box) is not in the picture
    │   ├── BadOption           an option's value makes no sense
    │   └── BadRequest          the request is malformed, or asks for what is not served
    ├── ServiceError            the picture may be fine; the service is not
    │   ├── Overloaded          the queue is full                                   (retried)
    │   ├── Timeout             the deadline passed
    │   ├── ServerUnavailable   server, model or one of its processes is down       (retried unless INTERNAL)
    │   ├── AccessDenied        the token, key or certificate was refused
    │   ├── BadResponse         what came back is not an answer of this service
    │   └── FaceModelMismatch   regressor and face model on the server do not belong together
    ├── BadEndpoint             an address, token or header that cannot be used     (also a ValueError)
    └── NotRequested            a field of a result was read that had not been asked for

The server puts the class in front of its sentence (``[NoFace] ...``); Triton wraps that in words of its own, so the tag
is searched for, not expected at the start. Without a tag the status decides.
"""

from __future__ import annotations

import re
from typing import Final

from face3d_client._text import LONGEST, printable

__all__ = [
    "AccessDenied",
    "BadEndpoint",
    "BadFace",
    "BadImage",
    "BadOption",
    "BadRequest",
    "BadResponse",
    "Face3DError",
    "FaceModelMismatch",
    "ImageTooLarge",
    "NoFace",
    "NoSuchFace",
    "NotRequested",
    "Overloaded",
    "RequestError",
    "ServerUnavailable",
    "ServiceError",
    "Timeout",
    "error_from",
    "error_from_http",
    "is_tagged",
]


class Face3DError(Exception):
    """Root of everything this package raises on purpose.

    Attributes:
        message: one sentence for a person: what is wrong and what to do. Without control characters, whatever a server
            wrote into it.
        status: the gRPC status it came with (``"INVALID_ARGUMENT"``), or None where no server was asked.
        retryable: whether the same call may succeed a moment later.
    """

    def __init__(self, message: str, *, status: str | None = None, retryable: bool = False) -> None:
        self.message = printable(message)
        super().__init__(self.message)
        self.status = status
        self.retryable = retryable


class RequestError(Face3DError):
    """This request cannot succeed however often it is sent."""


class BadImage(RequestError):
    """Not a picture, truncated, empty or of an unsupported format."""


class ImageTooLarge(RequestError):
    """More bytes or pixels than the server takes."""


class NoFace(RequestError):
    """No face in the picture, or none whose score reaches the threshold."""


class BadFace(RequestError):
    """The five points found cannot be a face."""


class NoSuchFace(RequestError):
    """The face asked for, by index or by box, is not in the picture."""


class BadOption(RequestError):
    """An option's value makes no sense."""


class BadRequest(RequestError):
    """The request is malformed, or asks for something that is not served."""


class ServiceError(Face3DError):
    """The picture may be fine; the service is not."""


class Overloaded(ServiceError):
    """The server's queue is full."""


class Timeout(ServiceError):
    """The deadline passed before the answer came."""


class ServerUnavailable(ServiceError):
    """The server, a model or one of its processes is down."""


class AccessDenied(ServiceError):
    """The server refused the token, key or certificate."""


class BadResponse(ServiceError):
    """What came back is not an answer of this service: not of its protocol, of other sizes or types, or too large."""


class FaceModelMismatch(ServiceError):
    """The regressor and the face model on the server do not belong together."""


class BadEndpoint(Face3DError, ValueError):
    """An address, token or header that cannot be used. Its message repeats no password, token or key."""


class NotRequested(Face3DError):
    """A field of a result was read that had not been asked for."""


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
    """Whether the service or its gateway wrote this message: they say by a ``[Tag]`` what it means."""
    return _TAG.search(message[: 4 * LONGEST]) is not None


def error_from(status: str, message: str) -> Face3DError:
    """The exception for what a server answered.

    Args:
        status: name of a gRPC status code, such as ``"INVALID_ARGUMENT"``.
        message: the server's words, with or without a ``[Tag]`` in them.
    """
    message = message[: 4 * LONGEST]  # what follows looks through it more than once
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
        return AccessDenied(_closed_by(restricted[1]), status="PERMISSION_DENIED")
    if "message larger than max" in words:  # gRPC says RESOURCE_EXHAUSTED, but waiting does not help
        return ImageTooLarge(f"{words}. Send a smaller file.", status=status)
    cls = _BY_STATUS.get(status, ServerUnavailable)
    if status == "UNAVAILABLE" and "maximum queue size" in words.lower():
        cls = Overloaded
        words = "the server's queue is full. Send fewer pictures at once, or later."
    elif status == "UNAVAILABLE" and "timeout expired" in words.lower():
        cls = Timeout
    return cls(words, status=status, retryable=retryable)


def _closed_by(header: str) -> str:
    """What to do about an API that Triton opens only with this header."""
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
    """The exception for an HTTP status code and the text of its body.

    Triton maps its own codes to HTTP ones (INVALID_ARG 400, NOT_FOUND 404, INTERNAL 500, UNAVAILABLE 503); the others
    come from the proxies in front of it.
    """
    if code == 413 and _TAG.search(message) is None:
        return ImageTooLarge("the request is larger than the server takes. Send a smaller file.", status="HTTP 413")
    return error_from(_FROM_HTTP.get(code, "INTERNAL"), message)
