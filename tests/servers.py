"""Servers for tests: real ones, ended at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from server.embedded import EmbeddedServer, Progress, ServerOptions


@contextmanager
def serving(options: ServerOptions, progress: Progress | None = None) -> Iterator[EmbeddedServer]:
    """Start a tritonserver, and end it without waiting for requests when the test is over.

    Triton's own end takes three seconds although nobody waits for an answer: what it promises is tested where it
    matters (test_embedded.py, test_drain.py, test_main.py).
    """
    running = EmbeddedServer(options, progress).start()
    try:
        yield running
    finally:
        running.kill()
        running.stop()
