"""Connections of an asyncio client: they belong to the event loop that made them, so each loop has its own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

__all__ = ["PerLoop"]

T = TypeVar("T")


class PerLoop(Generic[T]):
    """One object for each event loop, made when it is first needed there.

    A notebook, or a program that calls `asyncio.run` more than once, uses one client in several loops one after the
    other; a server with a loop in each thread in several at the same time.

    Args:
        make: called in the loop.
        close: as a coroutine function.
    """

    def __init__(self, make: Callable[[], T], close: Callable[[T], Awaitable[None]]) -> None:
        self._make = make
        self._close = close
        self._made: dict[asyncio.AbstractEventLoop, T] = {}

    async def get(self) -> T:
        """Return the running loop's object; those of loops that are closed are closed too."""
        loop = asyncio.get_running_loop()
        made = self._made.get(loop)
        if made is None:
            made = self._made[loop] = self._make()
            for other in [other for other in self._made if other.is_closed()]:
                await self._end(self._made.pop(other))
        return made

    async def close(self) -> None:
        """Close all of them, each in its loop where that runs."""
        while self._made:
            loop, made = self._made.popitem()
            if loop.is_running() and loop is not asyncio.get_running_loop():
                asyncio.run_coroutine_threadsafe(self._end(made), loop)
            else:
                await self._end(made)

    async def _end(self, made: T) -> None:
        with contextlib.suppress(RuntimeError):  # its loop is closed, and with it all that could be ended in order
            await self._close(made)
