"""The part of both clients that does no I/O: address, deadlines, retries, shared memory.

A method that needs more than one request is a flow here (see `_flows`), which each client performs in its own way.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypedDict, TypeVar, cast

from face3d_client._detection import DetectedFace
from face3d_client._errors import Face3DError, ServerUnavailable, Timeout
from face3d_client._flows import Flow, Pause, request
from face3d_client._protocol.calls import Call, Reply
from face3d_client._protocol.codec import ENSEMBLES
from face3d_client._protocol.options import Options, with_face
from face3d_client._results import Reconstruction
from face3d_client._transports.endpoint import TLS, Endpoint, Protocol
from face3d_client._transports.retry import Budget, Deadline, Retry
from face3d_client._transports.shared_memory import Region, Regions, is_unknown_region

__all__ = ["AllFacesOptions", "BaseClient", "Connection", "raise_first_error"]

T = TypeVar("T")

_LARGE_ENOUGH: Final = 224.0
"""Source pixels of a face's longer side from which on a picture brought to 2048 pixels shows enough of it."""
_OF_PARENTS: Final[list[Any]] = []  # what processes that were forked leave alone


class Connection(TypedDict, total=False):
    """How to reach a server; each is described at `Face3DClient`."""

    protocol: Protocol | None
    timeout: float
    retry: Retry | None
    tls: TLS | bool | None
    token: str | None
    headers: Mapping[str, str] | None
    admin_key: str | None


class AllFacesOptions(Options, total=False):
    """Arguments of `reconstruct_all`: those of `Options`, of which `face` and `box` make no sense there, and these.

    Attributes:
        min_size: leave out faces whose box's longer side has fewer source pixels (0).
        concurrency: faces in flight at the same time (8).
        timeout: seconds for all of it (the client's).
    """

    min_size: float
    concurrency: int
    timeout: float | None


@dataclass(frozen=True)
class AllFaces:
    """Arguments of `reconstruct_all`, sorted.

    Attributes:
        options: those of `Options`, for each face.
        min_size: see `AllFacesOptions`.
        min_face: of `Options`: faces as small as that are looked for.
        concurrency: see `AllFacesOptions`.
        deadline: for all of it.
    """

    options: Options
    min_size: float
    min_face: float | None
    concurrency: int
    deadline: Deadline

    def select(self, faces: Sequence[DetectedFace]) -> list[DetectedFace]:
        """Leave out the faces that are too small."""
        return [face for face in faces if face.size >= self.min_size]

    def options_of(self, face: DetectedFace) -> Options:
        """Return the options for one face; a small one is cut out of the picture's own pixels, if they were looked at.

        Such requests take turns at the server, so a face that is large enough without them does without.
        """
        chosen = with_face(self.options, face)
        if self.min_face is not None and face.size < _LARGE_ENOUGH:
            chosen["min_face"] = self.min_face
        return chosen


