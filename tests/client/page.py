"""The page of `face3d ui`, open for the tests that visit it."""

from __future__ import annotations

import asyncio
import gc
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from face3d_client import Face3DClient
from face3d_client._mesh.expressions import Expressions
from face3d_client._ui.page import build_page, launch_options


@contextmanager
def open_page(client: Face3DClient, expressions: Expressions) -> Iterator[str]:
    """The address of a page that shows what `client` answers, until the block is left."""
    pytest.importorskip("gradio", reason="gradio is not installed (extra `ui`)")
    page = build_page(client, expressions)
    try:
        _, url, _ = page.launch(prevent_thread_lock=True, quiet=True, inbrowser=False, **launch_options(page))
        yield str(url)
    finally:
        page.close()
        page.studio.close()
        _collect_loops()


def _collect_loops() -> None:
    """Gradio makes event loops to have locks and closes none: collected here, they are no later test's warning."""
    asyncio.set_event_loop(None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
