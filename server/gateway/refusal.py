"""Why the gateway answers a request itself: one sentence with the name of the client's exception in front."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import grpc


@dataclass(frozen=True)
class Kind:
    """The statuses of one kind of refusal.

    Attributes:
        grpc: the gRPC status code.
        http: the HTTP status.
        retry_after: seconds for the HTTP header ``Retry-After``; None for no such header.
    """

    grpc: Any  # grpc.StatusCode; grpcio carries no types
    http: int
    retry_after: int | None = None


INVALID: Final = Kind(grpc.StatusCode.INVALID_ARGUMENT, 400)
NOT_FOUND: Final = Kind(grpc.StatusCode.NOT_FOUND, 404)
NOT_SERVED: Final = Kind(grpc.StatusCode.UNIMPLEMENTED, 404)
WRONG_METHOD: Final = Kind(grpc.StatusCode.UNIMPLEMENTED, 405)
TOO_LARGE: Final = Kind(grpc.StatusCode.INVALID_ARGUMENT, 413)
WRONG_MEDIA: Final = Kind(grpc.StatusCode.UNIMPLEMENTED, 415)
TOO_SLOW: Final = Kind(grpc.StatusCode.DEADLINE_EXCEEDED, 408)
NO_ANSWER: Final = Kind(grpc.StatusCode.DEADLINE_EXCEEDED, 504)
UNAVAILABLE: Final = Kind(grpc.StatusCode.UNAVAILABLE, 503, retry_after=1)


class Refused(Exception):
    """A request that is answered by the gateway and goes no further.

    Attributes:
        kind: the statuses it is answered with.
        tag: the name of the client's exception, such as ``BadOption``.
    """

    def __init__(self, kind: Kind, tag: str, sentence: str) -> None:
        super().__init__(sentence)
        self.kind, self.tag = kind, tag

    def __str__(self) -> str:
        return f"[{self.tag}] {self.args[0]}"


def starting() -> Refused:
    """Return the refusal while Triton is not there yet, or not again."""
    return Refused(UNAVAILABLE, "ServerUnavailable", "the server is starting: try again in a few seconds.")


def stopping() -> Refused:
    """Return the refusal once the gateway was told to stop."""
    return Refused(UNAVAILABLE, "ServerUnavailable", "the server is shutting down: send the request to another one.")


def lost() -> Refused:
    """Return the refusal when Triton's connection broke under a request."""
    return Refused(
        UNAVAILABLE,
        "ServerUnavailable",
        "the server ended while it worked on this request: try again in a few seconds.",
    )


def revived() -> Refused:
    """Return the refusal when a model's process has died: its supervisor starts another."""
    return Refused(
        UNAVAILABLE,
        "ServerUnavailable",
        "a process of the model has died, and another is being started: try again in a few seconds.",
    )


def overloaded(what: str) -> Refused:
    """Return the refusal when the gateway is full; ``what`` says of what."""
    return Refused(UNAVAILABLE, "Overloaded", f"{what}: send fewer requests at once, or later.")


def too_slow() -> Refused:
    """Return the refusal of a request that was not whole in time."""
    return Refused(
        TOO_SLOW, "Timeout", "the request did not arrive in time: send a smaller file, or over a faster line."
    )


def bad_request(sentence: str) -> Refused:
    """Return the refusal of what is no request of the protocol."""
    return Refused(INVALID, "BadRequest", sentence)


def bad_option(sentence: str) -> Refused:
    """Return the refusal of a parameter or a requested output."""
    return Refused(INVALID, "BadOption", sentence)


def no_consent() -> Refused:
    """Return the refusal of a fused picture that nobody is said to have agreed to."""
    return Refused(
        INVALID,
        "ConsentRequired",
        "a fused picture needs a consent statement: say in the parameter `consent` who agreed to it, and to what.",
    )


def switched_off(name: str) -> Refused:
    """Return the refusal of an ensemble that this server's operator has not turned on."""
    return Refused(
        NOT_FOUND,
        "NotServed",
        f"`{name}` is off on this server: its operator can turn it on by starting the server with --fusion "
        "(FACE3D_FUSION=1); docs/guides/fuse.md says what comes with it.",
    )


def too_large(sentence: str) -> Refused:
    """Return the refusal of more bytes than are taken."""
    return Refused(TOO_LARGE, "ImageTooLarge", sentence)


def shown(value: object, length: int = 40) -> str:
    """Shorten a client's value to one printable line of at most ``length`` characters, for sentences and the log."""
    text = value if isinstance(value, str) else str(value)
    cut = text[: length + 1]
    printable = "".join(c if c.isprintable() and not 0x202A <= ord(c) <= 0x202E else "?" for c in cut)
    return printable if len(cut) <= length else printable[: length - 3] + "..."
