"""Flows: methods of a client as steps, so that one implementation serves blocking and asyncio.

A flow is a generator. It yields steps, each a request for the transport or a pause, and is sent the answers;
`Face3DClient` performs the steps one after the other, `AsyncFace3DClient` awaits them.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

from face3d_client._errors import Face3DError
from face3d_client._transports.interface import DirectTransport

__all__ = ["Done", "Flow", "Pause", "Send", "Step", "advance", "request"]

T = TypeVar("T")


@dataclass(frozen=True)
class Pause:
    """A step that waits.

    Attributes:
        seconds: for how long.
    """

    seconds: float


Send: TypeAlias = Callable[[DirectTransport], Any]
"""A step that sends one request; with an asyncio transport it returns an awaitable."""

Step: TypeAlias = "Send | Pause"
Flow: TypeAlias = Generator[Step, Any, T]
"""Steps of one method, and in the end what it returns. A `Face3DError` of a step is raised where it was yielded."""


@dataclass(frozen=True)
class Done(Generic[T]):
    """The end of a flow.

    Attributes:
        value: what the flow returned.
    """

    value: T


def advance(flow: Flow[T], answer: Any = None, *, error: Face3DError | None = None) -> Step | Done[T]:
    """Tell a flow what its last step gave, and take the next one.

    Args:
        flow: not yet at its end.
        answer: of the last step; None before the first one.
        error: raised by the last step.

    Raises:
        Face3DError: the flow ends with it.
    """
    try:
        return flow.send(answer) if error is None else flow.throw(error)
    except StopIteration as end:
        return Done(end.value)


def request(send: Callable[[DirectTransport], T]) -> Flow[T]:
    """Make a flow of a single request."""
    answer: T = yield send
    return answer
