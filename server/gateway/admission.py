"""How many requests, and how many bytes of them, are inside at the same time."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque

from server.gateway import limits
from server.gateway.refusal import overloaded


class Admission:
    """Counts requests in flight and the bytes of their bodies; used from one event loop.

    A request whose body is still on its way takes no place of those that are worked on: else whoever sends bodies that
    never end would keep everybody out.

    Attributes:
        in_flight: requests inside.
        working: those of them whose body is whole.
        held: bytes that their bodies have, or may still come to have.
    """

    def __init__(self, requests: int = limits.MAX_IN_FLIGHT, held: int = limits.MAX_HELD) -> None:
        self._requests, self._bytes = requests, held
        self.in_flight = self.working = self.held = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._idle = asyncio.Event()
        self._idle.set()

    def ticket(self) -> Ticket:
        """Let one request in; it leaves with `Ticket.close`.

        Raises:
            Refused: ``Overloaded``: there would be no place for it.
        """
        self._see_that_there_is_room()
        self.in_flight += 1
        self._idle.clear()
        return Ticket(self)

    async def idle(self) -> None:
        """Return when no request is inside."""
        await self._idle.wait()

    def _see_that_there_is_room(self) -> None:
        if self.working >= self._requests:
            raise overloaded(f"the server is full ({self._requests} requests are inside)")

    def _begin(self) -> None:
        self._see_that_there_is_room()
        self.working += 1

    def _leave(self) -> None:
        self.in_flight -= 1
        if not self.in_flight:
            self._idle.set()

    async def _take(self, size: int) -> None:
        # What is small passes what is large and waits: else a few large bodies that never end would keep all waiting.
        if self.held + size <= self._bytes:
            self.held += size
            return
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((size, place))
        try:
            async with asyncio.timeout(limits.ROOM_TIME):
                await place
        except BaseException as error:
            if place.done() and not place.cancelled():
                self._give(size)  # room came at the same moment
            else:
                with contextlib.suppress(ValueError):  # `_next` may have met it first
                    self._waiting.remove((size, place))
                self._next()
            if isinstance(error, TimeoutError):
                raise overloaded("the server holds as many bytes of requests as it can") from None
            raise

    def _give(self, size: int) -> None:
        self.held -= size
        self._next()

    def _next(self) -> None:
        while self._waiting and self.held + self._waiting[0][0] <= self._bytes:
            size, place = self._waiting.popleft()
            if place.done():  # its request was cancelled, and has not run since
                continue
            self.held += size
            place.set_result(None)


class Ticket:
    """One request's place and the bytes it holds."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._held = 0
        self._works = False

    async def hold(self, size: int) -> None:
        """Hold ``size`` bytes in all: waits for room when that is more than before, gives back when it is less.

        Raises:
            Refused: ``Overloaded`` when there is no room for too long.
        """
        more = size - self._held
        if more > 0:
            await self._admission._take(more)
        elif more < 0:
            self._admission._give(-more)
        self._held = size

    def begin(self) -> None:
        """Take a place among those that are worked on: the body is whole.

        Raises:
            Refused: ``Overloaded``.
        """
        self._admission._begin()
        self._works = True

    def close(self) -> None:
        """Give everything back."""
        if self._works:
            self._admission.working -= 1
        self._admission._give(self._held)
        self._admission._leave()
        self._held, self._works = 0, False
