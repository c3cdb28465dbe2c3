"""How many requests, and how many bytes of them, are inside at the same time.

A request is read first and then inside: what a client has not sent yet takes no place from others, only memory as it
comes. Who reads slowly for others is hurried when they wait.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass

from server.gateway import limits
from server.gateway.refusal import overloaded, too_slow


@dataclass(eq=False)
class _Reader:
    """One request that is being read: since when, whether it takes one of the places, and when it is given up."""

    began: float
    takes_place: bool
    deadline: asyncio.Timeout
    hurried: bool = False

    def hurry(self) -> None:
        """Give it only as long as anybody gets while others wait."""
        self.hurried = True
        end = max(self.began + limits.HURRIED_BODY_TIME, asyncio.get_running_loop().time())
        self.deadline.reschedule(min(end, self.deadline.when() or end))


class Admission:
    """Counts requests that are read and that are inside, and the bytes of both; used from one event loop.

    A request whose body is still on its way takes no place of those that are inside: else whoever sends bodies that
    never end would keep everybody out.

    Attributes:
        in_flight: requests inside.
        held: bytes of all requests that are read or inside.
    """

    def __init__(self, requests: int = limits.MAX_IN_FLIGHT, held: int = limits.MAX_HELD) -> None:
        self._requests, self._bytes = requests, held
        self.in_flight = self.held = 0
        self._readers: list[_Reader] = []
        self._for_bytes: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._for_place: deque[asyncio.Future[None]] = deque()
        self._large = asyncio.Semaphore(limits.MAX_LARGE)
        self._closing = False
        self._idle = asyncio.Event()
        self._idle.set()

    def check_room(self) -> None:
        """See that one more request can be inside.

        Raises:
            Refused: ``Overloaded``: there would be no place for it.
        """
        if self.in_flight >= self._requests:
            raise overloaded(f"the server is full ({self._requests} requests are inside)")

    def ticket(self) -> Ticket:
        """Make what holds the bytes of one request, and later its place; give it back with `Ticket.close`."""
        return Ticket(self)

    @contextlib.asynccontextmanager
    async def reading(self, in_one_piece: bool) -> AsyncIterator[None]:
        """Bound the reading of one request, as a context manager around it.

        Args:
            in_one_piece: whether its bytes are counted only when all have come: it takes one of MAX_READING places.

        Raises:
            Refused: ``Timeout`` when it takes too long, ``Overloaded`` when there is no place for too long.
        """
        if in_one_piece:
            await self._wait_for_place()
        reader = None
        try:
            async with asyncio.timeout(limits.BODY_TIME) as deadline:
                reader = _Reader(asyncio.get_running_loop().time(), in_one_piece, deadline)
                self._readers.append(reader)
                self._idle.clear()
                if self._closing:
                    reader.hurry()
                yield
        except TimeoutError:
            raise too_slow() from None
        finally:
            if reader is not None:
                self._readers.remove(reader)
            if in_one_piece and self._for_place:
                _wake(self._for_place)
            self._settle()

    @contextlib.asynccontextmanager
    async def turn(self, large: bool) -> AsyncIterator[None]:
        """Let a request work, as a context manager around that: a large one when it is its turn.

        Raises:
            Refused: ``Overloaded`` when that takes too long.
        """
        if not large:
            yield
            return
        try:
            async with asyncio.timeout(limits.LARGE_TIME):
                await self._large.acquire()
        except TimeoutError:
            raise overloaded("as many large pictures are being worked on as can be") from None
        try:
            yield
        finally:
            self._large.release()

    async def drained(self) -> None:
        """Return when nothing is read or inside any more; what is read is hurried."""
        self._closing = True
        for reader in self._readers:
            reader.hurry()
        await self._idle.wait()

    def _settle(self) -> None:
        if not self.in_flight and not self._readers:
            self._idle.set()

    async def _wait_for_place(self) -> None:
        while True:
            taken = [reader for reader in self._readers if reader.takes_place]
            if len(taken) < limits.MAX_READING:
                return
            if (oldest := next((reader for reader in taken if not reader.hurried), None)) is not None:
                oldest.hurry()
            await _wait(self._for_place, limits.HURRIED_BODY_TIME + 1)

    async def _take_bytes(self, size: int) -> None:
        # What is small passes what is large and waits: else a few large bodies that never end would keep all waiting.
        if self.held + size <= self._bytes:
            self.held += size
            return
        room: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._for_bytes.append((size, room))
        try:
            async with asyncio.timeout(limits.ROOM_TIME):
                await room
        except BaseException as error:
            if room.done() and not room.cancelled():
                self._give_bytes(size)  # it came at the same moment
            else:
                with contextlib.suppress(ValueError):  # `_admit_waiting` may have met it first
                    self._for_bytes.remove((size, room))
                self._admit_waiting()
            if isinstance(error, TimeoutError):
                raise overloaded("the server holds as many bytes of requests as it can") from None
            raise

    def _give_bytes(self, size: int) -> None:
        self.held -= size
        self._admit_waiting()

    def _admit_waiting(self) -> None:
        while self._for_bytes and self.held + self._for_bytes[0][0] <= self._bytes:
            size, room = self._for_bytes.popleft()
            if not room.done():
                self.held += size
                room.set_result(None)


class Ticket:
    """One request's bytes and, from `enter` on, its place.

    Attributes:
        outcome: how Triton's error counts (`server.gateway.outcome`); None where it gave tensors, or nothing yet.
    """

    def __init__(self, admission: Admission) -> None:
        self.outcome: str | None = None
        self._admission = admission
        self._held = 0
        self._inside = False

    async def hold(self, size: int) -> None:
        """Hold ``size`` bytes in all: waits for room when that is more than before, gives back when it is less.

        Raises:
            Refused: ``Overloaded`` when there is no room for too long.
        """
        more = size - self._held
        if more > 0:
            await self._admission._take_bytes(more)
        elif more < 0:
            self._admission._give_bytes(-more)
        self._held = size

    def enter(self) -> None:
        """Take a place.

        Raises:
            Refused: ``Overloaded``.
        """
        self._admission.check_room()
        self._admission.in_flight += 1
        self._admission._idle.clear()
        self._inside = True

    def close(self) -> None:
        """Give everything back."""
        self._admission._give_bytes(self._held)
        self._held = 0
        if self._inside:
            self._inside = False
            self._admission.in_flight -= 1
        self._admission._settle()


async def _wait(queue: deque[asyncio.Future[None]], seconds: float) -> None:
    turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    queue.append(turn)
    try:
        async with asyncio.timeout(seconds):
            await turn
    except TimeoutError:
        raise overloaded("as many requests are being read as can be") from None
    finally:
        with contextlib.suppress(ValueError):
            queue.remove(turn)


def _wake(queue: deque[asyncio.Future[None]]) -> None:
    while queue:
        turn = queue.popleft()
        if not turn.done():
            turn.set_result(None)
            return