class BaseClient:
    """Address, deadlines, retries and shared memory of a client; its arguments are described at `Face3DClient`."""

    _transport: Any
    _regions: Regions | None

    def __init__(
        self,
        url: str | None = None,
        *,
        protocol: Protocol | None = None,
        timeout: float = 60.0,
        retry: Retry | None = None,
        tls: TLS | bool | None = None,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
        admin_key: str | None = None,
        shared_memory: bool = False,
    ) -> None:
        self.endpoint = Endpoint.parse(url, protocol, tls, token, headers, admin_key)
        # The address as it was understood: the environment of another process may say something else.
        self._settings: dict[str, Any] = {
            "url": str(self.endpoint),
            "timeout": timeout,
            "retry": retry,
            "tls": tls,
            "token": token,
            "headers": None if headers is None else dict(headers),
            "admin_key": admin_key,
            "shared_memory": shared_memory,
        }
        self._pid = os.getpid()
        self._timeout = Deadline.checked(timeout)
        self._budget = Budget(retry or Retry())
        if shared_memory:
            Regions.check(self.endpoint)
        self._regions = Regions() if shared_memory else None
        self._open()

    def _open(self) -> None:
        """Make the transport; nothing is connected yet."""
        raise NotImplementedError

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """Pickle and copy as the settings: the other client connects anew. Token and key are among them."""
        return _revived, (type(self), self._settings)

    def _leave_parent(self) -> None:
        """Begin anew in a process that was forked from the one that made this client.

        The connections, and the locks that a thread of that process may have held, are the parent's: they are kept as
        they are, since closing them here would end them there.
        """
        if self._pid == os.getpid():
            return
        _OF_PARENTS.append((self._transport, self._regions, self._budget))
        self._pid = os.getpid()
        self._budget = Budget(self._settings["retry"] or Retry())
        self._regions = Regions() if self._settings["shared_memory"] else None
        self._open()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.endpoint)!r})"

    def _deadline(self, timeout: float | None) -> Deadline:
        return Deadline(self._timeout if timeout is None else timeout)

    def _all_faces(self, options: AllFacesOptions) -> AllFaces:
        rest = dict(options)
        min_size = cast(float, rest.pop("min_size", 0))
        min_face = cast("float | None", rest.pop("min_face", None))
        concurrency = cast(int, rest.pop("concurrency", 8))
        deadline = self._deadline(cast("float | None", rest.pop("timeout", None)))
        return AllFaces(cast(Options, rest), min_size, min_face, concurrency, deadline)

    # --- flows ------------------------------------------------------------------------------------------------------

    def _retry_flow(self, send: Callable[[float], Flow[T]], timeout: float | None) -> Flow[T]:
        """Send until an answer comes, the retry policy ends or the deadline passes.

        Args:
            send: makes the steps of one attempt; its argument is the seconds left.
            timeout: seconds for all attempts. None: the client's.
        """
        deadline = self._deadline(timeout)
        for attempt in itertools.count(1):
            try:
                answer = yield from send(deadline.left())
            except Face3DError as error:
                pause = self._budget.pause(error, attempt, deadline)
                if pause is None:
                    raise
            else:
                self._budget.succeeded()
                return answer
            yield Pause(pause)
        raise AssertionError("unreachable")

    def _infer_flow(self, call: Call, timeout: float | None) -> Flow[Reply]:
        """Send a call, its picture through shared memory where the client has some."""
        if self._regions is None or "image" not in call.inputs:  # a region holds one picture
            return (yield from self._retry_flow(lambda left: request(lambda to: to.infer(call, left)), timeout))
        with self._regions.place(call) as (placed, region):
            return (yield from self._retry_flow(lambda left: _infer_placed_flow(placed, region, left), timeout))

    def _person_flow(self, call: Call, timeout: float | None) -> Flow[Reply]:
        """Send a call with several pictures, none of which goes through shared memory."""
        return (yield from self._retry_flow(lambda left: request(lambda to: to.infer(call, left)), timeout))

    def _ready_flow(self, model: str | None, timeout: float) -> Flow[bool]:
        """Ask whether a model, or with None each of the ensembles, is ready."""
        deadline = Deadline(timeout)
        try:
            for name in ENSEMBLES if model is None else (model,):
                if not (yield from _model_ready_flow(name, deadline)):
                    return False
        except Face3DError as error:
            if isinstance(error, (ServerUnavailable, Timeout)) and error.status != "CANCELLED":
                return False
            raise
        self._budget.server_answered()
        return True

    def _wait_ready_flow(self, timeout: float) -> Flow[None]:
        """Ask every 0.2 s whether the ensembles are ready, until they are."""
        deadline = Deadline(timeout)
        while not (yield from self._ready_flow(None, min(5.0, deadline.left_or(0.1)))):
            if deadline.over():
                raise ServerUnavailable(
                    f"the server at {self.endpoint} was not ready within {timeout:g} s. Is it started, and are its "
                    "models loaded (face3d models)?",
                    status="UNAVAILABLE",
                )
            yield Pause(min(0.2, deadline.left_or(0.0)))

    def _close_flow(self) -> Flow[None]:
        """Release the shared memory, at the server first."""
        if self._regions is None:
            return
        for name in self._regions.registered():
            try:
                yield from _unregister_flow(name)
            except Face3DError:
                continue  # a server that is gone does not hold it either
        self._regions.close()


def _revived(kind: type[BaseClient], settings: dict[str, Any]) -> BaseClient:
    return kind(**settings)


def _model_ready_flow(model: str, deadline: Deadline) -> Flow[bool]:
    return (yield from request(lambda to: to.model_ready(model, deadline.left())))


def _unregister_flow(region: str) -> Flow[None]:
    yield lambda to: to.unregister(region, 2.0)  # seconds


def _infer_placed_flow(call: Call, region: Region, timeout: float) -> Flow[Reply]:
    """Send a call whose picture is in shared memory; a server that was restarted is told of the region again."""
    deadline = Deadline(timeout)
    for _ in range(2):
        if not region.registered:
            yield lambda to: to.register(region, deadline.left())
            region.registered = True
        try:
            return (yield from request(lambda to: to.infer(call, deadline.left())))
        except Face3DError as error:
            if not is_unknown_region(error):
                raise
            region.registered = False
    return (yield from request(lambda to: to.infer(call, deadline.left())))


def raise_first_error(results: list[Reconstruction | Face3DError]) -> list[Reconstruction]:
    """Return the results if none of them is an error; raise the first one that is."""
    for result in results:
        if isinstance(result, Face3DError):
            raise result
    return cast(list[Reconstruction], results)
