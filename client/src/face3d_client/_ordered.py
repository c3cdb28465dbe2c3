"""Concurrent maps with a bounded number of calls in flight and answers in the order of the items."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

__all__ = ["ordered_map", "ordered_map_async"]

Q = TypeVar("Q")
A = TypeVar("A")


def ordered_map(function: Callable[[Q], A], items: Iterable[Q], concurrency: int) -> Iterator[A]:
    """Map by threads; read at most twice `concurrency` items ahead of the next answer.

    When the caller stops early, what has not begun is dropped; what has begun ends by itself.
    """
    _check(concurrency)
    pool = ThreadPoolExecutor(concurrency, thread_name_prefix="face3d")
    pending: deque[Future[A]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            while pending and (len(pending) >= 2 * concurrency or pending[0].done()):
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


async def ordered_map_async(
    function: Callable[[Q], Awaitable[A]], items: Iterable[Q] | AsyncIterable[Q], concurrency: int
) -> AsyncIterator[A]:
    """Map by tasks, otherwise as `ordered_map`; when the caller stops early, what has begun is cancelled."""
    _check(concurrency)
    gate = asyncio.Semaphore(concurrency)

    async def run(item: Q) -> A:
        async with gate:
            return await function(item)

    pending: deque[asyncio.Task[A]] = deque()
    try:
        async for item in _as_async(items):
            pending.append(asyncio.create_task(run(item)))
            while pending and (len(pending) >= 2 * concurrency or pending[0].done()):
                yield await pending.popleft()
        while pending:
            yield await pending.popleft()
    finally:
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)


async def _as_async(items: Iterable[Q] | AsyncIterable[Q]) -> AsyncIterator[Q]:
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item


def _check(concurrency: int) -> None:
    if concurrency < 1:
        raise ValueError(f"concurrency is at least 1, not {concurrency}")
