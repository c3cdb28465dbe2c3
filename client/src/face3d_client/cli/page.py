"""``face3d ui``: the web page."""

from __future__ import annotations

import argparse
import os
import socket
import tempfile

from face3d_client.cli.arguments import open_client
from face3d_client.cli.checkout import checkout_face_model
from face3d_client.cli.jobs import UsageError
from face3d_client.cli.output import ALL_DONE

__all__ = ["ui"]


def ui(options: argparse.Namespace) -> int:
    """Serve the page until it is interrupted; return the exit status."""
    from face3d_client._mesh.expressions import Expressions
    from face3d_client._ui.page import build_page, launch_options

    model = options.face_model or checkout_face_model()
    expressions = None if model is None else Expressions.load(model)
    # A folder of its own: no other program's files lie where the page serves from, and all of it can be deleted.
    with open_client(options) as client, tempfile.TemporaryDirectory(prefix="face3d-ui-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        client.info(timeout=min(10.0, options.timeout))
        try:
            page = build_page(client, expressions)
        except ModuleNotFoundError as error:
            raise UsageError(
                f"the page needs {error.name}, which is not installed: pip install 'face3d-client[ui]'."
            ) from error
        hosts = (options.host, socket.gethostname(), *options.allow_host)
        try:
            page.launch(
                server_name=options.host, server_port=options.port, inbrowser=not options.no_browser,
                **launch_options(page, hosts),
            )  # fmt: skip
        except OSError as error:  # Gradio's words speak of its own options
            raise UsageError(
                f"the page cannot listen on {options.host}:{options.port}. Is the port taken? Choose another --port."
            ) from error
        finally:
            page.studio.close()
    return ALL_DONE
