"""`python -m deploy.docker.probe`: one real inference through the ensemble face3d, for liveness probes."""

from __future__ import annotations

import os
import sys

from server.control import Control, ControlError
from server.probe import check


def main() -> int:
    """Ask the server of this container, on the port that its environment names.

    Triton's own port, behind the gateway: one that is full of others' requests is no reason to end the container.
    """
    behind = os.environ.get("FACE3D_GATEWAY", "1") != "0"
    port = os.environ.get("FACE3D_TRITON_HTTP_PORT" if behind else "FACE3D_HTTP_PORT") or ("8010" if behind else "8000")
    try:
        check(Control(f"127.0.0.1:{port}"), "face3d", timeout=12)
    except ControlError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
