"""The web page of ``face3d ui``: a photograph, its faces, the chosen one in 3D, downloads.

Gradio is an extra (``pip install face3d-client[ui]``) and typed too loosely to help, so it is imported by name. One
client serves all visitors; each visitor's photograph and faces are kept in that visitor's session.

No event is an endpoint of an API, and a photograph is decoded here only after the service has found faces in it: its
decoders run in a sandbox, those of this process do not.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import Any, Final

from face3d_client._client import Face3DClient
from face3d_client._images import MAX_BYTES
from face3d_client._mesh.expressions import Expressions
from face3d_client._ui.fuse import Fuser, add_fuse
from face3d_client._ui.guard import PageGuard
from face3d_client._ui.handlers import Handlers
from face3d_client._ui.layout import FORGET, TITLE, Layout, lay_out, uploaded
from face3d_client._ui.people import add_people
from face3d_client._ui.person import PersonMaker, add_person
from face3d_client._ui.studio import MOODS, Studio

__all__ = ["build_page", "launch_options"]

_VISITS: Final = 300  # kept at the same time, a few megabytes each
# The 3D view tries WebGPU first, which fails noisily and slowly where a browser has it without a graphics card.
_HEAD: Final = "<script>delete Navigator.prototype.gpu;</script>"


def launch_options(page: Any, hosts: Iterable[str] = ()) -> dict[str, Any]:
    """Choose the arguments of `launch` that go with the page.

    The fonts are the visitor's own, so that the page asks no other machine, and nothing is drawn by a Node process.
    Visitors see no exception's words but those meant for them.

    Args:
        page: what `build_page` made.
        hosts: further names by which browsers may call it, see `PageGuard`.
    """
    gr: Any = importlib.import_module("gradio")
    middleware: Any = importlib.import_module("starlette.middleware")
    theme = gr.themes.Soft(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    guard = middleware.Middleware(PageGuard, uploads=page.GRADIO_CACHE, hosts=tuple(hosts))
    return {
        "theme": theme, "head": _HEAD, "ssr_mode": False, "max_file_size": MAX_BYTES, "footer_links": [],
        "show_error": False, "state_session_capacity": _VISITS, "enable_monitoring": False, "share": False,
        "app_kwargs": {"middleware": [guard], "docs_url": None, "redoc_url": None, "openapi_url": None},
    }  # fmt: skip


def build_page(client: Face3DClient, expressions: Expressions | None = None) -> Any:
    """Build the page as a gradio.Blocks, ready to `launch` (with `launch_options`).

    Args:
        client: the server.
        expressions: the face model's, for the sliders of the expression where the mesh is not rigged.

    Raises:
        ModuleNotFoundError: gradio is not installed.
    """
    gr: Any = importlib.import_module("gradio")
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(FORGET, FORGET)) as page:
        # Files in Gradio's folder are served as they are. Pictures that it puts there itself lie under their content's
        # hash, and are written again while another visitor reads them.
        studio = Studio(client, expressions, parent=page.GRADIO_CACHE)
        moods = list(MOODS)
        layout = lay_out(gr, moods, page.GRADIO_CACHE)
        _connect(gr, layout, Handlers(gr, studio, moods))
        add_person(gr, PersonMaker(client, studio), lambda payload: uploaded(gr, payload, page.GRADIO_CACHE))
        add_people(gr, client, lambda payload: uploaded(gr, payload, page.GRADIO_CACHE), FORGET)
        add_fuse(gr, Fuser(client, studio), lambda payload: uploaded(gr, payload, page.GRADIO_CACHE))
    # Waiting visitors are told their place; beyond a hundred they are asked to come back.
    page.queue(max_size=100, default_concurrency_limit=4, api_open=False)
    page.studio = studio
    return page


def _connect(gr: Any, layout: Layout, handlers: Handlers) -> None:
    """Connect the components' events with their handlers."""
    given, motion, visit = layout.input, layout.motion, layout.visit

    def choose(event: Any, *values: Any) -> list[Any]:
        return handlers.choose((float(event.index[0]), float(event.index[1])), *values)

    # Gradio hands over the click to the parameter of this type; the name is only known here.
    choose.__annotations__["event"] = gr.SelectData

    private = {"api_visibility": "private"}
    values, shown = [*given.settings, *motion.sliders], [visit, *layout.shown]
    given.photograph.input(handlers.open, [given.photograph, given.threshold, *values], shown, **private)
    given.photograph.clear(handlers.clear, None, shown, **private)
    given.again.click(handlers.look_again, [visit, given.threshold, *values], shown, **private)
    given.faces.select(choose, [visit, *values], shown, **private)
    given.apply.click(handlers.make_again, [visit, *values], shown, **private)
    for slider in motion.sliders:
        # While a picture is drawn, only the slider's last place counts.
        slider.input(
            handlers.move, [visit, *motion.sliders], [motion.picture], trigger_mode="always_last",
            show_progress="hidden", **private,
        )  # fmt: skip
    motion.keep.click(handlers.keep, [visit, *motion.sliders], [motion.file], **private)
