"""Exceptions of this package. The tree of them stands in the documentation of `face3d_client`."""

from __future__ import annotations

from face3d_client._text import printable


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


class ConsentRequired(RequestError):
    """A picture is to be fused, and no statement says who agreed to it."""


class NotServed(RequestError):
    """What is asked for is off on this server: its operator can turn it on."""


class BadRequest(RequestError):
    """The request is malformed, or asks for something that is not served."""


class PoorQuality(RequestError):
    """A photograph is too poor to enrol a person by."""


class DifferentPeople(RequestError):
    """Photographs that are to be of one person show different ones."""


class ServiceError(Face3DError):
    """The picture may be fine; the service is not."""


class Overloaded(ServiceError):
    """The server's queue is full."""


class Timeout(ServiceError):
    """The deadline passed before the answer came."""


class ServerUnavailable(ServiceError):
    """The server, a model or one of its processes is down.

    Attributes:
        answered: whether a server said so; False where none answered.
    """

    answered: bool = True


class AccessDenied(ServiceError):
    """The server refused the token, key or certificate."""


class BadResponse(ServiceError):
    """What came back is not an answer of this service: not of its protocol, of other sizes or types, or too large."""


class FaceModelMismatch(ServiceError):
    """The regressor and the face model on the server do not belong together."""


class GalleryMismatch(Face3DError):
    """Vectors of two embedders met: a gallery belongs to the embedder that it was begun with."""


class GalleryError(Face3DError):
    """A gallery that cannot be used: another key, a damaged file, a store that does not answer or is not installed."""


class BadEndpoint(Face3DError, ValueError):
    """An address, token or header that cannot be used. Its message repeats no password, token or key."""


class NotRequested(Face3DError):
    """A field of a result was read that had not been asked for."""
