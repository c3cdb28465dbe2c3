"""Two pieces of one request's work side by side: OpenCV, zlib and much of NumPy let go of Python's lock."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

First = TypeVar("First")
Second = TypeVar("Second")

_POOL = ThreadPoolExecutor(len(os.sched_getaffinity(0)), thread_name_prefix="beside")


def beside(first: Callable[[], First], second: Callable[[], Second]) -> tuple[First, Second]:
    """Return what two functions return; the second runs in another thread meanwhile.

    Args:
        first, second: functions that do not need each other. The second must not call this function: the threads that
            wait would be those that are waited for.
    """
    other = _POOL.submit(second)
    try:
        mine = first()
    finally:
        wait([other])  # it reads what belongs to the request, which ends where the first one fails
    return mine, other.result()
