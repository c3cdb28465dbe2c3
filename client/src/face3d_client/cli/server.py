"""``face3d models``, ``info`` and ``serve``: the server itself."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from face3d_client._protocol.codec import ENSEMBLES
from face3d_client._version import __version__
from face3d_client.cli.arguments import open_client
from face3d_client.cli.checkout import repository_root
from face3d_client.cli.jobs import UsageError
from face3d_client.cli.output import ALL_DONE, SOME_FAILED

__all__ = ["info", "models", "serve"]


def models(options: argparse.Namespace) -> int:
    """List what the server has loaded; return the exit status."""
    from face3d_client.cli.tables import print_models

    with open_client(options) as client:
        found = client.models()
    print_models(found)
    ready = {model.name for model in found if model.ready}
    return ALL_DONE if ready.issuperset(ENSEMBLES) else SOME_FAILED


def info(options: argparse.Namespace) -> int:
    """Say who answers and whether it is ready; return the exit status."""
    with open_client(options) as client:
        server = client.info()
        missing = [name for name in ENSEMBLES if not client.ready(name)]
    print(f"client   face3d {__version__}")
    print(f"server   {server.name} {server.version} at {client.endpoint}")
    print(f"service  {'not ready: ' + ', '.join(missing) if missing else 'ready'}")
    return SOME_FAILED if missing else ALL_DONE


def serve(words: Sequence[str]) -> int:
    """Replace this process by the server of the checkout.

    Args:
        words: options of ``python -m server``.

    Raises:
        UsageError: this is not started in a checkout.
    """
    root = repository_root()
    if root is None:
        raise UsageError(
            "the server is not here: it comes with the repository, not with this package. Run this in a checkout of "
            "Face3D on Triton (after `make setup export`), or start its container."
        )
    os.chdir(root)
    os.execv(sys.executable, [sys.executable, "-m", "server", *words])
